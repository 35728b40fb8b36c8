package audit_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
)

// underPublicRules names the policy of the CA/Browser Forum for organization-validated certificates.
func underPublicRules(t *testing.T) spec {
	t.Helper()
	id, err := x509.OIDFromInts([]uint64{2, 23, 140, 1, 2, 2})
	must(t, err)
	return func(c *x509.Certificate) { c.Policies = []x509.OID{id} }
}

func TestLongLived(t *testing.T) {
	root := newPair(t, nil, "Test Root", authority)
	from := func(year int, month time.Month, d int, days int) spec {
		start := time.Date(year, month, d, 0, 0, 0, 0, time.UTC)
		return dates(start, start.AddDate(0, 0, days))
	}
	public := underPublicRules(t)
	client := uses(0, x509.ExtKeyUsageClientAuth)
	const rule = ": the Baseline Requirements that it names allow "
	const apple = ": Apple's platforms refuse a server's beyond 825 days"
	for _, c := range []struct {
		name  string
		specs []spec
		max   time.Duration
		want  string
	}{
		{"825 days", []spec{from(2026, 5, 1, 825)}, 0, ""},
		{"826 days", []spec{from(2026, 5, 1, 826)}, 0, "it lives 826d" + apple},
		{"826 days, before there was a rule", []spec{from(2019, 6, 1, 826)}, 0, ""},
		{"826 days, a client's", []spec{from(2026, 5, 1, 826), client}, 0, ""},
		{"an authority's", []spec{authority, from(2026, 5, 1, 3650)}, time.Hour, ""},
		{"public, 2018", []spec{public, from(2018, 2, 1, 1000), client}, 0, ""},
		{"public, 2020", []spec{public, from(2020, 8, 31, 825)}, 0, ""},
		{"public, a day later", []spec{public, from(2020, 9, 1, 399)}, 0, "it lives 399d" + rule + "398 days"},
		{"public, 2026", []spec{public, from(2026, 3, 15, 201)}, 0, "it lives 201d" + rule + "200 days"},
		{"public, 2027", []spec{public, from(2027, 3, 15, 101)}, 0, "it lives 101d" + rule + "100 days"},
		{"public, 2029", []spec{public, from(2029, 3, 15, 48)}, 0, "it lives 48d" + rule + "47 days"},
		{"public, 2029, allowed", []spec{public, from(2029, 3, 15, 47)}, 0, ""},
		{"own policy", []spec{from(2026, 5, 1, 91)}, 90 * Day, "it lives 90d, longer than the 90d of your policy"},
		{"own policy, within", []spec{from(2026, 5, 1, 90)}, 90 * Day, ""},
	} {
		p := newPair(t, root, "svc", c.specs...)
		r, err := judged(t.Context(), audit.Config{MaxLifetime: c.max, Only: []string{"long-lived"}, Sources: []audit.Source{static{on("file", "x", p)}}})
		must(t, err)
		if c.want != "" {
			c.want = "warn: " + c.want
		}
		if got := findings(r, "long-lived")["file x long-lived"]; got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestKeyExchange(t *testing.T) {
	p := newPair(t, newPair(t, nil, "Test Root", authority), "svc")
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
		r, err := judged(t.Context(), audit.Config{Sources: []audit.Source{static{s}}, Disable: []string{"not-judged"}})
		must(t, err)
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
