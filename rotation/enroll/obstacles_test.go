package enroll_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/internal/flock"
	"github.com/artstore/artstore-pki/internal/logtest"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// obstruct puts a directory that is not empty in the place of a file. No process can
// replace it, not even one of root.
func obstruct(t *testing.T, dir, name string) (remove func()) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Join(path, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
}

func pendingKey(token secret.String) string {
	sum := sha256.Sum256([]byte(token.Expose()))
	return "pending-" + hex.EncodeToString(sum[:16]) + ".key"
}

// TestObstaclesBeforeTheToken expects that an enrolment stops before the token is sent
// if its key could not be stored, and that the error has the file. Without the obstacle
// the same token works.
func TestObstaclesBeforeTheToken(t *testing.T) {
	a, url := listen(t)
	for what, obstacle := range map[string]func(t *testing.T, dir string, token secret.String) (name string){
		"a directory in place of the lock": func(t *testing.T, dir string, _ secret.String) string {
			obstruct(t, dir, ".lock")
			return ".lock"
		},
		"a directory in place of the key": func(t *testing.T, dir string, token secret.String) string {
			obstruct(t, dir, pendingKey(token))
			return pendingKey(token)
		},
		"a key that is none": func(t *testing.T, dir string, token secret.String) string {
			if err := os.WriteFile(filepath.Join(dir, pendingKey(token)), []byte("half of a k"), 0o600); err != nil {
				t.Fatal(err)
			}
			return pendingKey(token)
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir, token := t.TempDir(), a.token("svc")
			cfg := enroll.Config{URL: url, Dir: dir, Token: once(token)}
			name, before := obstacle(t, dir, token), a.count(stepapi.PathSign)
			if _, err := enroll.Issue(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%v; want an error that names %s", err, name)
			}
			if n := a.count(stepapi.PathSign) - before; n != 0 {
				t.Errorf("the token was sent %d times", n)
			}
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			if _, err := enroll.Issue(t.Context(), cfg); err != nil {
				t.Errorf("after the obstacle: %v", err)
			}
		})
	}
}

// TestObstacleOfAnotherAuthority expects that the old identity stays on disk if the head
// of the old log cannot be renamed, and that the token gets the same certificate later.
func TestObstacleOfAnotherAuthority(t *testing.T) {
	a, urlA := listen(t)
	b, urlB := listen(t)
	dir := t.TempDir()
	first, err := enroll.Issue(t.Context(), enroll.Config{URL: urlA, Dir: dir, Token: once(a.token("svc"))})
	if err != nil {
		t.Fatal(err)
	}
	head := filepath.Join(dir, "log.head")
	if err := os.WriteFile(head, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	remove := obstruct(t, dir, "log.head.old")
	cfg := enroll.Config{URL: urlB, Dir: dir, Token: once(b.token("svc"))}
	if _, err := enroll.Issue(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "log.head") {
		t.Errorf("%v", err)
	}
	if got := readDir(t, dir); !got.Certificate.Leaf.Equal(first.Certificate.Leaf) || !got.Roots[0].Equal(first.Roots[0]) {
		t.Error("what is on disk changed")
	}
	if text, err := os.ReadFile(head); err != nil || string(text) != "old" {
		t.Errorf("the head: %q, %v", text, err)
	}
	if generations, _ := filepath.Glob(filepath.Join(dir, "gen-*")); len(generations) != 1 {
		t.Errorf("generations that nothing uses are left: %v", generations)
	}
	remove()
	if m, err := enroll.Issue(t.Context(), cfg); err != nil || !m.Roots[0].Equal(b.bundle()[0]) {
		t.Errorf("after the obstacle: %v", err)
	}
}

// TestObstaclesAfterTheCertificate expects that files beside the identity do not hold up
// a renewal, and that the log says what is wrong.
func TestObstaclesAfterTheCertificate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		stop := w.watch(w.source())
		for _, name := range []string{"authority.json", "pending-0123.key"} {
			if err := os.RemoveAll(filepath.Join(w.cfg.Dir, name)); err != nil {
				t.Fatal(err)
			}
			defer obstruct(t, w.cfg.Dir, name)()
		}
		time.Sleep(time.Hour)
		stop()
		if n := len(w.leaves()); n < 2 {
			t.Errorf("%d certificates:\n%s", n, w.log.String())
		}
		for _, said := range []string{"address of the authority not kept", "key of a finished enrolment not removed"} {
			if !strings.Contains(w.log.String(), said) {
				t.Errorf("the log does not say %q:\n%s", said, w.log.String())
			}
		}
	})
}

