package ca_test

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smallstep/certificates/authority/provisioner"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/acmetest"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

const spiffe = "spiffe://artstore/ingester"

// profiles returns profiles for tests: a service with every kind of name, and one that
// allows little.
func profiles() map[string]policy.Profile {
	picky := policy.Profile{Names: []string{"picky"}, Usages: []string{"client"}, KeyTypes: []string{"Ed25519"}}
	short := policy.Profile{Names: []string{"short"}}
	short.Lifetime.Default, short.Lifetime.Min, short.Lifetime.Max = time.Hour, 10*time.Minute, 2*time.Hour
	return map[string]policy.Profile{
		"ingester": {Names: []string{"ingester", "artstore_ingester", "127.0.0.1", "::1", spiffe}},
		"storage":  {Names: []string{"storage", "localhost", "127.0.0.1"}},
		"picky":    picky,
		"short":    short,
	}
}

func TestSign(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})

	t.Run("certificate", func(t *testing.T) {
		cert := enrol(t, c, "ingester", "ingester", "artstore_ingester", "127.0.0.1", "::1", spiffe)
		leaf := cert.Leaf
		if leaf.Subject.CommonName != "ingester" {
			t.Errorf("common name %q", leaf.Subject.CommonName)
		}
		if slices.Sort(leaf.DNSNames); !slices.Equal(leaf.DNSNames, []string{"artstore_ingester", "ingester"}) || len(leaf.IPAddresses) != 2 || len(leaf.URIs) != 1 || leaf.URIs[0].String() != spiffe {
			t.Errorf("names: %v %v %v", leaf.DNSNames, leaf.IPAddresses, leaf.URIs)
		}
		if leaf.KeyUsage != x509.KeyUsageDigitalSignature || !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}) {
			t.Errorf("usages: %v %v", leaf.KeyUsage, leaf.ExtKeyUsage)
		}
		if len(leaf.SubjectKeyId) == 0 || len(leaf.AuthorityKeyId) == 0 || leaf.IsCA || leaf.SerialNumber.Sign() <= 0 {
			t.Error("key ids, basic constraints or serial are wrong")
		}
		if life := time.Until(leaf.NotAfter); life > 24*time.Hour || life < 24*time.Hour-time.Minute {
			t.Errorf("lives %s, want 24h", life)
		}
		if back := time.Since(leaf.NotBefore); back < time.Minute || back > 2*time.Minute {
			t.Errorf("back-dated by %s, want one minute", back)
		}
		ext, ok := provisioner.GetProvisionerExtension(leaf)
		if !ok || ext.Name != "enrolment" || ext.CredentialID == "" || ext.Type != provisioner.TypeJWK {
			t.Errorf("provisioner extension: %+v", ext)
		}
		for _, name := range []string{"artstore_ingester", "127.0.0.1"} {
			if err := leaf.VerifyHostname(name); err != nil {
				t.Error(err)
			}
		}
	})

	t.Run("profile", func(t *testing.T) {
		for _, tc := range []struct {
			name, service string
			names         []string
			notAfter      string
			status        int
			want          string
		}{
			{"key type", "picky", []string{"picky"}, "", 403, "key type EC-P256 is none of Ed25519 (profiles.picky.key_types) (rule: key type)"},
			{"shorter", "short", []string{"short"}, "15m", 201, ""},
			{"too short", "short", []string{"short"}, "1m", 403, "profiles.short.lifetime.min"},
			{"too long", "short", []string{"short"}, "3h", 403, "profiles.short.lifetime.max"},
			{"longer than the default", "short", []string{"short"}, "90m", 201, ""},
			{"absolute", "short", []string{"short"}, time.Now().Add(20 * time.Minute).Format(time.RFC3339), 201, ""},
			{"past", "short", []string{"short"}, "-1h", 403, "is in the past (rule: lifetime)"},
			{"nonsense", "short", []string{"short"}, "tomorrow", 400, "notAfter"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				key := newKey(t)
				req := signRequest(t, c.Token(t, tc.service, tc.names...), key, tc.service, tc.names...)
				req.NotAfter = tc.notAfter
				status, body := newClient(t, c, nil).do("POST", "/sign", req)
				if status != tc.status {
					t.Fatalf("status %d, want %d: %s", status, tc.status, body)
				}
				if status == http.StatusCreated {
					pair(t, body, key) // TestDatesAsAsked looks at the dates
				} else if m := message(t, body); !strings.Contains(m, tc.want) {
					t.Errorf("message %q, want %q", m, tc.want)
				}
			})
		}
	})

	// Names for which crypto/x509 has no field must not be dropped (RFC 5280 §4.2.1.6).
	t.Run("a name of another kind", func(t *testing.T) {
		before := len(listAll(t, c))
		req := signRequest(t, c.Token(t, "storage", "storage"), newKey(t), "storage", "storage")
		req.CSR = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: acmetest.OtherNamed(t, "storage")}))
		status, body := newClient(t, c, nil).do("POST", "/sign", req)
		if m := message(t, body); status != http.StatusForbidden || !strings.Contains(m, "an otherName") || !strings.Contains(m, "rule: names") {
			t.Errorf("%d %s", status, m)
		}
		req.CSR = csrOf(t, &x509.CertificateRequest{Subject: pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "ingester"}, {Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "storage"},
		}}, DNSNames: []string{"storage"}})
		if status, body := newClient(t, c, nil).do("POST", "/sign", req); status != http.StatusForbidden || !strings.Contains(message(t, body), "ingester") {
			t.Errorf("a common name before the last: %d %s", status, body)
		}
		if n := len(listAll(t, c)); n != before {
			t.Errorf("%d certificates issued", n-before)
		}
	})

	t.Run("bad requests", func(t *testing.T) {
		key, names := newKey(t), []string{"storage"}
		good := func() stepapi.SignRequest {
			return signRequest(t, c.Token(t, "storage", names...), key, "storage", names...)
		}
		broken := csr(t, key, "storage", "storage")
		for _, tc := range []struct {
			name   string
			body   func() any
			status int
			want   string
		}{
			{"no json", func() any { return "{" }, 400, "JSON"},
			{"empty", func() any { return stepapi.SignRequest{} }, 401, "not a signed JWT"},
			{"no csr", func() any { r := good(); r.CSR = ""; return r }, 400, "csr"},
			{"csr is a certificate", func() any { r := good(); r.CSR = string(pemfile.EncodeCertificates(c.Roots())); return r }, 400, "csr"},
			{"csr signature", func() any { r := good(); r.CSR = flipLast(broken); return r }, 400, "csr"},
			{"other name", func() any { r := good(); r.CSR = csr(t, key, "storage", "ingester"); return r }, 403, "rule: request equals token"},
			{"more names", func() any { r := good(); r.CSR = csr(t, key, "storage", "storage", "localhost"); return r }, 403, "rule: request equals token"},
			{"no names", func() any { r := good(); r.CSR = csr(t, key, "storage"); return r }, 403, "rule: request equals token"},
			{"other common name", func() any { r := good(); r.CSR = csr(t, key, "root", "storage"); return r }, 403, "common name"},
			{"e-mail", func() any { r := good(); r.CSR = csr(t, key, "storage", "storage", "a@b"); return r }, 403, "e-mail"},
			{"wildcard", func() any { r := good(); r.CSR = csr(t, key, "storage", "*.storage"); return r }, 403, `the request is for ["*.storage"]`},
			{"future start", func() any { r := good(); r.NotBefore = "48h"; return r }, 403, "begins when it is issued (rule: lifetime)"},
			{"huge", func() any { r := good(); r.CSR = strings.Repeat("x", 70<<10); return r }, 413, "larger than 65536"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				status, body := newClient(t, c, nil).do("POST", "/1.0/sign", tc.body())
				if m := message(t, body); status != tc.status || !strings.Contains(m, tc.want) {
					t.Errorf("%d %q, want %d and %q", status, m, tc.status, tc.want)
				}
			})
		}
	})
	c.Check(t)
}

