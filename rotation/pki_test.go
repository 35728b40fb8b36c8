package rotation_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/logtest"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/testpki"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
)

// testCA is a root with one intermediate.
type testCA struct {
	root, inter       *x509.Certificate
	rootKey, interKey crypto.Signer
}

func newKey(t testing.TB) crypto.Signer { t.Helper(); return testpki.Key(t) }

// serials are numbers that no other certificate or list of the run has.
func serials() *big.Int { return new(big.Int).SetBytes([]byte(rand.Text()[:15])) }

func sign(t testing.TB, tmpl, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	tmpl.SerialNumber, tmpl.PublicKey = nil, pub
	return testpki.Issue(t, &testpki.Pair{Cert: parent, Key: key}, tmpl, key).Cert
}

func newCA(t testing.TB, name string) *testCA {
	t.Helper()
	ca := &testCA{rootKey: newKey(t)}
	tmpl := ca.template(name + " root")
	ca.root = sign(t, tmpl, tmpl, ca.rootKey.Public(), ca.rootKey)
	ca.inter, ca.interKey = ca.newInter(t, name+" intermediate")
	return ca
}

func (ca *testCA) template(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
	}
}

func (ca *testCA) newInter(t testing.TB, name string) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	key := newKey(t)
	return sign(t, ca.template(name), ca.root, key.Public(), ca.rootKey), key
}

// leaf makes a good identity for the name, trusting this CA; edit changes the template.
func (ca *testCA) leaf(t testing.TB, name string, edit func(*x509.Certificate)) rotation.Material {
	t.Helper()
	tmpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name, "localhost"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:   time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if edit != nil {
		edit(tmpl)
	}
	key := newKey(t)
	c := sign(t, tmpl, ca.inter, key.Public(), ca.interKey)
	return rotation.Material{
		Certificate: tls.Certificate{Certificate: [][]byte{c.Raw, ca.inter.Raw}, PrivateKey: key, Leaf: c},
		Roots:       []*x509.Certificate{ca.root}, Version: c.SerialNumber.String(),
	}
}

// pushed is a real Source under the control of a test: it yields what push is given.
type pushed struct {
	mu      sync.Mutex
	current rotation.Material
	next    chan offer
	ended   chan error
}

type offer struct {
	m      rotation.Material
	answer chan error
}

func newPushed(m rotation.Material) *pushed {
	return &pushed{current: m, next: make(chan offer), ended: make(chan error)}
}

func (p *pushed) Watch(ctx context.Context, yield func(rotation.Material) error) error {
	p.mu.Lock()
	m := p.current
	p.mu.Unlock()
	if err := yield(m); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-p.ended:
			return err
		case o := <-p.next:
			err := yield(o.m)
			if err == nil {
				p.mu.Lock()
				p.current = o.m
				p.mu.Unlock()
			}
			o.answer <- err
		}
	}
}

func (p *pushed) push(m rotation.Material) error {
	o := offer{m, make(chan error, 1)}
	p.next <- o
	return <-o.answer
}

func (p *pushed) mustPush(t testing.TB, m rotation.Material) {
	t.Helper()
	if err := p.push(m); err != nil {
		t.Fatalf("push: %v", err)
	}
}

// logs collects what an identity logs, for the canary.
type logs struct{ logtest.Buffer }

func (l *logs) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func open(t testing.TB, src rotation.Source, drain time.Duration) *rotation.Identity {
	t.Helper()
	id, err := rotation.Open(context.Background(), rotation.Config{Source: src, DrainTimeout: drain, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = id.Close() })
	return id
}

func transport(t testing.TB, id *rotation.Identity, opts rotation.TransportOptions) *rotation.Transport {
	t.Helper()
	tr, err := id.Transport(opts)
	if err != nil {
		t.Fatalf("Transport: %v", err)
	}
	return tr
}

// listen serves h over TLS on a free port and returns the address.
func listen(t testing.TB, conf *tls.Config, h http.Handler) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, TLSConfig: conf, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ServeTLS(ln, "", "") }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return ln.Addr().String()
}

// whoami answers with the serial of the client's leaf and whether the connection was resumed.
func whoami(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Resumed", strconv.FormatBool(r.TLS.DidResume))
	w.Header().Set("Proto", r.Proto)
	if len(r.TLS.PeerCertificates) > 0 {
		w.Header().Set("Serial", r.TLS.PeerCertificates[0].SerialNumber.String())
	}
	_, _ = w.Write([]byte("ok"))
}

// write puts m as PEM into dir/tls.crt, tls.key and ca.crt.
func write(t testing.TB, dir string, m rotation.Material) files.Set {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f := files.Set{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), CA: filepath.Join(dir, "ca.crt")}
	put(t, f.Cert, chainPEM(t, m))
	put(t, f.Key, keyPEM(t, m))
	put(t, f.CA, pemfile.EncodeCertificates(m.Roots))
	return f
}

func put(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func chainPEM(t testing.TB, m rotation.Material) []byte {
	t.Helper()
	var chain []*x509.Certificate
	for _, der := range m.Certificate.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, c)
	}
	return pemfile.EncodeCertificates(chain)
}

func keyPEM(t testing.TB, m rotation.Material) []byte {
	t.Helper()
	b, err := pemfile.EncodePrivateKey(m.Certificate.PrivateKey.(crypto.Signer))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// serial of the leaf in effect.
func serial(id *rotation.Identity) string { return id.Current().Leaf().SerialNumber.String() }

// crl takes the serials back, as of minutes ago or ahead.
func (ca *testCA) crl(t testing.TB, minutes int, revoked ...rotation.Material) *x509.RevocationList {
	t.Helper()
	list := &x509.RevocationList{
		Number: serials(), ThisUpdate: time.Now().Add(time.Duration(minutes) * time.Minute), NextUpdate: time.Now().Add(time.Hour),
	}
	for _, m := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: m.Certificate.Leaf.SerialNumber, RevocationTime: time.Now()})
	}
	return signList(t, list, ca.inter, ca.interKey)
}

func signList(t testing.TB, list *x509.RevocationList, issuer *x509.Certificate, key crypto.Signer) *x509.RevocationList {
	t.Helper()
	return (&testpki.Pair{Cert: issuer, Key: key}).List(t, list)
}

// taking is m with the lists.
func taking(m rotation.Material, lists ...*x509.RevocationList) rotation.Material {
	m.Revoked = lists
	return m
}
