package rotation_test

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
)

// TestMerge expects that a change of either side is one generation, and that each side
// gets the answer of the gate to the combination.
func TestMerge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newCA(t, "a"), newCA(t, "b")
		first := a.leaf(t, "svc", nil)
		trusting := func(cas ...*testCA) rotation.Material {
			m := rotation.Material{Version: "trust"}
			for _, ca := range cas {
				m.Roots = append(m.Roots, ca.root)
			}
			return m
		}
		identity, trust := newPushed(first), newPushed(trusting(a))
		id := open(t, rotation.Merge(identity, trust), 0)
		defer func() { _ = id.Close() }()
		synctest.Wait()
		if st := id.Status(); st.Generation != 1 || st.Version != first.Version+"+trust" || st.Roots != 1 {
			t.Fatalf("first combination: %+v", st)
		}
		second := a.leaf(t, "svc", nil)
		identity.mustPush(t, second)
		trust.mustPush(t, trusting(a, b))
		if st := id.Status(); st.Generation != 3 || st.Roots != 2 || serial(id) != second.Certificate.Leaf.SerialNumber.String() {
			t.Errorf("after both changed: %+v", st)
		}
		// Without an intermediate only the bundle can vouch for this leaf.
		stranger := b.leaf(t, "svc", nil)
		stranger.Certificate.Certificate = stranger.Certificate.Certificate[:1]
		if err := identity.push(stranger); err == nil || !strings.Contains(err.Error(), "combining with new identity: refusing candidate") {
			t.Errorf("refused identity: %v", err)
		}
		// A refused identity must not keep trust from changing …
		trust.mustPush(t, trusting(a))
		if st := id.Status(); st.Roots != 1 || st.Generation != 4 {
			t.Errorf("the trust change waits for a good identity: %+v", st)
		}
		if err := trust.push(rotation.Material{}); err == nil || !strings.Contains(err.Error(), "combining with new trust") {
			t.Errorf("refused trust: %v", err)
		}
		// … and is taken once trust allows it.
		third := trusting(a, b)
		third.Roots = append(third.Roots, b.inter)
		trust.mustPush(t, third)
		if serial(id) != stranger.Certificate.Leaf.SerialNumber.String() {
			t.Error("the identity that was refused before is not used with the trust it needs")
		}
	})
}