// flipLast damages the last byte of a PEM block, which is inside the signature.
func flipLast(p string) string {
	i := strings.Index(p, "\n-----END") - 6
	b := []byte(p)
	if b[i]++; b[i] == 'Z'+1 || b[i] == 'z'+1 || b[i] == '9'+1 {
		b[i] = 'A'
	}
	return string(b)
}

func TestTokenReuse(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles(), Edit: limitsOf("{per_address: {per_second: 0}}")})
	cl := newClient(t, c, nil)

	t.Run("same key gets the same certificate", func(t *testing.T) {
		token, key := c.Token(t, "storage", "storage"), newKey(t)
		_, first := cl.do("POST", "/sign", signRequest(t, token, key, "storage", "storage"))
		status, second := cl.do("POST", "/sign", signRequest(t, token, key, "storage", "storage")) // another request, same key
		if status != http.StatusCreated || pair(t, first, key).Leaf.SerialNumber.Cmp(pair(t, second, key).Leaf.SerialNumber) != 0 {
			t.Errorf("%d: not the same certificate", status)
		}
	})
	t.Run("other key is refused", func(t *testing.T) {
		token := c.Token(t, "storage", "storage")
		cl.do("POST", "/sign", signRequest(t, token, newKey(t), "storage", "storage"))
		status, body := cl.do("POST", "/sign", signRequest(t, token, newKey(t), "storage", "storage"))
		if m := message(t, body); status != http.StatusUnauthorized || !strings.Contains(m, "rule: token used once") {
			t.Errorf("%d %q", status, m)
		}
	})
	t.Run("after revocation it brings nothing back", func(t *testing.T) {
		token, key := c.Token(t, "storage", "storage"), newKey(t)
		req := signRequest(t, token, key, "storage", "storage")
		_, body := cl.do("POST", "/sign", req)
		c.Revoke(t, pair(t, body, key).Leaf.SerialNumber.String())
		if status, body := cl.do("POST", "/sign", req); status != http.StatusUnauthorized {
			t.Errorf("%d %s", status, body)
		}
	})
	t.Run("a refused request does not spend it", func(t *testing.T) {
		token, key := c.Token(t, "storage", "storage"), newKey(t)
		cl.do("POST", "/sign", signRequest(t, token, key, "storage", "storage", "localhost"))
		if status, body := cl.do("POST", "/sign", signRequest(t, token, key, "storage", "storage")); status != http.StatusCreated {
			t.Errorf("%d %s", status, body)
		}
	})
	t.Run("32 at once, one key", func(t *testing.T) {
		token, key := c.Token(t, "storage", "storage"), newKey(t)
		got := race(32, func(int) (int, string) {
			status, body := cl.do("POST", "/sign", signRequest(t, token, key, "storage", "storage"))
			if status != http.StatusCreated {
				return status, ""
			}
			return status, pair(t, body, key).Leaf.SerialNumber.String()
		})
		if len(got[201]) != 32 || len(unique(got[201])) != 1 {
			t.Errorf("answers %v: want one certificate for all", got)
		}
	})
	t.Run("32 at once, 32 keys", func(t *testing.T) {
		token := c.Token(t, "storage", "storage")
		got := race(32, func(int) (int, string) {
			status, body := cl.do("POST", "/sign", signRequest(t, token, newKey(t), "storage", "storage"))
			return status, string(body)
		})
		if len(got[201]) != 1 || len(got[401]) != 31 {
			t.Errorf("%d issued, %d refused: want 1 and 31", len(got[201]), len(got[401]))
		}
	})
	c.Check(t)
}

