package enroll_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// replaced is a world whose authority gives way to another one at the same address.
type replaced struct {
	*world
	b    *authority
	here atomic.Pointer[network]
	netB *network
}

func newReplaced(t *testing.T) *replaced {
	t.Helper()
	r := &replaced{world: newWorld(t, time.Hour), b: newAuthority(t, time.Hour), netB: newNetwork()}
	r.ca.grace, r.b.grace = time.Hour, time.Hour
	r.b.start(t, r.netB)
	r.here.Store(r.net)
	r.cfg.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return r.here.Load().DialContext(ctx, network, addr)
	}
	return r
}

// TestOtherAuthority lets another authority answer at the old address. A valid
// certificate stays in use whatever token there is. An expired one is replaced for a
// token with the fingerprint of the new root, and for no other token. Nothing is sent to
// a server that is not trusted.
func TestOtherAuthority(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	t.Parallel()
	for name, after := range map[string]time.Duration{"valid": 50 * time.Minute, "in the grace": 90 * time.Minute, "after it": 5 * time.Hour} {
		for _, of := range []string{"the new authority", "the old one", "none"} {
			for _, running := range []bool{true, false} {
				t.Run(name+"/token of "+of, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { otherAuthority(t, after, of, running) })
				})
			}
		}
	}
}

func otherAuthority(t *testing.T, after time.Duration, of string, running bool) {
	r := newReplaced(t)
	first := r.watch(r.source())
	head := filepath.Join(r.cfg.Dir, "log.head")
	if err := os.WriteFile(head, []byte("of the old authority"), 0o600); err != nil {
		t.Fatal(err)
	}
	stop := first
	if !running {
		first()
	}
	r.here.Store(r.netB)
	switch of {
	case "the new authority":
		r.setToken(r.b.token("ingester", "ingester"))
	case "the old one":
		r.setToken(r.ca.token("ingester", "ingester"))
	default:
		r.setToken(secret.String{})
	}
	time.Sleep(after)
	var ended error
	if !running {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		src := r.source()
		go func() { done <- src.Watch(ctx, r.yield) }()
		time.Sleep(5 * time.Second)
		stop = func() { cancel(); ended = <-done }
	} else {
		time.Sleep(5 * time.Minute) // the longest step after a refusal
	}
	stop()
	given := of == "the new authority" && after > time.Hour
	leaves := r.leaves()
	switch last := leaves[len(leaves)-1]; {
	case given && (len(leaves) < 2 || !running && len(leaves) != 2 || last.CheckSignatureFrom(r.b.issuer.Cert) != nil):
		t.Fatalf("running %v: the token of the new authority was not used:\n%s", running, r.log.String())
	case !given && len(leaves) != 1:
		t.Fatalf("running %v: %d certificates:\n%s", running, len(leaves), r.log.String())
	}
	for _, path := range []string{stepapi.PathSign, stepapi.PathRekey, stepapi.PathRenew} {
		if n := r.b.count(path); n != 0 && !given || given && path == stepapi.PathSign && n != 1 {
			t.Errorf("running %v: the other authority got %d requests for %s", running, n, path)
		}
	}
	said := r.log.String()
	if ended != nil {
		said += ended.Error()
	}
	roots := []string{certs.Fingerprint(r.ca.bundle()[0]), certs.Fingerprint(r.b.bundle()[0])}
	if !strings.Contains(said, roots[0]) || !strings.Contains(said, roots[1]) {
		if running || after > time.Hour { // a start with a valid one asks for nothing yet
			t.Errorf("running %v: the roots %v are not both named:\n%s", running, roots, said)
		}
	}
	_, err := os.Stat(head)
	if gone := errors.Is(err, os.ErrNotExist); gone != given {
		t.Errorf("running %v: the head of the old log: %v", running, err)
	}
	if !given {
		return
	}
	if text, err := os.ReadFile(head + ".old"); err != nil || string(text) != "of the old authority" {
		t.Errorf("the old head was lost: %v", err)
	}
	m := r.last()
	if len(m.Roots) != 1 || !m.Roots[0].Equal(r.b.bundle()[0]) || stepapi.TrustDigest(readDir(t, r.cfg.Dir).Roots) != stepapi.TrustDigest(m.Roots) {
		t.Error("the old bundle is still in effect")
	}
}

