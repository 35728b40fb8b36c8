package ca_test

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// withProvisioner adds one entry to the provisioners of pki.yaml.
func withProvisioner(entry string) func([]byte) []byte {
	return func(data []byte) []byte {
		return []byte(strings.Replace(string(data), "\nprovisioners:\n", "\nprovisioners:\n"+entry, 1))
	}
}

const ownX5C = "  - {type: X5C, name: holders}\n"

// x5cToken returns a token as "step ca token --x5c-cert" makes it, made by hand.
func x5cToken(t testing.TB, c *catest.CA, cert *tls.Certificate, path string, change map[string]any) secretText {
	t.Helper()
	claims := claimsFor(t, c, cert, "/1.0"+path, map[string]any{"iss": "holders"})
	claims["aud"] = claims["aud"].(string) + "#x5c/holders"
	for k, v := range change {
		claims[k] = v
	}
	var chain []string
	for _, der := range cert.Certificate {
		chain = append(chain, base64.StdEncoding.EncodeToString(der))
	}
	opts := new(jose.SignerOptions).WithType("JWT").WithHeader("x5c", chain)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: cert.PrivateKey.(crypto.Signer)}, opts)
	if err != nil {
		t.Fatal(err)
	}
	text, err := jose.Signed(signer).Claims(claims).CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return secretText(text)
}

type secretText string

func (s secretText) request(t testing.TB, key crypto.Signer, cn string, names ...string) stepapi.SignRequest {
	t.Helper()
	return stepapi.SignRequest{CSR: csr(t, key, cn, names...), OTT: string(s)}
}

// The holder of a certificate gets certificates for names of its own, until its own
// end, in its own lineage, one for each token.
func TestX5C(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles(), Edit: withProvisioner(ownX5C)})
	cl := newClient(t, c, nil)
	holder := enrol(t, c, "storage", "storage", "localhost")
	key := newKey(t)
	req := x5cToken(t, c, holder, "/sign", map[string]any{"sans": []string{"storage"}}).request(t, key, "storage", "storage")
	status, body := cl.do("POST", "/1.0/sign", req)
	if status != http.StatusCreated {
		t.Fatalf("sign: %d %s", status, body)
	}
	got := pair(t, body, key)
	if got.Leaf.NotAfter.After(holder.Leaf.NotAfter) {
		t.Errorf("it ends at %s, after %s, the end of what vouched for it", got.Leaf.NotAfter, holder.Leaf.NotAfter)
	}
	entry, err := openRecord(t, c).Show(t.Context(), got.Leaf.SerialNumber.String())
	if err != nil || entry.Lineage != holder.Leaf.SerialNumber.String() || entry.Provisioner != "holders" || !strings.HasPrefix(entry.Caller, "x5c holders/storage/") {
		t.Errorf("recorded as %+v, %v", entry, err)
	}
	if status, body := cl.do("POST", "/sign", req); status != http.StatusCreated || pair(t, body, key).Leaf.SerialNumber.Cmp(got.Leaf.SerialNumber) != 0 {
		t.Errorf("the same token and key again: %d", status)
	}
	req.CSR = csr(t, newKey(t), "storage", "storage")
	if status, body := cl.do("POST", "/sign", req); status != http.StatusUnauthorized || !strings.Contains(message(t, body), "already used") {
		t.Errorf("the same token with another key: %d %s", status, body)
	}
	c.Check(t)
}

