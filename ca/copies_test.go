package ca_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// TestCopiesLag runs two clients on copies of one directory. One of them cannot take the new
// bundle: the status names the service, and the root is not activated until both have it.
func TestCopiesLag(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	dirs := []string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")}
	cfg := enroll.Config{
		URL: c.URL, Dir: dirs[0], RootFingerprint: c.RootFingerprint, TrustRefresh: 2 * time.Second, Logger: slog.New(slog.DiscardHandler),
		Token: func(context.Context) (secret.String, error) { return c.Token(t, "storage", "storage"), nil },
	}
	if _, err := enroll.Issue(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dirs[1], os.DirFS(dirs[0])); err != nil {
		t.Fatal(err)
	}
	var refuses atomic.Bool
	refuses.Store(true)
	follow(t, cfg, func(rotation.Material) error { return nil })
	cfg.Dir = dirs[1]
	follow(t, cfg, func(m rotation.Material) error {
		if refuses.Load() && len(m.Roots) > 1 {
			return errors.New("the program cannot take this bundle")
		}
		return nil
	})
	awaitWatchers(t, c, 2)
	c.AddRoot(t)
	lags := awaitStaged(t, c, func(r stepapi.RootStatus) bool {
		return len(r.Without) == 1 && strings.Contains(r.Without[0].Reason, "1 of 2 processes")
	})
	_, err := c.Authority.ChangeTrust(t.Context(), "operator", ca.TrustChange{Step: stepapi.StepActivate})
	if cut, ok := errors.AsType[*ca.CutOffError](err); !ok || len(cut.Holders) != 1 || cut.Holders[0].Reason != lags.Without[0].Reason {
		t.Errorf("activating: %v", err)
	}
	refuses.Store(false)
	awaitStaged(t, c, func(r stepapi.RootStatus) bool { return len(r.Without) == 0 && r.Trusting == 1 })
	c.ChangeTrust(t, ca.TrustChange{Step: stepapi.StepActivate})
	c.Check(t)
}

// TestRestartIsNoCopy: a service that ends while a root is added, and starts again on the same
// directory, has adopted the root when it says so: what it reported before counts no more.
func TestRestartIsNoCopy(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux numbers its boots: elsewhere a process that has ended counts until its next report is overdue")
	}
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	cfg := enroll.Config{
		URL: c.URL, Dir: t.TempDir(), RootFingerprint: c.RootFingerprint, Logger: slog.New(slog.DiscardHandler),
		Token: func(context.Context) (secret.String, error) { return c.Token(t, "storage", "storage"), nil },
	}
	stop := follow(t, cfg, func(rotation.Material) error { return nil })
	awaitWatchers(t, c, 1)
	stop()
	c.AddRoot(t)
	awaitStaged(t, c, func(r stepapi.RootStatus) bool {
		return len(r.Without) == 1 && r.Without[0].Reason == "has reported another bundle"
	})
	follow(t, cfg, func(rotation.Material) error { return nil })
	awaitStaged(t, c, func(r stepapi.RootStatus) bool { return len(r.Without) == 0 && r.Trusting == 1 })
}

// follow runs a client until stop is called or the test ends.
func follow(t *testing.T, cfg enroll.Config, yield func(rotation.Material) error) (stop func()) {
	t.Helper()
	src, err := enroll.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- src.Watch(ctx, yield) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the client ended: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// awaitStaged waits until the staged root is as wanted.
func awaitStaged(t *testing.T, c *catest.CA, wanted func(stepapi.RootStatus) bool) stepapi.RootStatus {
	t.Helper()
	var last stepapi.TrustStatus
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var err error
		if last, err = c.Authority.TrustStatus(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, r := range last.Roots {
			if r.Stage == stepapi.StageStaged && wanted(r) {
				return r
			}
		}
	}
	t.Fatalf("the staged root is never as wanted: %+v", last.Roots)
	return stepapi.RootStatus{}
}