// TestConfiguredAnchorHeals expects that an authority with a new root that the operator
// has configured does not count as another one.
func TestConfiguredAnchorHeals(t *testing.T) {
	t.Parallel()
	for _, byRoots := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newReplaced(t)
			r.watch(r.source())()
			r.ca.addRoot(t)
			r.ca.activate(t)
			root := r.ca.bundle()[1]
			if byRoots {
				r.cfg.Roots = r.ca.bundle()[1:]
			} else {
				sum := sha256.Sum256(root.Raw)
				r.cfg.RootFingerprint = hex.EncodeToString(sum[:])
			}
			r.setToken(secret.String{})
			time.Sleep(70 * time.Minute)
			m, err := enroll.Renew(t.Context(), r.cfg)
			if err != nil || len(m.Roots) != 2 || m.Certificate.Leaf.CheckSignatureFrom(r.ca.issuer.Cert) != nil {
				t.Fatalf("%v", err)
			}
		})
	}
}

// TestTokenGoesToItsAuthorityOnly expects that a token of one authority is not sent to
// another one that the configuration trusts.
func TestTokenGoesToItsAuthorityOnly(t *testing.T) {
	a, url := listen(t)
	other := newAuthority(t, time.Hour)
	cfg := enroll.Config{URL: url, Roots: a.bundle(), Dir: t.TempDir(), Token: once(other.token("svc"))}
	if _, err := enroll.Issue(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "not sent") || a.count(stepapi.PathSign) != 0 {
		t.Errorf("%v, %d requests", err, a.count(stepapi.PathSign))
	}
}

// TestIssueAnew expects that Issue into a directory of another authority takes over
// nothing of it, even while that certificate is valid.
func TestIssueAnew(t *testing.T) {
	a, urlA := listen(t)
	b, urlB := listen(t)
	dir := t.TempDir()
	if _, err := enroll.Issue(t.Context(), enroll.Config{URL: urlA, Dir: dir, Token: once(a.token("svc"))}); err != nil {
		t.Fatal(err)
	}
	head := filepath.Join(dir, "log.head")
	if err := os.WriteFile(head, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	var m rotation.Material
	m, err := enroll.Issue(t.Context(), enroll.Config{URL: urlB, Dir: dir, Token: once(b.token("svc"))})
	if err != nil || len(m.Roots) != 1 {
		t.Fatal(err)
	}
	if _, err := os.Stat(head); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the head of the other log: %v", err)
	}
	if cfg, err := enroll.ReadConfig(dir); err != nil || cfg.URL != urlB {
		t.Errorf("%+v, %v", cfg, err)
	}
}

// TestBundleOvertakesARenewal expects that a renewal is not taken for one at another authority if
// its connection began before a new root was known here, and ended after the authority has a
// certificate of that root. It is repeated at once with the new bundle.
func TestBundleOvertakesARenewal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 24*time.Hour)
		h := w.hold()
		var slow atomic.Bool
		connecting, arrived := make(chan struct{}), make(chan struct{})
		w.cfg.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if slow.CompareAndSwap(true, false) {
				close(connecting)
				<-arrived
			}
			return w.net.DialContext(ctx, network, addr)
		}
		stop := w.watch(w.source())
		time.Sleep(10 * time.Minute)
		slow.Store(true)
		h.changed(func() { h.order, h.ordered = &stepapi.WatchRenewal{ID: 1}, time.Now().Add(time.Second) })
		<-connecting
		root := w.ca.addRoot(t)
		h.changed(nil)
		time.Sleep(2 * time.Second)
		if !slices.ContainsFunc(w.last().Roots, root.Equal) {
			t.Fatal("the new root is not in effect")
		}
		w.ca.activate(t)
		close(arrived)
		time.Sleep(time.Second)
		if n := len(w.leaves()); n != 2 {
			t.Errorf("%d certificates, want a renewed one", n)
		}
		if said := w.log.String(); strings.Contains(said, enroll.ErrOtherAuthority.Error()) || strings.Contains(said, "level=ERROR") {
			t.Errorf("the log:\n%s", said)
		}
		stop()
		w.check()
	})
}