// Each refusal of a token of type X5C names its rule.
func TestX5CRefusals(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles(), Edit: withProvisioner(ownX5C)})
	cl := newClient(t, c, nil)
	holder := enrol(t, c, "storage", "storage", "127.0.0.1")
	thief := *holder
	thief.PrivateKey = newKey(t)
	sans := func(names ...string) map[string]any { return map[string]any{"sans": names} }
	for _, tc := range []struct {
		name, cn, says string
		token          secretText
		names          []string
		status         int
	}{
		{"a name of the profile, not of the certificate", "storage", "names of its own certificate",
			x5cToken(t, c, holder, "/sign", sans("localhost")), []string{"localhost"}, http.StatusForbidden},
		{"another service by a shared name", "ingester", "names of its own certificate",
			x5cToken(t, c, holder, "/sign", map[string]any{"sub": "ingester", "sans": []string{"127.0.0.1"}}), []string{"127.0.0.1"}, http.StatusForbidden},
		{"a token for another path", "storage", "for another purpose",
			x5cToken(t, c, holder, "/revoke", sans("storage")), []string{"storage"}, http.StatusUnauthorized},
		{"another key than that of the certificate", "storage", "signature is wrong",
			x5cToken(t, c, &thief, "/sign", sans("storage")), []string{"storage"}, http.StatusUnauthorized},
		{"an unknown provisioner", "storage", "not known here",
			x5cToken(t, c, holder, "/sign", map[string]any{"iss": "others"}), []string{"storage"}, http.StatusUnauthorized},
		{"an expired certificate", "storage", "its certificate does not verify",
			x5cToken(t, c, expired(t, c, "storage", time.Minute, "storage"), "/sign", sans("storage")), []string{"storage"}, http.StatusUnauthorized},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := len(listAll(t, c))
			status, body := cl.do("POST", "/sign", tc.token.request(t, newKey(t), tc.cn, tc.names...))
			if status != tc.status || !strings.Contains(message(t, body), tc.says) {
				t.Errorf("%d %s, want %d and %q", status, body, tc.status, tc.says)
			}
			if n := len(listAll(t, c)); n != before {
				t.Errorf("%d certificates issued", n-before)
			}
		})
	}
	c.Check(t)
}

// After the certificate behind a token is revoked, the token is refused, and the
// certificates of its lineage do not renew.
func TestX5CRevoked(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles(), Edit: withProvisioner(ownX5C)})
	cl := newClient(t, c, nil)
	holder, other := enrol(t, c, "storage", "storage"), enrol(t, c, "ingester", "ingester")
	sans := map[string]any{"sans": []string{"storage"}}
	key := newKey(t)
	status, body := cl.do("POST", "/sign", x5cToken(t, c, holder, "/sign", sans).request(t, key, "storage", "storage"))
	if status != http.StatusCreated {
		t.Fatalf("sign: %d %s", status, body)
	}
	child := pair(t, body, key)

	revoke := func(by *tls.Certificate, serial *big.Int) (int, []byte) {
		token := x5cToken(t, c, by, "/revoke", map[string]any{"sub": serial.String()})
		return cl.do("POST", "/revoke", stepapi.RevokeRequest{Serial: serial.String(), OTT: string(token), Passive: true})
	}
	if status, body := revoke(other, holder.Leaf.SerialNumber); status != http.StatusForbidden || !strings.Contains(message(t, body), "revokes only itself") {
		t.Errorf("revoking another's: %d %s", status, body)
	}
	if status, body := revoke(holder, holder.Leaf.SerialNumber); status != http.StatusOK {
		t.Fatalf("revoking itself: %d %s", status, body)
	}
	if status, body := cl.do("POST", "/sign", x5cToken(t, c, holder, "/sign", sans).request(t, newKey(t), "storage", "storage")); status != http.StatusUnauthorized || !strings.Contains(message(t, body), "was revoked") {
		t.Errorf("a token of a revoked certificate: %d %s", status, body)
	}
	if status, body := newClient(t, c, child).do("POST", "/renew", nil); status != http.StatusUnauthorized {
		t.Errorf("renewing what a revoked certificate vouched for: %d %s", status, body)
	}
	c.Check(t)
}

func foreignRoot(t testing.TB) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	key, now := newKey(t), time.Now()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Devices"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return root, key
}

