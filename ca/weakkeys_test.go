package ca_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/acmetest"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// A key whose private half others can find is refused on every route on which a client
// can send one, with the rule. Nothing is issued and no account is made.
func TestWeakKeys(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	root, rootKey := foreignRoot(t)
	file := filepath.Join(t.TempDir(), "devices.pem")
	if err := os.WriteFile(file, pemfile.EncodeCertificates([]*x509.Certificate{root}), 0o600); err != nil {
		t.Fatal(err)
	}
	all := acmetest.Profiles()
	for name, p := range all {
		p.KeyTypes = []string{"EC-P256", "RSA-2048"}
		all[name] = p
	}
	w := acmetest.Start(t, catest.Options{Profiles: all, Edit: func(b []byte) []byte {
		return limitsOf("{per_address: {per_second: 0}}")(withProvisioner(fmt.Sprintf("  - {type: X5C, name: holders, roots: %q}\n", file))(b))
	}})
	cl, peer := newClient(t, w.CA, nil), enrol(t, w.CA, "db", "db.example")
	mine := w.Account(t)
	ready := w.Proven(t, mine, "http-01", "web.example")
	for says, key := range weakKeys(t) {
		t.Run(says, func(t *testing.T) {
			request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"db.example"}}, key)
			if err != nil {
				t.Fatal(err)
			}
			text := pemRequest(request)
			leaf := certificateFor(t, key.Public(), root, rootKey)
			weak := &tls.Certificate{Certificate: [][]byte{leaf.Raw}, Leaf: leaf}
			chain := []string{base64.StdEncoding.EncodeToString(leaf.Raw)}
			before := len(listAll(t, w.CA))
			refused := func(entrance string, status int, body []byte) {
				t.Helper()
				if status < 400 || status >= 500 || !strings.Contains(string(body), says) {
					t.Errorf("%s: %d %s", entrance, status, body)
				}
			}
			ask := func(entrance, path string, body any, header ...string) {
				t.Helper()
				status, answer := cl.do("POST", path, body, header...)
				refused(entrance, status, answer)
			}
			ask("sign", "/sign", stepapi.SignRequest{OTT: w.Token(t, "db").Expose(), CSR: text})
			status, body := newClient(t, w.CA, peer).do("POST", "/rekey", stepapi.RekeyRequest{CSR: text})
			refused("rekey", status, body)
			ask("rekey by renewal token", "/rekey", stepapi.RekeyRequest{CSR: text}, "Authorization", "Bearer "+proofFor(t, w.CA, peer, "/rekey", bound(t, text)))
			claims := claimsFor(t, w.CA, weak, "/1.0/sign", map[string]any{"iss": "holders", "sub": "storage"})
			claims["aud"] = claims["aud"].(string) + "#x5c/holders"
			ask("X5C", "/sign", stepapi.SignRequest{OTT: handMadeJWT(t, map[string]any{"x5c": chain}, claims, key.signs(t)), CSR: csr(t, newKey(t), "storage", "storage")})
			if says != "prime number" && says != "close to each other" { // the record does not have it, so it is refused before these tests of the key
				ask("renewal token", "/renew", nil, "Authorization", "Bearer "+handMadeJWT(t, map[string]any{"x5cInsecure": chain}, claimsFor(t, w.CA, weak, "/renew", nil), key.signs(t)))
			}
			_, _, err = mine.CreateOrderCert(t.Context(), ready.FinalizeURL, acmeRequest(t, key, "web.example"), false)
			acmetest.RefusedWith(t, err, "badCSR", says)
			status, kind, resp := acmetest.NewRaw(t, w.CA).Post("/acme/acme/new-account", newAccountBy(t, w.CA, key))
			answer, err := io.ReadAll(resp.Body)
			if refused("new-account", status, answer); kind != "badPublicKey" || err != nil {
				t.Errorf("new-account: %s %v", kind, err)
			}
			if n := len(listAll(t, w.CA)); n != before {
				t.Errorf("%d certificates issued", n-before)
			}
		})
	}
	if n := acmetest.CountRows(t, w.Dir, "acme_accounts"); n != 1 {
		t.Errorf("%d accounts, want the one with a good key", n)
	}
}

// newAccountBy returns a request for a new account, signed with that key.
func newAccountBy(t testing.TB, c *catest.CA, key weakKey) string {
	t.Helper()
	const path = "/acme/acme/new-account"
	token := handMadeJWT(t, map[string]any{"jwk": jwkOf(&key.PublicKey), "nonce": acmetest.NewRaw(t, c).Nonce(), "url": c.URL + path}, map[string]any{}, key.signs(t))
	parts := strings.Split(token, ".")
	body, err := json.Marshal(map[string]string{"protected": parts[0], "payload": parts[1], "signature": parts[2]})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func acmeRequest(t testing.TB, key weakKey, name string) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// A sound key passes on the same routes. Otherwise the test above could pass for
// another reason.
func TestSoundRSAKey(t *testing.T) {
	t.Parallel()
	w := acmetest.Start(t, catest.Options{})
	key := newWeakKey(t, 65537, primeFor(t, 1536, 65537), primeFor(t, 1536, 65537)) // not weak
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"db.example"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	status, body := newClient(t, w.CA, nil).do("POST", "/sign", stepapi.SignRequest{OTT: w.Token(t, "db").Expose(), CSR: pemRequest(request)})
	if status != http.StatusCreated {
		t.Errorf("sign: %d %s", status, body)
	}
	if status, kind, _ := acmetest.NewRaw(t, w.CA).Post("/acme/acme/new-account", newAccountBy(t, w.CA, key)); status != http.StatusCreated {
		t.Errorf("new-account: %d %s", status, kind)
	}
	cl := w.Account(t)
	ready := w.Proven(t, cl, "http-01", "web.example")
	if _, _, err := cl.CreateOrderCert(t.Context(), ready.FinalizeURL, acmeRequest(t, key, "web.example"), false); err != nil {
		t.Errorf("finalize: %v", err)
	}
}