func race(n int, fn func(int) (int, string)) map[int][]string {
	var mu sync.Mutex
	var wg sync.WaitGroup
	out := make(map[int][]string)
	for i := range n {
		wg.Go(func() {
			status, text := fn(i)
			mu.Lock()
			defer mu.Unlock()
			out[status] = append(out[status], text)
		})
	}
	wg.Wait()
	return out
}

func unique(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return slices.Compact(s)
}

func TestRenewRekeyRevoke(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	first := enrol(t, c, "ingester", "ingester", spiffe)
	digest := stepapi.TrustDigest(c.Roots())

	status, body := newClient(t, c, first).do("POST", "/renew", nil, stepapi.HeaderTrustDigest, digest)
	if status != http.StatusCreated {
		t.Fatalf("renew: %d %s", status, body)
	}
	second := pair(t, body, first.PrivateKey.(crypto.Signer)) // the same key
	key := newKey(t)
	status, body = newClient(t, c, second).do("POST", "/1.0/rekey", stepapi.RekeyRequest{CSR: csr(t, key, "root", "storage")})
	if status != http.StatusCreated {
		t.Fatalf("rekey: %d %s", status, body)
	}
	third := pair(t, body, key)
	if !slices.Equal(third.Leaf.DNSNames, []string{"ingester"}) || third.Leaf.Subject.CommonName != "ingester" {
		t.Errorf("rekey took names from the request: %v", third.Leaf.DNSNames)
	}
	rec := openRecord(t, c)
	entry, err := rec.Show(t.Context(), third.Leaf.SerialNumber.String())
	if err != nil || entry.Lineage != first.Leaf.SerialNumber.String() || entry.Previous != second.Leaf.SerialNumber.String() || entry.Kind != kinds.Rekeyed {
		t.Errorf("lineage of the third: %+v, %v", entry, err)
	}
	if status, err := c.Authority.TrustStatus(t.Context()); err != nil || len(status.Roots[0].Without) != 0 {
		t.Errorf("without the root are %v, %v: the renewal reported the bundle", status.Roots[0].Without, err)
	}

	t.Run("without a certificate", func(t *testing.T) {
		for _, path := range []string{"/renew", "/re-sign"} {
			if status, _ := newClient(t, c, nil).do("POST", path, nil); status != http.StatusUnauthorized {
				t.Errorf("%s: %d", path, status)
			}
		}
		if status, body := newClient(t, c, third).do("POST", "/rekey", stepapi.RekeyRequest{}); status != http.StatusBadRequest {
			t.Errorf("rekey without csr: %d %s", status, body)
		}
	})
	t.Run("only itself", func(t *testing.T) {
		status, body := newClient(t, c, third).do("POST", "/revoke", stepapi.RevokeRequest{Serial: first.Leaf.SerialNumber.String(), Passive: true})
		if m := message(t, body); status != http.StatusForbidden || !strings.Contains(m, "rule: revokes only itself") {
			t.Errorf("%d %q", status, m)
		}
	})
	t.Run("revoked in the middle of the lineage", func(t *testing.T) {
		status, body := newClient(t, c, second).do("POST", "/revoke", stepapi.RevokeRequest{Serial: second.Leaf.SerialNumber.String(), Passive: true, ReasonCode: 1})
		var ok stepapi.RevokeResponse
		if err := json.Unmarshal(body, &ok); status != http.StatusOK || ok.Status != "ok" || err != nil {
			t.Fatalf("revoke: %d %s", status, body)
		}
		for i, cert := range []*tls.Certificate{first, second, third} {
			status, body := newClient(t, c, cert).do("POST", "/renew", nil)
			if m := message(t, body); status != http.StatusUnauthorized || !strings.Contains(m, "rule: lineage not revoked") {
				t.Errorf("certificate %d: %d %q", i, status, m)
			}
		}
	})
	t.Run("the profile still rules", func(t *testing.T) {
		cert := enrol(t, c, "storage", "localhost")
		c.Rewrite(t, func(b []byte) []byte {
			return []byte(strings.Replace(string(b), `"storage","localhost","127.0.0.1"`, `"storage","127.0.0.1"`, 1))
		})
		if err := c.Authority.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		status, body := newClient(t, c, cert).do("POST", "/renew", nil)
		if status != http.StatusForbidden || !strings.Contains(message(t, body), "localhost") {
			t.Errorf("renewing a name that has left the profile: %d %s", status, body)
		}
	})
	c.Check(t)
}

func openRecord(t testing.TB, c *catest.CA) *ca.Record {
	t.Helper()
	r, err := ca.StateDir(c.Dir).OpenRecord(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}
