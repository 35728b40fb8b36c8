package enroll_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/internal/testpki"
	"github.com/artstore/artstore-pki/secret"
)

// authority is an authority for tests that need what a real one must never do: to
// forget, to contradict itself, to answer too late, to run for a day in a bubble. It
// speaks real TLS and HTTP over any listener and signs with crypto/x509. The tests with
// the authority of this project are in real_test.go.
type authority struct {
	host string
	life time.Duration

	mu      sync.Mutex
	roots   []*testpki.Pair // the last one signs
	issuer  *testpki.Pair
	served  *tls.Certificate // chain with roots appended
	tokens  map[string]*spent
	digests []string                           // reported by renewals
	hits    map[string]int                     // requests by path
	fault   func(*http.Request) *stepapi.Error // nil: none; status 0: drop the answer after the work
	header  http.Header                        // added to refusals
	issued  []*x509.Certificate
	clients []*x509.Certificate // roots for client certificates, if not the bundle
	shift   time.Duration       // of its clock
	dated   string              // header Date, if it is not the truth
	grace   time.Duration       // for expired certificates
	forger  *testpki.Pair       // signs the lists instead of their issuers
	stock   bool                // takes tokens of expired certificates at /renew only, as step-ca does, and has no lists
	proofs  map[string]bool     // spent
	retired []*testpki.Pair     // issuers before the current one

	listLife time.Duration // of a revoked list; 0 means a day
	revoked  []*x509.Certificate
	answer   func(http.ResponseWriter, *http.Request) bool // answers in its place, or returns false
	service  bool                                          // its own certificate is that of a service: without the mark
	// What a certificate is made with instead, if set.
	spoilKey    bool
	spoilIssuer *testpki.Pair
}

type spent struct {
	key   any
	chain []string
}

const caHost = "ca.test"

func newAuthority(t testing.TB, life time.Duration) *authority {
	t.Helper()
	a := &authority{host: caHost, life: life, tokens: map[string]*spent{}, hits: map[string]int{}, proofs: map[string]bool{}}
	a.addRoot(t)
	a.activate(t)
	return a
}

// addRoot adds a root to the bundle; activate signs under the newest root.
func (a *authority) addRoot(t testing.TB) *x509.Certificate {
	t.Helper()
	root := testpki.Root(t, fmt.Sprintf("Root %d", len(a.roots)+1))
	a.mu.Lock()
	a.roots = append(a.roots, root)
	a.mu.Unlock()
	if a.issuer != nil {
		a.serve(t)
	}
	return root.Cert
}

func (a *authority) activate(t testing.TB) {
	t.Helper()
	root := a.roots[len(a.roots)-1]
	next := root.Intermediate(t, "Intermediate", func(c *x509.Certificate) { c.MaxPathLenZero = true })
	a.mu.Lock()
	if a.issuer != nil {
		a.retired = append(a.retired, a.issuer)
	}
	a.issuer = next
	a.mu.Unlock()
	a.serve(t)
}

// dropRoot removes the oldest root.
func (a *authority) dropRoot(t testing.TB) {
	t.Helper()
	a.mu.Lock()
	a.roots = a.roots[1:]
	a.mu.Unlock()
	a.serve(t)
}

// serve gives the authority itself a certificate from the current issuer.
func (a *authority) serve(t testing.TB) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	leaf := testpki.Issue(t, a.issuer, &x509.Certificate{
		Subject: pkix.Name{CommonName: "ca"}, DNSNames: []string{a.host}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(365 * 24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, UnknownExtKeyUsage: a.purpose(),
	}, nil)
	c := leaf.TLS(append([]*testpki.Pair{a.issuer}, a.roots...)...)
	a.served = &c
}

func (a *authority) purpose() []asn1.ObjectIdentifier {
	if a.service {
		return nil
	}
	return []asn1.ObjectIdentifier{stepapi.AuthorityPurpose}
}

// pose gives the server a certificate without the mark of an authority, or one with it.
func (a *authority) pose(t testing.TB, asService bool) {
	t.Helper()
	a.mu.Lock()
	a.service = asService
	a.mu.Unlock()
	a.serve(t)
}

func (a *authority) bundle() []*x509.Certificate {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []*x509.Certificate
	for _, r := range a.roots {
		out = append(out, r.Cert)
	}
	return out
}

func (a *authority) count(path string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.hits[path]
}

// total returns the number of requests.
func (a *authority) total() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, hits := range a.hits {
		n += hits
	}
	return n
}

func (a *authority) certificates() []*x509.Certificate {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]*x509.Certificate(nil), a.issued...)
}

func (a *authority) setFault(f func(*http.Request) *stepapi.Error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fault = f
}

// token makes a token that the authority takes once.
func (a *authority) token(service string, names ...string) secret.String {
	sum := sha256.Sum256(a.bundle()[0].Raw)
	claims, _ := json.Marshal(map[string]any{"sub": service, "sans": names, "sha": hex.EncodeToString(sum[:]), "jti": rand.Text()})
	t := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256"}`)) + "." +
		base64.RawURLEncoding.EncodeToString(claims) + "." + rand.Text() + rand.Text()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens[t] = &spent{}
	return secret.New(t)
}

// start serves on ln until the test ends.
func (a *authority) start(t testing.TB, ln net.Listener) {
	t.Helper()
	srv := &http.Server{Handler: a, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	conf := &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		pool, roots := x509.NewCertPool(), a.bundle()
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.clients != nil {
			roots = a.clients
		}
		for _, r := range roots {
			pool.AddCert(r)
		}
		return &tls.Config{
			Time:       a.clock(),
			MinVersion: tls.VersionTLS13, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven,
			Certificates: []tls.Certificate{*a.served}, SessionTicketsDisabled: true,
		}, nil
	}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(tls.NewListener(ln, conf))
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
}