// TestMergeEnds expects that both sides end if one does, and that the error says which
// one.
func TestMergeEnds(t *testing.T) {
	m := newCA(t, "ca").leaf(t, "svc", nil)
	broken := errors.New("token refused")
	ends := endingSource{broken}
	for name, c := range map[string]struct {
		src  rotation.Source
		want string
	}{
		"identity": {rotation.Merge(ends, rotation.Static(m)), "following identity: token refused"},
		"trust":    {rotation.Merge(rotation.Static(m), ends), "following trust: token refused"},
		"silently": {rotation.Merge(rotation.Static(m), endingSource{}), "following trust: the source stopped"},
		"both":     {rotation.Merge(ends, lateSource{}), "following identity: token refused; following trust: closing: disk full"},
		"quietly":  {rotation.Merge(ends, quietSource{}), "following identity: token refused"},
	} {
		_, err := rotation.Open(t.Context(), rotation.Config{Source: c.src, Logger: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := rotation.Merge(rotation.Static(m), rotation.Static(m)).Watch(ctx, func(rotation.Material) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// endingSource ends at once, lateSource with an error of its own when it is told to.
type endingSource struct{ err error }

func (s endingSource) Watch(context.Context, func(rotation.Material) error) error { return s.err }

type lateSource struct{}

func (lateSource) Watch(ctx context.Context, yield func(rotation.Material) error) error {
	<-ctx.Done()
	if err := yield(rotation.Material{}); err == nil {
		return errors.New("yield after the end")
	}
	return errors.New("closing: disk full")
}

type quietSource struct{}

func (quietSource) Watch(ctx context.Context, _ func(rotation.Material) error) error {
	<-ctx.Done()
	return nil
}

// TestMergeFiles expects in Status the watch mode of two file sources: the worse one of
// both.
func TestMergeFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, "ca")
		dir := t.TempDir()
		f := write(t, dir, ca.leaf(t, "svc", nil))
		own := &fakeNotifier{Wake: make(chan struct{}, 1)}
		var eased atomic.Bool
		openTrust := func() (*fakeNotifier, error) {
			if !eased.Load() {
				return nil, errors.New("no inotify")
			}
			return &fakeNotifier{}, nil
		}
		id := open(t, rotation.Merge(
			filesNotified(files.Set{Cert: f.Cert, Key: f.Key}, func() (*fakeNotifier, error) { return own, nil }),
			filesNotified(files.Set{CA: f.CA}, openTrust),
		), 0)
		defer func() { _ = id.Close() }()
		if st := id.Status(); st.WatchMode != "poll" || st.WatchError != "trust: no inotify" {
			t.Errorf("mode %q, %q", st.WatchMode, st.WatchError)
		}
		eased.Store(true)
		time.Sleep(31 * time.Second)
		if st := id.Status(); st.WatchMode != "notify+poll" || st.WatchError != "" {
			t.Errorf("recovered: mode %q, %q", st.WatchMode, st.WatchError)
		}
		must(t, os.Remove(f.Cert))
		must(t, os.Remove(f.CA))
		wake(own)
		time.Sleep(35 * time.Second)
		if e := id.Status().LastError; !strings.Contains(e, "identity: ") || !strings.Contains(e, "; trust: ") {
			t.Errorf("both fail: %q", e)
		}
		put(t, f.CA, pemfile.EncodeCertificates(id.Current().Roots()))
		time.Sleep(2 * time.Second)
		if e := id.Status().LastError; !strings.Contains(e, "identity: ") || strings.Contains(e, "trust: ") {
			t.Errorf("identity fails: %q", e)
		}
		m := ca.leaf(t, "svc", nil)
		put(t, f.Cert, chainPEM(t, m))
		put(t, f.Key, keyPEM(t, m))
		time.Sleep(2 * time.Second)
		if st := id.Status(); st.LastError != "" || serial(id) != m.Certificate.Leaf.SerialNumber.String() {
			t.Errorf("both recovered: %+v", st)
		}
	})
}

// TestMergeJoins expects that Close returns while both sides are busy. A goroutine that
// is left would fail the bubble.
func TestMergeJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, "ca")
		dir := filepath.Join(t.TempDir(), "tls")
		n := &fakeNotifier{Wake: make(chan struct{}, 1)}
		files := filesNotified(makeLinked(t, dir, ca.leaf(t, "svc", nil)), func() (*fakeNotifier, error) { return n, nil })
		id := open(t, rotation.Merge(files, rotation.Static(ca.leaf(t, "svc", nil))), 0)
		swapLinked(t, dir, ca.leaf(t, "svc", nil))
		wake(n)
		time.Sleep(7 * time.Millisecond) // between its two readings
		_ = id.Close()
		if err := id.Reload(t.Context()); !errors.Is(err, rotation.ErrClosed) {
			t.Errorf("Reload after Close: %v", err)
		}
	})
}

// renewing is a source that knows when it renews.
type renewing struct {
	*pushed
	at time.Time
}

func (r renewing) NextRenewal() time.Time { return r.at }

// TestNextRenewal: Status passes on what the source plans, also through Merge.
func TestNextRenewal(t *testing.T) {
	ca := newCA(t, "ca")
	at := time.Now().Add(time.Hour)
	src := renewing{newPushed(ca.leaf(t, "svc", nil)), at}
	if got := open(t, src, 0).Status().NextRenewal; !got.Equal(at) {
		t.Errorf("next renewal %s, want %s", got, at)
	}
	trust := rotation.Static(rotation.Material{Roots: []*x509.Certificate{ca.root}})
	if got := open(t, rotation.Merge(src, trust), 0).Status().NextRenewal; !got.Equal(at) {
		t.Errorf("merged: next renewal %s, want %s", got, at)
	}
	if got := open(t, rotation.Merge(src.pushed, trust), 0).Status().NextRenewal; !got.IsZero() {
		t.Errorf("a source that does not know: %s", got)
	}
}
