package audit_test

import (
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
)

// revokes makes a list of an authority: these certificates, out of date after some time.
func revokes(t *testing.T, by *pair, good time.Duration, list ...x509.RevocationListEntry) *x509.RevocationList {
	t.Helper()
	issuer := *by.cert
	issuer.KeyUsage |= x509.KeyUsageCRLSign
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now().Add(-24 * time.Hour), NextUpdate: time.Now().Add(good), RevokedCertificateEntries: list,
	}, &issuer, by.key)
	must(t, err)
	l, err := x509.ParseRevocationList(der)
	must(t, err)
	return l
}

func listed(p *pair, reason int) x509.RevocationListEntry {
	return x509.RevocationListEntry{SerialNumber: p.cert.SerialNumber, RevocationTime: time.Now().Add(-3 * time.Hour), ReasonCode: reason}
}

func mayRevoke(c *x509.Certificate) { authority(c); c.KeyUsage |= x509.KeyUsageCRLSign }

func TestRevocationLists(t *testing.T) {
	root, other := newPair(t, nil, "Test Root", mayRevoke), newPair(t, nil, "Test Root", mayRevoke)
	stranger := newPair(t, nil, "Other Root", mayRevoke)
	bad, good, held := newPair(t, root, "bad"), newPair(t, root, "good"), newPair(t, root, "held")
	alone := func(p *pair) audit.Subject {
		return audit.Subject{Kind: "file", Place: p.cert.Subject.CommonName, Cert: seen(p.cert)}
	}
	list := revokes(t, root, time.Hour, listed(bad, 1), listed(held, 8))
	for _, c := range []struct {
		name string
		row  audit.Subject
		list *x509.RevocationList
		want string
	}{
		{"on it", on("file", "x", bad), list, "crit: revoked 3h ago, says the list in ca.crl"},
		{"its issuer is not at hand", alone(bad), list, "crit: revoked 3h ago, says the list in ca.crl"},
		{"not on it", on("file", "x", good), list, ""},
		{"taken off it", on("file", "x", held), list, ""},
		{"the list is another's", on("file", "x", bad), revokes(t, stranger, time.Hour, listed(bad, 1)), ""},
		{"the list is forged", on("endpoint", "x", bad), revokes(t, other, time.Hour, listed(bad, 1)), "warn: the list in ca.crl says that it is revoked, and Test Root has not signed that list"},
		{"the list is old", on("endpoint", "x", bad), revokes(t, root, -2*time.Hour, listed(bad, 1)), "crit: revoked 3h ago, says the list in ca.crl"},
	} {
		r, err := judged(t.Context(), audit.Config{Sources: []audit.Source{static{c.row, c.row}}, Lists: map[string]*x509.RevocationList{"ca.crl": c.list}})
		must(t, err)
		if got := findings(r, "revoked")[c.row.Kind+" "+c.row.Place+" revoked"]; got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		stale := states(t, r, "")["ca.crl"]
		if want := map[bool]string{true: "EXPIRED crl-expired"}[c.name == "the list is old"]; !strings.HasPrefix(stale, want) {
			t.Errorf("%s: %q, want %q", c.name, stale, want)
		}
		if got := states(t, r, "")["x"]; strings.HasPrefix(c.want, "crit") && c.row.Place == "x" && !strings.HasPrefix(got, "REVOKED") {
			t.Errorf("%s: state %s", c.name, got)
		}
	}
}