// foreignHolder returns the root of another authority, and a client certificate under it.
func foreignHolder(t testing.TB, cn string, names ...string) (root *x509.Certificate, leaf *tls.Certificate) {
	t.Helper()
	now := time.Now()
	sign := func(tmpl, parent *x509.Certificate, pub crypto.PublicKey, by crypto.Signer) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, by)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	key := newKey(t)
	root, rootKey := foreignRoot(t)
	lt := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: cn}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(20 * time.Minute),
		DNSNames: names, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	cert := sign(lt, root, key.Public(), rootKey)
	return root, &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

// With a certificate of another authority a service can enrol if pki.yaml says so. The
// profile still decides, and a token of such a certificate revokes nothing here.
func TestX5CForeignRoot(t *testing.T) {
	t.Parallel()
	root, device := foreignHolder(t, "serial-4711", "storage")
	file := filepath.Join(t.TempDir(), "devices.pem")
	if err := os.WriteFile(file, pemfile.EncodeCertificates([]*x509.Certificate{root}), 0o600); err != nil {
		t.Fatal(err)
	}
	c := catest.Start(t, catest.Options{Profiles: profiles(), Edit: withProvisioner(fmt.Sprintf("  - {type: X5C, name: holders, roots: %q}\n", file))})
	cl := newClient(t, c, nil)
	sub := map[string]any{"sub": "storage", "sans": []string{"storage"}}
	key := newKey(t)
	status, body := cl.do("POST", "/sign", x5cToken(t, c, device, "/sign", sub).request(t, key, "storage", "storage"))
	if status != http.StatusCreated {
		t.Fatalf("sign: %d %s", status, body)
	}
	if got := pair(t, body, key).Leaf; got.NotAfter.After(device.Leaf.NotAfter) || got.Subject.CommonName != "storage" {
		t.Errorf("%s until %s", got.Subject, got.NotAfter)
	}
	sub = map[string]any{"sub": "ingester", "sans": []string{"storage"}}
	if status, body := cl.do("POST", "/sign", x5cToken(t, c, device, "/sign", sub).request(t, newKey(t), "ingester", "storage")); status != http.StatusForbidden {
		t.Errorf("another service: %d %s", status, body)
	}
	own := enrol(t, c, "storage", "storage")
	if status, body := cl.do("POST", "/sign", x5cToken(t, c, own, "/sign", nil).request(t, newKey(t), "storage", "storage")); status != http.StatusUnauthorized {
		t.Errorf("a certificate of ours, which is not under the configured root: %d %s", status, body)
	}
	token := x5cToken(t, c, device, "/revoke", map[string]any{"sub": "2"})
	if status, body := cl.do("POST", "/revoke", stepapi.RevokeRequest{Serial: "2", OTT: string(token), Passive: true}); status != http.StatusUnauthorized {
		t.Errorf("revoking a foreign certificate: %d %s", status, body)
	}
	c.Check(t)
}

// A certificate that ends soon gets no certificate that would end at once.
func TestX5CTooLate(t *testing.T) {
	t.Parallel()
	brief := policy.Profile{Names: []string{"brief"}}
	brief.Lifetime.Default, brief.Lifetime.Min = 10*time.Second, 10*time.Second
	c := catest.Start(t, catest.Options{Profiles: map[string]policy.Profile{"brief": brief}, Edit: withProvisioner(ownX5C)})
	var status int
	var body []byte
	for range 10 {
		holder := enrol(t, c, "brief", "brief")
		status, body = newClient(t, c, nil).do("POST", "/sign", x5cToken(t, c, holder, "/sign", nil).request(t, newKey(t), "brief", "brief"))
		if time.Now().Before(holder.Leaf.NotAfter) {
			break // otherwise the machine was busy for the whole life of the certificate
		}
	}
	if status != http.StatusForbidden || !strings.Contains(message(t, body), "the certificate of the token ends at") {
		t.Errorf("%d %s", status, body)
	}
}

