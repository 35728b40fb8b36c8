package ca_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/acmetest"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// threadTime returns the processor time of the calling thread. Other goroutines and
// other processes on a busy machine do not count.
func threadTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_THREAD, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// costOf returns the processor time of one call, on average.
func costOf(t testing.TB, n int, call func(i int)) time.Duration {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := threadTime(t)
	for i := range n {
		call(i)
	}
	return (threadTime(t) - start) / time.Duration(n)
}

// hostileRequest is a request of a client that is not authenticated.
type hostileRequest struct {
	path, body string
	header     []string
	peer       *tls.Certificate // of the connection
	status     int
}

func (h hostileRequest) http(t testing.TB, host, address string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, h.path, strings.NewReader(h.body))
	r.Host, r.RemoteAddr, r.TLS = host, address+":1", &tls.ConnectionState{}
	for i := 0; i+1 < len(h.header); i += 2 {
		r.Header.Set(h.header[i], h.header[i+1])
	}
	if h.peer != nil {
		r.TLS.PeerCertificates = []*x509.Certificate{h.peer.Leaf}
		r.TLS.VerifiedChains = [][]*x509.Certificate{{h.peer.Leaf}}
	}
	return r
}

// A client can send keys in many places of a request. Refusing each of them costs a
// bounded time and is charged to the address: after 20 refusals the next request
// waits.
//
// The control is one check of an RSA-4096 signature in the same run. Base64, JSON and
// DER of a request of 64 kB cost as much as some of them; a check with one of these
// keys would cost as much as thousands.
func TestHostileKeysCostLittle(t *testing.T) {
	const n = 20
	most := time.Duration(30)
	if raceEnabled {
		most *= 10 // for base64, JSON and DER; the control is assembler
	}
	w := acmetest.Start(t, catest.Options{Edit: func(b []byte) []byte {
		b = withProvisioner(ownX5C)(b)
		return limitsOf("{per_address: {per_second: 0.001, burst: 400}, per_service: {per_second: 0}}")(b)
	}})
	u, err := url.Parse(w.URL)
	if err != nil {
		t.Fatal(err)
	}
	control := controlCost(t)
	handler := w.Authority.Handler()
	i := 0
	for name, request := range hostileRequests(t, w) {
		i++
		t.Run(name, func(t *testing.T) {
			address := fmt.Sprintf("192.0.2.%d", i)
			requests := make([]*http.Request, n)
			for k := range requests {
				requests[k] = request(k).http(t, u.Host, address)
			}
			want := request(0).status
			cost := costOf(t, n, func(k int) {
				rec := httptest.NewRecorder()
				if handler.ServeHTTP(rec, requests[k]); rec.Code != want {
					t.Errorf("request %d: %d %.300s, want %d", k, rec.Code, rec.Body, want)
				}
			})
			t.Logf("%d bytes: %v of processor time each, %.1f RSA-4096 checks", len(request(0).body), cost, float64(cost)/float64(control))
			if cost > most*control {
				t.Errorf("%v each, more than %d RSA-4096 checks of %v", cost, int(most), control)
			}
			rec := httptest.NewRecorder()
			if handler.ServeHTTP(rec, request(n-1).http(t, u.Host, address)); rec.Code != http.StatusTooManyRequests {
				t.Errorf("after %d refusals: %d, want 429", n, rec.Code)
			}
		})
	}
	w.Check(t)
}

// controlCost returns the processor time of one check of an RSA-4096 signature.
func controlCost(t testing.TB) time.Duration {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(nil)
	sig, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return costOf(t, 100, func(int) {
		if err := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, sum[:], sig); err != nil {
			t.Error(err)
		}
	})
}

