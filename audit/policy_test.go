package audit_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
)

// underPublicRules names the policy of the CA/Browser Forum for organization-validated certificates.
func underPublicRules(t *testing.T) certtest.Spec {
	t.Helper()
	id, err := x509.OIDFromInts([]uint64{2, 23, 140, 1, 2, 2})
	certtest.Must(t, err)
	return func(c *x509.Certificate) { c.Policies = []x509.OID{id} }
}

func TestLongLived(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	from := func(year int, month time.Month, d int, days int) certtest.Spec {
		start := time.Date(year, month, d, 0, 0, 0, 0, time.UTC)
		return certtest.Dates(start, start.AddDate(0, 0, days))
	}
	public := underPublicRules(t)
	client := uses(0, x509.ExtKeyUsageClientAuth)
	const rule = ": the Baseline Requirements that it names allow "
	const apple = ": Apple's platforms refuse a server's beyond 825 days"
	for _, c := range []struct {
		name  string
		specs []certtest.Spec
		max   time.Duration
		want  string
	}{
		{"825 days", []certtest.Spec{from(2026, 5, 1, 825)}, 0, ""},
		{"826 days", []certtest.Spec{from(2026, 5, 1, 826)}, 0, "it lives 826d" + apple},
		{"826 days, before there was a rule", []certtest.Spec{from(2019, 6, 1, 826)}, 0, ""},
		{"826 days, a client's", []certtest.Spec{from(2026, 5, 1, 826), client}, 0, ""},
		{"an authority's", []certtest.Spec{certtest.Authority, from(2026, 5, 1, 3650)}, time.Hour, ""},
		{"public, 2018", []certtest.Spec{public, from(2018, 2, 1, 1000), client}, 0, ""},
		{"public, 2020", []certtest.Spec{public, from(2020, 8, 31, 825)}, 0, ""},
		{"public, a day later", []certtest.Spec{public, from(2020, 9, 1, 399)}, 0, "it lives 399d" + rule + "398 days"},
		{"public, 2026", []certtest.Spec{public, from(2026, 3, 15, 201)}, 0, "it lives 201d" + rule + "200 days"},
		{"public, 2027", []certtest.Spec{public, from(2027, 3, 15, 101)}, 0, "it lives 101d" + rule + "100 days"},
		{"public, 2029", []certtest.Spec{public, from(2029, 3, 15, 48)}, 0, "it lives 48d" + rule + "47 days"},
		{"public, 2029, allowed", []certtest.Spec{public, from(2029, 3, 15, 47)}, 0, ""},
		{"own policy", []certtest.Spec{from(2026, 5, 1, 91)}, 90 * certtest.Day, "it lives 90d, longer than the 90d of your policy"},
		{"own policy, within", []certtest.Spec{from(2026, 5, 1, 90)}, 90 * certtest.Day, ""},
	} {
		p := certtest.New(t, root, "svc", c.specs...)
		r, err := audittest.Judge(t.Context(), audit.Config{MaxLifetime: c.max, Only: []string{"long-lived"}, Sources: []audit.Source{audittest.Static{on("file", "x", p)}}})
		certtest.Must(t, err)
		if c.want != "" {
			c.want = "warn: " + c.want
		}
		if got := findings(r, "long-lived")["file x long-lived"]; got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestKeyExchange(t *testing.T) {
	p := certtest.New(t, certtest.New(t, nil, "Test Root", certtest.Authority), "svc")
	for _, c := range []struct {
		version uint16
		curve   tls.CurveID
		want    string
	}{
		{tls.VersionTLS13, tls.X25519MLKEM768, ""},
		{tls.VersionTLS13, tls.SecP384r1MLKEM1024, ""},
		{tls.VersionTLS13, tls.X25519, "info: it exchanges keys by X25519, which is not post-quantum"},
		{tls.VersionTLS13, 0, ""}, // the handshake ended before
		{tls.VersionTLS12, tls.X25519, ""},
	} {
		s := on("endpoint", "x", p)
		s.TLS = &tls.ConnectionState{Version: c.version, CurveID: c.curve}
		r, err := audittest.Judge(t.Context(), audit.Config{Sources: []audit.Source{audittest.Static{s}}, Disable: []string{"not-judged"}})
		certtest.Must(t, err)
		if got := findings(r, "key-exchange")["endpoint x key-exchange"]; got != c.want {
			t.Errorf("%v: %q, want %q", c.curve, got, c.want)
		}
		info, _ := r.Count(audit.Info)
		warn, _ := r.Count(audit.Warn)
		if fine := r.Rows[0].State == "OK"; c.version == tls.VersionTLS13 && (!fine || info != len(c.want[:min(1, len(c.want))]) || warn != 0) {
			t.Errorf("%v: %s, %d, %d", c.curve, r.Rows[0].State, info, warn)
		}
	}
}