func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path[len(stepapi.Prefix):]
	a.mu.Lock()
	a.hits[path]++
	w.Header().Set("Date", a.clock()().UTC().Format(http.TimeFormat))
	if a.dated != "" {
		w.Header().Set("Date", a.dated)
	}
	fault, header, instead := a.fault, a.header, a.answer
	a.mu.Unlock()
	if instead != nil && instead(w, r) {
		return
	}
	var refused *stepapi.Error
	if fault != nil {
		refused = fault(r)
	}
	if refused != nil && refused.Status != 0 {
		for k, v := range header {
			w.Header()[k] = v
		}
		answer(w, refused.Status, refused)
		return
	}
	status, body := a.work(path, r)
	if refused != nil { // the work is done, the answer is lost
		panic(http.ErrAbortHandler)
	}
	answer(w, status, body)
}

func (a *authority) work(path string, r *http.Request) (int, any) {
	body, _ := io.ReadAll(r.Body)
	switch path {
	case stepapi.PathHealth:
		return http.StatusOK, map[string]string{"status": "ok"}
	case stepapi.PathRoots:
		var out stepapi.RootsResponse
		for _, c := range a.bundle() {
			out.Certificates = append(out.Certificates, string(pemfile.EncodeCertificates([]*x509.Certificate{c})))
		}
		return http.StatusCreated, out
	case stepapi.PathSign:
		return a.sign(body)
	case stepapi.PathRekey, stepapi.PathRenew:
		return a.renew(r, body)
	case stepapi.PathRevoked:
		return a.lists(r)
	case stepapi.PathRevoke:
		return http.StatusOK, stepapi.RevokeResponse{Status: "ok"}
	}
	return http.StatusNotFound, stepapi.Error{Status: http.StatusNotFound, Message: "no such path"}
}

func (a *authority) sign(body []byte) (int, any) {
	var in stepapi.SignRequest
	if err := json.Unmarshal(body, &in); err != nil {
		return http.StatusBadRequest, stepapi.Error{Message: err.Error()}
	}
	csr := parseCSR(in.CSR)
	a.mu.Lock()
	defer a.mu.Unlock()
	t, ok := a.tokens[in.OTT]
	if !ok || csr == nil {
		return http.StatusUnauthorized, stepapi.Error{Status: 401, Message: "unknown token " + in.OTT}
	}
	if t.key == nil {
		t.key, t.chain = csr.PublicKey, a.issue(csr.Subject.CommonName, csr, csr.PublicKey)
	}
	if !t.key.(interface{ Equal(crypto.PublicKey) bool }).Equal(csr.PublicKey.(crypto.PublicKey)) {
		return http.StatusUnauthorized, stepapi.Error{Status: 401, Message: "token was used with another key"}
	}
	return http.StatusCreated, stepapi.SignResponse{Certificate: t.chain[0], CA: t.chain[1], Chain: t.chain}
}

func (a *authority) renew(r *http.Request, body []byte) (int, any) {
	var old *x509.Certificate
	if len(r.TLS.VerifiedChains) > 0 {
		old = r.TLS.PeerCertificates[0]
	} else if a.stock && strings.HasSuffix(r.URL.Path, stepapi.PathRekey) {
		return http.StatusBadRequest, stepapi.Error{Status: 400, Message: "missing client certificate"}
	} else {
		var why string
		if old, why = a.proven(r); old == nil {
			return http.StatusUnauthorized, stepapi.Error{Status: 401, Message: why}
		}
	}
	key := old.PublicKey
	if len(body) > 0 {
		var in stepapi.RekeyRequest
		_ = json.Unmarshal(body, &in)
		csr := parseCSR(in.CSR)
		if csr == nil {
			return http.StatusBadRequest, stepapi.Error{Status: 400, Message: "bad CSR"}
		}
		key = csr.PublicKey
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.digests = append(a.digests, r.Header.Get(stepapi.HeaderTrustDigest))
	chain := a.issue(old.Subject.CommonName, &x509.CertificateRequest{DNSNames: old.DNSNames, IPAddresses: old.IPAddresses, URIs: old.URIs}, key)
	return http.StatusCreated, stepapi.SignResponse{Certificate: chain[0], CA: chain[1], Chain: chain}
}

// issue signs; the caller holds the lock.
func (a *authority) issue(service string, names *x509.CertificateRequest, key any) []string {
	now, issuer := a.clock()(), a.issuer
	if a.spoilKey {
		key = a.issuer.Key.Public()
	}
	if a.spoilIssuer != nil {
		issuer = a.spoilIssuer
	}
	// Within the server a failure panics: net/http answers with a closed connection.
	leaf := testpki.Issue(pkitest.Example(), issuer, &x509.Certificate{
		Subject: pkix.Name{CommonName: service}, DNSNames: names.DNSNames, IPAddresses: names.IPAddresses, URIs: names.URIs,
		NotBefore: now.Add(-lifetime.Backdate(a.life)), NotAfter: now.Add(a.life), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, PublicKey: key,
	}, nil).Cert
	a.issued = append(a.issued, leaf)
	var out []string
	for _, c := range []*x509.Certificate{leaf, a.issuer.Cert} {
		out = append(out, string(pemfile.EncodeCertificates([]*x509.Certificate{c})))
	}
	return out
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	if t, ok := body.(tagged); ok {
		w.Header().Set("ETag", t.tag)
	}
	w.WriteHeader(status)
	if status == http.StatusNotModified {
		return
	}
	_ = json.NewEncoder(w).Encode(body)
}

func parseCSR(s string) *x509.CertificateRequest {
	block, _ := pem.Decode([]byte(s))
	if block == nil {
		return nil
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || csr.CheckSignature() != nil {
		return nil
	}
	return csr
}