// hostileRequests returns one request for each way to make the authority compute with
// a key. Each key is as long as the limits of the route allow.
func hostileRequests(t testing.TB, w *acmetest.World) map[string]func(i int) hostileRequest {
	t.Helper()
	fixed := func(r hostileRequest) func(int) hostileRequest { return func(int) hostileRequest { return r } }
	inJSON := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	long, short := hugeKey(t, 175_000), hugeKey(t, 120_000)
	peer := enrol(t, w.CA, "db", "db.example")
	request := pemRequest(hugeRequest(t, long))
	token := w.Token(t, "db").Expose()
	leafOf := func(key *rsa.PublicKey) *tls.Certificate {
		cert := certificateFor(t, key, nil, newKey(t))
		return &tls.Certificate{Leaf: cert, Certificate: [][]byte{cert.Raw}}
	}
	unsigned := func(key *rsa.PublicKey) func([]byte) []byte {
		return func([]byte) []byte { return noSignature(key) }
	}
	base := base64.StdEncoding.EncodeToString
	// A token of a certificate with such a key, and one of a sound leaf that such a key has signed.
	x5c := func(path string, chain []string, key *rsa.PublicKey, subject string) string {
		leaf := &tls.Certificate{Leaf: peer.Leaf}
		claims := claimsFor(t, w.CA, leaf, "/1.0"+path, map[string]any{"iss": "holders", "sub": subject})
		claims["aud"] = claims["aud"].(string) + "#x5c/holders"
		return handMadeJWT(t, map[string]any{"x5c": chain}, claims, unsigned(key))
	}
	weakLeaf := []string{base(leafOf(short).Certificate[0])}
	below := []string{base(belowHuge(t, short)[0]), base(belowHuge(t, short)[1])}
	proofKey := hugeKey(t, 90_000)
	proof := func(path string) []string {
		leaf := leafOf(proofKey)
		head := map[string]any{"x5cInsecure": []string{base(leaf.Certificate[0])}}
		return []string{"Authorization", "Bearer " + handMadeJWT(t, head, claimsFor(t, w.CA, leaf, path, nil), unsigned(hugeKey(t, 2048)))}
	}
	jws := func(path string, jwk map[string]any, key *rsa.PublicKey) string {
		head := map[string]any{"jwk": jwk, "nonce": acmetest.NewRaw(t, w.CA).Nonce(), "url": w.URL + path}
		parts := strings.Split(handMadeJWT(t, head, map[string]any{}, unsigned(key)), ".")
		return inJSON(map[string]string{"protected": parts[0], "payload": parts[1], "signature": parts[2]})
	}
	private := jwkOf(hugeKey(t, 80_000))
	for _, member := range []string{"d", "p", "q"} {
		private[member] = private["n"].(string)[:5000]
	}
	account := acmetest.NewRaw(t, w.CA)
	account.Register()
	client := w.Account(t)
	ready := w.Proven(t, client, "http-01", "web.example")
	finalize := strings.TrimPrefix(ready.FinalizeURL, w.URL)
	finalizing := account.As(client.Key, string(client.KID))
	asACME := []string{"Content-Type", "application/jose+json"}
	acme := func(path, body string) func(int) hostileRequest {
		return fixed(hostileRequest{path: path, body: body, header: asACME, status: http.StatusBadRequest})
	}
	// An account changes its key to a long one, or sends its old key with a private half.
	changing := acmetest.NewRaw(t, w.CA)
	changing.Register()
	const keyChange = "/acme/acme/key-change"
	change := func(inner string) func(int) hostileRequest {
		return func(int) hostileRequest {
			return hostileRequest{path: keyChange, body: changing.Sign(keyChange, inner, nil), header: asACME, status: http.StatusBadRequest}
		}
	}
	innerBy := func(key crypto.Signer, oldKey any) string {
		opts := (&jose.SignerOptions{EmbedJWK: true}).WithHeader("url", w.URL+keyChange)
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, opts)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign([]byte(inJSON(map[string]any{"account": changing.KID, "oldKey": oldKey})))
		if err != nil {
			t.Fatal(err)
		}
		return signed.FullSerialize()
	}
	medium := hugeKey(t, 90_000)
	const newAccount, revokeCert = "/acme/acme/new-account", "/acme/acme/revoke-cert"
	return map[string]func(int) hostileRequest{
		"sign, no token":   fixed(hostileRequest{path: "/sign", body: inJSON(stepapi.SignRequest{CSR: request, OTT: "a.b.c"}), status: 401}),
		"sign, with token": fixed(hostileRequest{path: "/1.0/sign", body: inJSON(stepapi.SignRequest{CSR: request, OTT: token}), status: 403}),
		"rekey, stranger":  fixed(hostileRequest{path: "/rekey", body: inJSON(stepapi.RekeyRequest{CSR: request}), status: 401}),
		"rekey, peer":      fixed(hostileRequest{path: "/rekey", body: inJSON(stepapi.RekeyRequest{CSR: request}), peer: peer, status: 403}),
		"rekey, renewal token of a good key": fixed(hostileRequest{path: "/rekey", body: inJSON(stepapi.RekeyRequest{CSR: request}), status: 403,
			header: []string{"Authorization", "Bearer " + proofFor(t, w.CA, peer, "/rekey", bound(t, request))}}),
		"renew, renewal token": fixed(hostileRequest{path: "/renew", header: proof("/renew"), status: 401}),
		"rekey, renewal token": fixed(hostileRequest{path: "/rekey", body: inJSON(stepapi.RekeyRequest{CSR: request}), header: proof("/rekey"), status: 401}),
		"sign, X5C":            fixed(hostileRequest{path: "/sign", body: inJSON(stepapi.SignRequest{CSR: "x", OTT: x5c("/sign", weakLeaf, short, "storage")}), status: 401}),
		"sign, X5C, issuer":    fixed(hostileRequest{path: "/sign", body: inJSON(stepapi.SignRequest{CSR: "x", OTT: x5c("/sign", below, hugeKey(t, 2048), "storage")}), status: 401}),
		"revoke, X5C":          fixed(hostileRequest{path: "/revoke", body: inJSON(stepapi.RevokeRequest{Serial: "1", Passive: true, OTT: x5c("/revoke", weakLeaf, short, "1")}), status: 401}),
		"sign, jwk in token": fixed(hostileRequest{path: "/sign", body: inJSON(stepapi.SignRequest{CSR: "x",
			OTT: handMadeJWT(t, map[string]any{"jwk": private}, map[string]any{"iss": "enrolment"}, unsigned(short))}), status: 401}),
		"new-account":              acme(newAccount, jws(newAccount, jwkOf(short), short)),
		"new-account, private key": acme(newAccount, jws(newAccount, private, short)),
		"revoke-cert":              acme(revokeCert, jws(revokeCert, jwkOf(short), short)),
		"key-change":               change(jws(keyChange, jwkOf(medium), medium)),
		"key-change, private key":  change(innerBy(newKey(t), private)),
		"finalize": func(int) hostileRequest {
			body := finalizing.Sign(finalize, map[string]string{"csr": base64.RawURLEncoding.EncodeToString(hugeRequest(t, short))}, nil)
			return hostileRequest{path: finalize, body: body, header: asACME, status: http.StatusBadRequest}
		},
	}
}

// belowHuge returns a leaf that names an authority with such a key as its issuer, and
// that authority.
func belowHuge(t testing.TB, key *rsa.PublicKey) [][]byte {
	t.Helper()
	now, ec := time.Now(), newKey(t)
	by, err := rsa.GenerateKey(rand.Reader, 2048) // for the algorithm; its signature is replaced
	if err != nil {
		t.Fatal(err)
	}
	name := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	name.Subject.CommonName = "Devices"
	issuer, err := x509.CreateCertificate(rand.Reader, name, name, key, ec)
	if err != nil {
		t.Fatal(err)
	}
	leaf := certificateFor(t, newKey(t).Public(), &x509.Certificate{Subject: name.Subject, PublicKey: by.Public()}, by)
	return [][]byte{resigned(t, leaf.Raw, noSignature(key)), issuer}
}

// processTime returns the processor time of this process.
func processTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func rootPool(c *catest.CA) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, r := range c.Roots() {
		pool.AddCert(r)
	}
	return pool
}