// TestExpiredIsNotReady expects that Check fails with the reason while an authority is
// away for longer than the certificate lives, and that a stop does not wait for a
// request that hangs.
func TestExpiredIsNotReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		src := w.source()
		stop := w.watch(src)
		if err := errors.Join(src.Check(), src.RevokedError()); err != nil {
			t.Errorf("at the start: %v", err)
		}
		w.ca.setFault(func(r *http.Request) *stepapi.Error {
			if strings.HasSuffix(r.URL.Path, stepapi.PathRekey) {
				_, _ = io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
			}
			return &stepapi.Error{Status: http.StatusServiceUnavailable, Message: "the disk is full"}
		})
		time.Sleep(90 * time.Minute)
		err := src.Check()
		if err == nil || !strings.Contains(err.Error(), "expired at ") || strings.HasSuffix(err.Error(), ": ") {
			t.Errorf("after the end: %v", err)
		}
		for range 100 { // until a request is under way
			if w.ca.count(stepapi.PathRekey) > 0 {
				break
			}
			time.Sleep(time.Minute)
		}
		began := time.Now()
		stop()
		if took := time.Since(began); took > time.Second {
			t.Errorf("the stop took %s", took)
		}
	})
}

// TestRefusedInMemory expects that the old identity stays if the gate refuses a renewal,
// without a directory too.
func TestRefusedInMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		w.cfg.Dir, w.cfg.InMemory = "", true
		stop := w.watch(w.source())
		first := w.last().Version
		w.setRefuse(errors.New("the gate is closed"))
		time.Sleep(45 * time.Minute)
		if w.last().Version != first || !strings.Contains(w.log.String(), "the gate is closed") {
			t.Errorf("a refused renewal:\n%s", w.log.String())
		}
		w.setRefuse(nil)
		time.Sleep(10 * time.Minute)
		stop()
		if w.last().Version == first {
			t.Errorf("no renewal once the gate was open:\n%s", w.log.String())
		}
		w.check()
	})
}

// TestTokenWithoutARoot expects that a token without a fingerprint is not sent to
// another authority.
func TestTokenWithoutARoot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newReplaced(t)
		r.watch(r.source())()
		r.here.Store(r.netB)
		parts := strings.Split(r.b.token("ingester", "ingester").Expose(), ".")
		r.setToken(secret.New(parts[0] + ".eyJzdWIiOiJpbmdlc3RlciIsInNhbnMiOlsiaW5nZXN0ZXIiXX0." + parts[2])) // {"sub":"ingester","sans":["ingester"]}
		time.Sleep(2 * time.Hour)
		_, err := enroll.Renew(t.Context(), r.cfg)
		if !errors.Is(err, enroll.ErrOtherAuthority) || !strings.Contains(err.Error(), "names no root") {
			t.Errorf("%v", err)
		}
		if n := r.b.count(stepapi.PathSign); n != 0 {
			t.Errorf("the other authority got the token %d times", n)
		}
	})
}

// foreign is a key of a kind that this package does not make.
type foreign struct{ public crypto.PublicKey }

func (f foreign) Public() crypto.PublicKey { return f.public }
func (foreign) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.ErrUnsupported
}

// TestSuccessorOfAForeignKey: a renewal does not weaken a key that another program made.
func TestSuccessorOfAForeignKey(t *testing.T) {
	modulus := func(bits uint) *rsa.PublicKey {
		return &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), bits-1), E: 65537}
	}
	for want, keys := range map[enroll.KeyType][]crypto.PublicKey{
		"RSA-3072": {modulus(2048), modulus(3072)},
		"RSA-4096": {modulus(3073), modulus(4096), modulus(8192)},
		"EC-P256":  {&ecdsa.PublicKey{Curve: elliptic.P224()}, &ecdsa.PublicKey{Curve: elliptic.P256()}},
		"EC-P384":  {&ecdsa.PublicKey{Curve: elliptic.P384()}, &ecdsa.PublicKey{Curve: elliptic.P521()}},
	} {
		for _, k := range keys {
			if got := enroll.KeyTypeOf(foreign{k}); got != want {
				t.Errorf("the successor of %T %+v is %s, want %s", k, k, got, want)
			}
		}
	}
}

