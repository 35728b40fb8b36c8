package serving_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
)

// manager listens as a service manager does, with a watchdog.
func manager(t *testing.T, watchdog time.Duration) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", strconv.FormatInt(watchdog.Microseconds(), 10))
	t.Setenv("WATCHDOG_PID", "")
	return conn
}

// message returns the next message, "" if none comes within a time.
func message(t *testing.T, conn *net.UnixConn, within time.Duration) string {
	t.Helper()
	b := make([]byte, 4096)
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	n, err := conn.Read(b)
	if netErr, ok := errors.AsType[net.Error](err); err != nil && (!ok || !netErr.Timeout()) {
		t.Fatal(err)
	}
	return string(b[:n])
}

// TestNotify: a service that is not ready lives, and one that is stuck does not.
func TestNotify(t *testing.T) {
	conn := manager(t, 60*time.Millisecond)
	ctx, stop := context.WithCancel(t.Context())
	var down, away, stuck atomic.Bool
	release := make(chan struct{})
	ended := make(chan error)
	go func() {
		ended <- serving.Notify(ctx, slog.New(slog.DiscardHandler), func(ctx context.Context) error {
			if away.Load() {
				<-ctx.Done()
				return ctx.Err()
			}
			if stuck.Load() {
				<-release
			}
			if down.Load() {
				return errors.New("the database is away\nREADY=1")
			}
			return nil
		})
	}()
	const long = time.Minute
	if got := message(t, conn, long); got != "READY=1\nSTATUS=ready" {
		t.Errorf("first %q", got)
	}
	if got := message(t, conn, long); got != "WATCHDOG=1\nSTATUS=ready" {
		t.Errorf("then %q", got)
	}
	down.Store(true)
	until(t, conn, "WATCHDOG=1\nSTATUS=not ready: the database is away READY=1")
	away.Store(true)
	until(t, conn, "WATCHDOG=1\nSTATUS=not ready: context deadline exceeded")
	away.Store(false)
	stuck.Store(true)
	for n := 0; message(t, conn, 300*time.Millisecond) != ""; n++ {
		if n > 1000 {
			t.Fatal("a service that is stuck goes on to say that it lives")
		}
	}
	close(release)
	stop()
	until(t, conn, "STOPPING=1")
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// until reads messages up to one that is want.
func until(t *testing.T, conn *net.UnixConn, want string) {
	t.Helper()
	for range 1000 {
		if got := message(t, conn, time.Minute); got == want || got == "" {
			if got == "" {
				break
			}
			return
		}
	}
	t.Errorf("no message %q", want)
}

// TestNotifyWithoutManager: nothing is told, and the service runs.
func TestNotifyWithoutManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "no number")
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := serving.Notify(ctx, slog.New(slog.DiscardHandler), func(context.Context) error { return nil }); err != nil {
		t.Error(err)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	if err := serving.Notify(ctx, slog.New(slog.DiscardHandler), func(context.Context) error { return nil }); err != nil {
		t.Errorf("a service manager that is away: %v", err)
	}
}
