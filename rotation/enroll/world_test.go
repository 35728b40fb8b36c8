package enroll_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/logtest"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// world is an authority, a source and what the source has yielded, in a bubble.
type world struct {
	t   *testing.T
	ca  *authority
	net *network
	cfg enroll.Config
	log logtest.Buffer

	mu     sync.Mutex
	token  secret.String // what the next enrolment gets
	yields []rotation.Material
	at     []time.Time
	refuse error  // answer of the gate
	not    string // serial that the gate refuses
}

func newWorld(t *testing.T, life time.Duration) *world {
	t.Helper()
	w := &world{t: t, ca: newAuthority(t, life), net: newNetwork()}
	w.ca.start(t, w.net)
	w.token = w.ca.token("ingester", "ingester", "10.0.0.7", "spiffe://artstore/ingester")
	w.cfg = enroll.Config{
		URL: "https://" + caHost, Dir: filepath.Join(t.TempDir(), "identity"), DialContext: w.net.DialContext,
		Token:  func(context.Context) (secret.String, error) { return w.getToken(), nil },
		Logger: slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	return w
}

func (w *world) yield(m rotation.Material) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return w.refuse
	}
	if m.Version == w.not {
		return errors.New("not this one")
	}
	w.yields, w.at = append(w.yields, m), append(w.at, time.Now())
	return nil
}

func (w *world) setToken(t secret.String) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.token = t
}

func (w *world) getToken() secret.String {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.token
}

func (w *world) setRefuse(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuse = err
}

func (w *world) setRefuseSerial(serial string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.not = serial
}

func (w *world) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.yields)
}

func (w *world) last() rotation.Material {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.yields) == 0 {
		w.t.Fatalf("nothing was yielded; log:\n%s", w.log.String())
	}
	return w.yields[len(w.yields)-1]
}

// watch runs the source until the returned function is called.
func (w *world) watch(src *enroll.Source) (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- src.Watch(ctx, w.yield) }()
	synctest.Wait()
	return func() {
		w.t.Helper()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			w.t.Errorf("Watch = %v, want the error of its context", err)
		}
	}
}

func (w *world) source() *enroll.Source {
	w.t.Helper()
	src, err := enroll.New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return src
}

// check verifies what must always hold: no gap in validity, a new key each time, every
// yield verified by its own roots, and the disk equal to the last yield.
func (w *world) check() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, m := range w.yields {
		leaf := m.Certificate.Leaf
		pool, inter := x509.NewCertPool(), x509.NewCertPool()
		for _, r := range m.Roots {
			pool.AddCert(r)
		}
		for _, der := range m.Certificate.Certificate[1:] {
			c, err := x509.ParseCertificate(der)
			if err != nil {
				w.t.Fatal(err)
			}
			inter.AddCert(c)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: inter, CurrentTime: w.at[i]}); err != nil {
			w.t.Errorf("yield %d: %v", i, err)
		}
		if !certs.Fits(leaf, m.Certificate.PrivateKey.(crypto.Signer)) {
			w.t.Errorf("yield %d: key does not fit", i)
		}
		if i == 0 {
			continue
		}
		before := w.yields[i-1].Certificate.Leaf
		if w.at[i].After(before.NotAfter) {
			w.t.Errorf("yield %d came %v after the end of the one before", i, w.at[i].Sub(before.NotAfter))
		}
		if !leaf.Equal(before) && leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(before.PublicKey) {
			w.t.Errorf("yield %d reuses the key", i)
		}
	}
	if w.cfg.Dir == "" || len(w.yields) == 0 {
		return
	}
	last := w.yields[len(w.yields)-1]
	if got := readDir(w.t, w.cfg.Dir); !got.Certificate.Leaf.Equal(last.Certificate.Leaf) || stepapi.TrustDigest(got.Roots) != stepapi.TrustDigest(last.Roots) {
		w.t.Error("what is on disk is not what was yielded last")
	}
	if left, _ := filepath.Glob(filepath.Join(w.cfg.Dir, "pending-*")); len(left) > 0 {
		w.t.Errorf("keys of finished enrolments are left: %v", left)
	}
}

func (w *world) leaves() []*x509.Certificate {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []*x509.Certificate
	for _, m := range w.yields {
		if len(out) == 0 || !m.Certificate.Leaf.Equal(out[len(out)-1]) {
			out = append(out, m.Certificate.Leaf)
		}
	}
	return out
}
