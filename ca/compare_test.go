package ca_test

import (
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/policy"
)

func TestDeviations(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	cert := enrol(t, c, "ingester", "ingester", "artstore_ingester", "127.0.0.1", "::1", spiffe)
	issued := chainOf(t, cert.Certificate)
	mail := *issued[0]
	mail.EmailAddresses = []string{"someone@example.com"}

	for _, tc := range []struct {
		name  string
		edit  func(*policy.Profile)
		chain []*x509.Certificate
		want  string
	}{
		{"as issued", func(*policy.Profile) {}, issued, ""},
		{"another spelling of the same", func(p *policy.Profile) {
			p.Names = []string{"Ingester", "0:0:0:0:0:0:0:1", "ARTSTORE_ingester", "127.0.0.1", spiffe, "ingester"}
			p.Usages = []string{"client", "server"}
		}, issued, ""},
		{"a name more", func(p *policy.Profile) { p.Names = append(p.Names, "artstore_x") }, issued, "names changed: + artstore_x"},
		{"names fewer", func(p *policy.Profile) { p.Names = []string{"ingester"} }, issued,
			"names changed: - artstore_ingester, - 127.0.0.1, - ::1, - spiffe://artstore/ingester"},
		{"a hyphen for an underscore", func(p *policy.Profile) { p.Names[1] = "artstore-ingester" }, issued,
			"names changed: + artstore-ingester, - artstore_ingester"},
		{"server only", func(p *policy.Profile) { p.Usages = []string{"server"} }, issued, "usages changed: - client"},
		{"another kind of key", func(p *policy.Profile) { p.KeyTypes = []string{"Ed25519"} }, issued, "key type EC-P256 is not allowed any more"},
		{"another lifetime", func(p *policy.Profile) { p.Lifetime.Default = 36 * time.Hour }, issued, "lifetime changed: 36h0m0s instead of 24h0m0s"},
		{"a name of no kind that we issue", func(*policy.Profile) {}, append([]*x509.Certificate{&mail}, issued[1:]...), "names changed: - someone@example.com"},
		{"all at once", func(p *policy.Profile) { p.Names, p.Usages = []string{"x"}, []string{"client"} }, issued[:1],
			"names changed: + x, - artstore_ingester, - ingester, - 127.0.0.1, - ::1, - spiffe://artstore/ingester; usages changed: - server"},
	} {
		config := c.Authority.Config()
		p := config.Profiles["ingester"]
		p.Names = slices.Clone(p.Names)
		tc.edit(&p)
		config.Profiles = map[string]policy.Profile{"ingester": p}
		got, err := config.Deviations("ingester", tc.chain)
		if text := strings.Join(got, "; "); err != nil || text != tc.want {
			t.Errorf("%s: %q, %v; want %q", tc.name, text, err, tc.want)
		}
	}

	t.Run("of another service", func(t *testing.T) {
		got, err := c.Authority.Config().Deviations("storage", issued)
		if err != nil || len(got) != 2 || got[0] != `issued to "ingester"` {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("of no service", func(t *testing.T) {
		if _, err := c.Authority.Config().Deviations("nobody", issued); err == nil || !strings.Contains(err.Error(), "no profile") {
			t.Error(err)
		}
	})
	t.Run("not a valid configuration", func(t *testing.T) {
		if _, err := (policy.Config{}).Deviations("ingester", issued); err == nil {
			t.Error("accepted")
		}
	})
	t.Run("cut short by the issuer", func(t *testing.T) {
		config, cut, issuer := c.Authority.Config(), *issued[0], *issued[1]
		issuer.NotAfter = cut.NotBefore.Add(time.Hour)
		cut.NotAfter = issuer.NotAfter
		if got, err := config.Deviations("ingester", []*x509.Certificate{&cut, &issuer}); err != nil || len(got) != 0 {
			t.Errorf("%q, %v", got, err)
		}
	})
}

func chainOf(t *testing.T, raw [][]byte) []*x509.Certificate {
	t.Helper()
	chain := make([]*x509.Certificate, len(raw))
	for i, der := range raw {
		var err error
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
	}
	return chain
}