// A certificate for a token of type X5C counts against the limit of its service,
// because it is no renewal.
func TestX5CMaxLive(t *testing.T) {
	t.Parallel()
	few := policy.Profile{Names: []string{"few"}, MaxLive: 3}
	c := catest.Start(t, catest.Options{Profiles: map[string]policy.Profile{"few": few}, Edit: withProvisioner(ownX5C)})
	cl, holder := newClient(t, c, nil), enrol(t, c, "few", "few")
	for i := range 4 {
		status, body := cl.do("POST", "/sign", x5cToken(t, c, holder, "/sign", nil).request(t, newKey(t), "few", "few"))
		if want := i < 2; (status == http.StatusCreated) != want || !want && !strings.Contains(message(t, body), "max_live") {
			t.Errorf("certificate %d: %d %s", i+2, status, body)
		}
	}
	c.Check(t)
}

// A certificate that our issuer has signed and that is not in the record is refused as
// forged.
func TestX5CNotRecorded(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles(), Edit: withProvisioner(ownX5C)})
	holder := enrol(t, c, "storage", "storage")
	forged := *holder.Leaf
	forged.SerialNumber = big.NewInt(4711)
	der, err := c.Authority.Forge(&forged)
	if err != nil {
		t.Fatal(err)
	}
	holder.Certificate[0] = der
	status, body := newClient(t, c, nil).do("POST", "/sign", x5cToken(t, c, holder, "/sign", nil).request(t, newKey(t), "storage", "storage"))
	if status != http.StatusUnauthorized || !strings.Contains(message(t, body), "not in the record") {
		t.Errorf("%d %s", status, body)
	}
}

// These are the provisioners that pki.yaml may have, and mistakes that are refused.
func TestProvisioners(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	for _, tc := range []struct{ entry, says string }{
		{"  - {type: OIDC, name: x}\n", `"OIDC" is not supported`},
		{"  - {type: X5C, name: enrolment}\n", "taken"},
		{"  - {type: X5C, name: x, challenges: [http-01]}\n", "challenges: it belongs to type ACME"},
		{"  - {type: ACME, name: x, roots: y}\n", "roots: it belongs to type X5C"},
		{"  - {type: ACME, name: x, key: y}\n", "key: it belongs to type JWK"},
		{"  - {type: ACME, name: x, challenges: [device-attest-01]}\n", "none of http-01, dns-01, tls-alpn-01"},
		{"  - {type: ACME, name: x, resolver: here}\n", "not host:port"},
		{"  - {type: ACME, name: x, http_port: 70000}\n", "70000 is not a port"},
		{"  - {type: ACME, name: x}\n  - {type: ACME, name: y}\n", "a second one"},
		{"  - {type: ACME, name: x, unknown: y}\n", "unknown"},
	} {
		text := withProvisioner(tc.entry)(readConfig(t, c))
		if err := new(policy.Config).Decode(text); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want %q", strings.TrimSpace(tc.entry), err, tc.says)
		}
	}
	if err := new(policy.Config).Decode(withProvisioner("  - {type: ACME, name: acme, challenges: [dns-01], resolver: '127.0.0.1:53'}\n")(readConfig(t, c))); err != nil {
		t.Errorf("a good one: %v", err)
	}
}

// A file of roots that is damaged or empty makes a reload fail, and the old rules
// stay.
func TestX5CRootsFile(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	c.Rewrite(t, withProvisioner("  - {type: X5C, name: holders, roots: certs/devices.pem}\n"))
	_, device := foreignHolder(t, "serial-4711", "storage")
	file := filepath.Join(c.Dir, "certs", "devices.pem")
	for _, tc := range []struct{ content, says string }{
		{"", "no such file"},
		{"nonsense", "devices.pem"},
		{string(pemfile.EncodeCertificates([]*x509.Certificate{device.Leaf})), "want certificates of authorities"},
	} {
		if tc.content != "" {
			if err := os.WriteFile(file, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Authority.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%.10q: %v, want %q", tc.content, err, tc.says)
		}
	}
	if err := os.WriteFile(file, pemfile.EncodeCertificates(c.Roots()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Authority.Reload(t.Context()); err != nil {
		t.Error(err)
	}
}

func readConfig(t testing.TB, c *catest.CA) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(c.Dir, "pki.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