// TestMalformedLists expects that a wrong answer in place of lists is logged, and that
// neither a renewal nor the lists in effect are lost.
func TestMalformedLists(t *testing.T) {
	t.Parallel()
	var instead atomic.Pointer[string]
	authority := catest.Start(t, catest.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if text := instead.Load(); text != nil && strings.HasSuffix(r.URL.Path, stepapi.PathRevoked) {
				_, _ = io.WriteString(w, *text)
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	var log logtest.Buffer
	cfg := enroll.Config{URL: authority.URL, Dir: t.TempDir(), Token: once(authority.Token(t, "ingester")), Logger: slog.New(slog.NewTextHandler(&log, nil))}
	if _, err := enroll.Issue(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	m, err := enroll.Renew(t.Context(), cfg)
	if err != nil || len(m.Revoked) == 0 {
		t.Fatalf("%d lists, %v", len(m.Revoked), err)
	}
	list := func(crl string) string {
		one := stepapi.RevokedList{Issuer: string(pemfile.EncodeCertificates(m.Roots[:1])), CRL: crl}
		text, err := json.Marshal(stepapi.RevokedResponse{Lists: []stepapi.RevokedList{one}})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	good := string(pemfile.EncodeRevocationLists(m.Revoked[:1]))
	junk := string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte("junk")}))
	for answer, want := range map[string]string{
		"{1}": "not the JSON expected", `{"lists":[{"issuer":"junk"}]}`: "PEM", list(""): "not one PEM block", list(good + good): "not one PEM block",
		list(junk): "parsing a revoked list", list(good): "of another issuer",
	} {
		instead.Store(&answer)
		renewed, err := enroll.Renew(t.Context(), cfg)
		if err != nil || len(renewed.Revoked) != len(m.Revoked) {
			t.Errorf("%.40s: %d lists, %v", answer, len(renewed.Revoked), err)
		}
		if said := log.String(); !strings.Contains(said, "revoked lists not refreshed") || !strings.Contains(said, want) {
			t.Errorf("%.40s: the log does not say %q:\n%s", answer, want, said)
		}
	}
}

// TestRenewOfNothing expects that a directory that does not exist is not made, and that
// an obstacle after the certificate is an error although the certificate is stored.
func TestRenewOfNothing(t *testing.T) {
	a, url := listen(t)
	dir := filepath.Join(t.TempDir(), "absent")
	if _, err := enroll.Renew(t.Context(), enroll.Config{URL: url, Dir: dir}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
	dir = t.TempDir()
	defer obstruct(t, dir, "pending-0123.key")()
	if _, err := enroll.Issue(t.Context(), enroll.Config{URL: url, Dir: dir, Token: once(a.token("svc"))}); err == nil || !strings.Contains(err.Error(), "pending-0123.key") {
		t.Errorf("%v", err)
	}
	if got := readDir(t, dir); got.Certificate.Leaf.Subject.CommonName != "svc" {
		t.Error("the certificate was not kept")
	}
}

// TestDamagedMaterialIsNotWritten expects an error for material that could not be read
// back.
func TestDamagedMaterialIsNotWritten(t *testing.T) {
	for what, edit := range map[string]func(*rotation.Material){
		"no key":                         func(m *rotation.Material) { m.Certificate.PrivateKey = nil },
		"a chain that is none":           func(m *rotation.Material) { m.Certificate.Certificate = [][]byte{[]byte("junk")} },
		"a memory of lists that is none": func(m *rotation.Material) { m.Kept = []byte("junk") },
		"a list of a stranger":           func(m *rotation.Material) { m.Revoked = []*x509.RevocationList{{}} },
	} {
		m, dir := material(t, "x"), t.TempDir()
		edit(&m)
		if err := enroll.WriteFiles(dir, m); err == nil {
			t.Errorf("%s was written", what)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
			t.Errorf("%s left %v", what, left)
		}
	}
}

// TestLockOfSomebodySilent expects that a lock file without content is still a lock.
func TestLockOfSomebodySilent(t *testing.T) {
	a, url := listen(t)
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, ".lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if busy, err := flock.Try(f, false); busy || err != nil {
		t.Fatal(busy, err)
	}
	if _, err := enroll.Issue(t.Context(), enroll.Config{URL: url, Dir: dir, Token: once(a.token("svc"))}); !errors.Is(err, enroll.ErrBusy) || a.count(stepapi.PathSign) != 0 {
		t.Errorf("%v, %d tokens sent", err, a.count(stepapi.PathSign))
	}
}

// TestAwayWhileTheAnchorIsTried expects that an authority with an unknown root that then
// does not answer counts as an outage, and not as another authority.
func TestAwayWhileTheAnchorIsTried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newReplaced(t)
		r.watch(r.source())()
		r.here.Store(r.netB)
		dial, dials := r.cfg.DialContext, 0
		r.cfg.Roots = r.b.bundle()
		r.cfg.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if dials++; dials > 1 {
				return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("the network is unreachable")}
			}
			return dial(ctx, network, addr)
		}
		_, err := enroll.Renew(t.Context(), r.cfg)
		if err == nil || errors.Is(err, enroll.ErrOtherAuthority) || !strings.Contains(err.Error(), "the network is unreachable") || dials < 2 {
			t.Errorf("after %d dials: %v", dials, err)
		}
	})
}

// TestOtherAuthorityWithoutItsRoot expects that the error for a server that does not
// send its root has the issuer of the last certificate.
func TestOtherAuthorityWithoutItsRoot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newReplaced(t)
		r.watch(r.source())()
		r.b.mu.Lock()
		alone := *r.b.served
		alone.Certificate = alone.Certificate[:len(alone.Certificate)-1]
		r.b.served = &alone
		r.b.mu.Unlock()
		r.here.Store(r.netB)
		_, err := enroll.Renew(t.Context(), r.cfg)
		if !errors.Is(err, enroll.ErrOtherAuthority) || !strings.Contains(err.Error(), `a chain that ends at "Root 1"`) {
			t.Errorf("%v", err)
		}
	})
}
