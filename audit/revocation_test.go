package audit_test

import (
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
)

// revokes returns a list of an authority with these entries. It is out of date after some
// time.
func revokes(t *testing.T, by *certtest.Pair, good time.Duration, list ...x509.RevocationListEntry) *x509.RevocationList {
	t.Helper()
	issuer := *by.Cert
	issuer.KeyUsage |= x509.KeyUsageCRLSign
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now().Add(-24 * time.Hour), NextUpdate: time.Now().Add(good), RevokedCertificateEntries: list,
	}, &issuer, by.Key)
	certtest.Must(t, err)
	l, err := x509.ParseRevocationList(der)
	certtest.Must(t, err)
	return l
}

func listed(p *certtest.Pair, reason int) x509.RevocationListEntry {
	return x509.RevocationListEntry{SerialNumber: p.Cert.SerialNumber, RevocationTime: time.Now().Add(-3 * time.Hour), ReasonCode: reason}
}

func mayRevoke(c *x509.Certificate) { certtest.Authority(c); c.KeyUsage |= x509.KeyUsageCRLSign }

func TestRevocationLists(t *testing.T) {
	root, other := certtest.New(t, nil, "Test Root", mayRevoke), certtest.New(t, nil, "Test Root", mayRevoke)
	stranger := certtest.New(t, nil, "Other Root", mayRevoke)
	bad, good, held := certtest.New(t, root, "bad"), certtest.New(t, root, "good"), certtest.New(t, root, "held")
	alone := func(p *certtest.Pair) audit.Subject {
		return audit.Subject{Kind: "file", Place: p.Cert.Subject.CommonName, Cert: certtest.Seen(p.Cert)}
	}
	stolen := certtest.New(t, root, "stolen", mayRevoke)
	under, circle := on("file", "x", certtest.New(t, stolen, "under")), on("file", "x", bad)
	under.Bundle = certtest.SeenAll([]*certtest.Pair{root})
	circle.Chain = append(circle.Chain, circle.Chain...)
	list := revokes(t, root, time.Hour, listed(bad, 1), listed(held, 8))
	for _, c := range []struct {
		name string
		row  audit.Subject
		list *x509.RevocationList
		want string
	}{
		{"on it", on("file", "x", bad), list, "crit: revoked 3h ago, says the list in ca.crl"},
		{"its issuer is not at hand", alone(bad), list, "crit: revoked 3h ago, says the list in ca.crl"},
		{"its issuer is on it", under, revokes(t, root, time.Hour, listed(stolen, 2)), "crit: its issuer stolen: revoked 3h ago, says the list in ca.crl"},
		{"its issuer is not on it", under, list, ""},
		{"a root is its own issuer", circle, revokes(t, stranger, time.Hour, listed(root, 2)), ""},
		{"not on it", on("file", "x", good), list, ""},
		{"taken off it", on("file", "x", held), list, ""},
		{"the list is another's", on("file", "x", bad), revokes(t, stranger, time.Hour, listed(bad, 1)), ""},
		{"the list is forged", on("endpoint", "x", bad), revokes(t, other, time.Hour, listed(bad, 1)), "warn: the list in ca.crl says that it is revoked, and Test Root has not signed that list"},
		{"the list is old", on("endpoint", "x", bad), revokes(t, root, -2*time.Hour, listed(bad, 1)), "crit: revoked 3h ago, says the list in ca.crl"},
	} {
		r, err := audittest.Judge(t.Context(), audit.Config{Sources: []audit.Source{audittest.Static{c.row, c.row}}, Lists: map[string]*x509.RevocationList{"ca.crl": c.list}})
		certtest.Must(t, err)
		if got := findings(r, "revoked")[c.row.Kind+" "+c.row.Place+" revoked"]; got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		stale := audittest.States(t, r, "")["ca.crl"]
		if want := map[bool]string{true: "EXPIRED crl-expired"}[c.name == "the list is old"]; !strings.HasPrefix(stale, want) {
			t.Errorf("%s: %q, want %q", c.name, stale, want)
		}
		if got := audittest.States(t, r, "")["x"]; strings.HasPrefix(c.want, "crit") && c.row.Place == "x" && !strings.HasPrefix(got, "REVOKED") {
			t.Errorf("%s: state %s", c.name, got)
		}
	}
}
