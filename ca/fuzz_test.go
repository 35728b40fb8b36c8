package ca_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/secret"
)

// FuzzConfig: parsing any file ends with a configuration, or with an error of one
// line, and never panics.
func FuzzConfig(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "pki")
	if _, err := setup.Init(f.Context(), setup.Options{Dir: dir, PlainKeys: true}); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir, "pki.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("name: [x"))
	f.Add([]byte("profiles: {a: {lifetime: {default: -1s}}}"))
	f.Add([]byte("---\nname: x\n---\nname: y"))
	f.Add([]byte("provisioners: [{type: OIDC}, {type: JWK, key: '{}'}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := new(policy.Config).Decode(data); err != nil && strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("error of several lines: %q", err)
		}
	})
}

// FuzzSignRequest: no body without a valid token gets past verification, and none
// panics.
func FuzzSignRequest(f *testing.F) {
	c := catest.Start(f, catest.Options{Profiles: profiles()})
	f.Add(`{"csr":"","ott":""}`)
	f.Add(`{"csr":"x","ott":"eyJhbGciOiJub25lIn0.e30."}`)
	f.Add(`{"csr":"x","ott":"a.b.c","notAfter":"1h"}`)
	expired := c.Token(f, "storage").Expose()
	f.Add(`{"csr":"x","ott":"` + expired[:len(expired)-8] + `AAAAAAAA"}`)
	f.Fuzz(func(t *testing.T, body string) {
		var req stepapi.SignRequest
		if json.Unmarshal([]byte(body), &req) != nil {
			return
		}
		if err := c.Authority.VerifySign(t.Context(), req); err == nil {
			t.Errorf("verified: %q", body)
		}
	})
}

// FuzzRenewalToken: a text renews a certificate only if the key of a recorded
// certificate has signed it for this use, and none panics.
func FuzzRenewalToken(f *testing.F) {
	c := catest.Start(f, catest.Options{Profiles: profiles()})
	old := expired(f, c, "storage", time.Minute, "storage")
	good := proofFor(f, c, old, "/renew", nil)
	f.Add(good[:len(good)-8] + "AAAAAAAA")
	f.Add(proofFor(f, c, old, "/rekey", nil))
	f.Add(signProof(f, newKey(f), old.Certificate, claimsFor(f, c, old, "/renew", nil)))
	f.Add("e30.e30.")
	f.Add(`{"payload":"e30","signatures":[{"protected":"e30","signature":"AA"}]}`)
	f.Add("eyJhbGciOiJFUzI1NiIsIng1Y0luc2VjdXJlIjpbMV19.e30.AA")
	f.Fuzz(func(t *testing.T, token string) {
		if err := c.Authority.RenewByProof(t.Context(), token); err == nil {
			t.Errorf("renewed by %q", token)
		}
	})
}

// TestCommitFailure: a certificate that cannot be recorded is not sent.
func TestCommitFailure(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	cl, key := newClient(t, c, nil), newKey(t)
	req := signRequest(t, c.Token(t, "storage", "storage"), key, "storage", "storage")
	if err := c.Authority.CloseRecord(); err != nil {
		t.Fatal(err)
	}
	status, body := cl.do("POST", "/sign", req)
	if status != http.StatusInternalServerError || strings.Contains(string(body), "CERTIFICATE") {
		t.Errorf("%d %s", status, body)
	}
	if err := c.Authority.Ready(t.Context()); err == nil {
		t.Error("ready without a record")
	}
	c.Check(t)
}

// FuzzRevokeRequest: no body revokes a certificate that its sender may not revoke, and
// none panics.
func FuzzRevokeRequest(f *testing.F) {
	c := catest.Start(f, catest.Options{Profiles: profiles(), Edit: limitsOf("{per_address: {per_second: 0}}")})
	cert := enrol(f, c, "storage", "storage")
	serial := cert.Leaf.SerialNumber.String()
	for _, body := range []string{
		`{"serial":"` + serial + `","passive":true}`, `{"serial":"0x1F","passive":true,"reasonCode":7}`, `{"serial":"aa:bb","ott":"a.b.c","passive":true}`,
		`{"serial":"` + serial + `","ott":"` + forged(f, c).OTT + `","passive":true,"reasonCode":1,"reason":"x"}`, `{}`, `[]`, ``,
	} {
		f.Add(body)
	}
	h := c.Authority.Handler()
	f.Fuzz(func(t *testing.T, body string) {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/1.0/revoke", strings.NewReader(body))
		if h.ServeHTTP(w, r); w.Code < 400 || w.Code >= 500 && w.Code != http.StatusNotImplemented {
			t.Fatalf("%q: %d %s", body, w.Code, w.Body)
		}
	})
}

// FuzzTokenRequest: each token that an enroller gets is for a service that it may
// enrol and for names of that service, and ends with the certificate of the enroller.
// No body panics.
func FuzzTokenRequest(f *testing.F) {
	list := profiles()
	list["workers"] = policy.Profile{Patterns: []string{"*.workers.internal"}}
	c := catest.Start(f, catest.Options{Profiles: list, Edit: func(text []byte) []byte {
		return append(text, "enrollers: {ingester: [storage, workers]}\nlimits: {per_address: {per_second: 0}, per_service: {per_second: 0}, per_enroller: {per_second: 0}}\n"...)
	}})
	leaf := enrol(f, c, "ingester", "ingester").Leaf
	for _, body := range []string{
		`{"service":"storage"}`, `{"service":"storage","sans":["LOCALHOST"],"lifetime":"1h"}`, `{"service":"workers","sans":["a.workers.internal"]}`,
		`{"service":"workers","sans":["*.workers.internal"]}`, `{"service":"ingester"}`, `{"service":"storage","sans":["storage","ingester"]}`,
		`{"service":"storage","lifetime":"999999h"}`, `{"service":"storage","lifetime":"1ns"}`, `{"service":"ca"}`, `{}`, `[]`, ``,
	} {
		f.Add(body)
	}
	h := c.Authority.Handler()
	f.Fuzz(func(t *testing.T, body string) {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/1.0/token", strings.NewReader(body))
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf}}, PeerCertificates: []*x509.Certificate{leaf}}
		h.ServeHTTP(w, r)
		if w.Code != http.StatusCreated {
			if w.Code >= 500 || strings.Contains(w.Body.String(), `"ott"`) {
				t.Fatalf("%q: %d %s", body, w.Code, w.Body)
			}
			return
		}
		var out stepapi.TokenResponse
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
			t.Fatal(err)
		}
		claims := claimsOf(t, secret.New(out.OTT))
		allowed := func(name string) bool {
			if claims.Subject == "workers" {
				label, ok := strings.CutSuffix(name, ".workers.internal")
				return ok && label != "" && !strings.ContainsAny(label, ".*")
			}
			return claims.Subject == "storage" && slices.Contains(list["storage"].Names, name)
		}
		if len(claims.SANs) == 0 || slices.ContainsFunc(claims.SANs, func(n string) bool { return !allowed(n) }) || claims.Expiry.Time().After(leaf.NotAfter) {
			t.Errorf("%q: a token for %q, %q until %s", body, claims.Subject, claims.SANs, claims.Expiry.Time())
		}
	})
}
