package agent_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation/agent"
)

// program is a TLS server that reads its files when it is told to, as nginx does.
type program struct {
	t       *testing.T
	address string
	cert    atomic.Pointer[tls.Certificate]
}

// newProgram listens. It has no certificate before the first reload.
func newProgram(t *testing.T) *program {
	t.Helper()
	p := &program{t: t}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.address = ln.Addr().String()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_ = tls.Server(c, &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.cert.Load(), nil }}).Handshake()
			}()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return p
}

func (p *program) reload(dir string) {
	p.t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		p.t.Fatal(err)
	}
	p.cert.Store(&pair)
}

// reloader is a hook that reads DIR when the shell command of the hook has made a file.
func (p *program) reloader(ctx context.Context, dir, flag string, broken *atomic.Bool) {
	for ctx.Err() == nil {
		if os.Remove(flag) == nil && !broken.Load() {
			p.reload(dir)
		}
		pause(5 * time.Millisecond)
	}
}

// program adds an identity for a program that reads its files when its hook says so, unless it is
// broken.
func (w *world) program(name string) (*program, *atomic.Bool) {
	w.t.Helper()
	p, flag := newProgram(w.t), filepath.Join(w.dir, "reload")
	broken := new(atomic.Bool)
	i := w.identity(name, func(i *agent.Identity) {
		i.Hook = &agent.Hook{Command: []string{"touch", flag}, Timeout: time.Minute, Settle: 300 * time.Millisecond}
		i.Serves = []agent.Address{{Address: p.address}}
	})
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.reloader(ctx, i.Dir, flag, broken) }()
	w.t.Cleanup(func() { cancel(); <-done })
	return p, broken
}

// TestAlarm: a program that does not read its files is an alarm, and is told again until it does.
func TestAlarm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, catest.Options{})
	_, broken := w.program("ingester")
	a, _ := w.run()
	proved := func(s agent.IdentityStatus) bool { return delivered(s) && s.Delivery.Proved }
	first := w.await(a, "ingester", "proved", proved)
	broken.Store(true)
	if err := a.Renew(t.Context(), "ingester"); err != nil {
		t.Fatal(err)
	}
	s := w.await(a, "ingester", "an alarm", func(s agent.IdentityStatus) bool { return s.Delivery.Alarm })
	if want := "it serves certificate " + first.Serial + ", not " + s.Serial; !strings.Contains(s.Problem, want) || !strings.Contains(s.Delivery.Serves[0].Error, want) {
		t.Errorf("problem %q, want %q", s.Problem, want)
	}
	if s.Delivery.HookRuns < 3 || s.Delivery.HookFailed != 0 {
		t.Errorf("the hook ran %d times, %d failed", s.Delivery.HookRuns, s.Delivery.HookFailed)
	}
	if got := strings.Count(w.log.String(), "level=ERROR"); got != 1 {
		t.Errorf("%d errors in the log:\n%s", got, w.log.String())
	}
	if err := a.Renew(t.Context(), "ingester"); err != nil {
		t.Fatal(err)
	}
	newer := w.await(a, "ingester", "a failure with a newer set", func(n agent.IdentityStatus) bool {
		return n.Serial != s.Serial && strings.HasSuffix(n.Delivery.Error, "not "+n.Serial)
	})
	if d := newer.Delivery; !d.Alarm || d.Failures <= s.Delivery.Failures {
		t.Errorf("a newer set has ended the alarm: %+v", d)
	}
	broken.Store(false)
	w.await(a, "ingester", "the end of the alarm", func(s agent.IdentityStatus) bool { return proved(s) && !s.Delivery.Alarm && s.Serial != first.Serial })
}

// TestAuthorityLearnsOfDelivery: a certificate that is proved to be served is so in the record of the
// authority, and one that is not is not. The proof is told again when the source begins anew.
func TestAuthorityLearnsOfDelivery(t *testing.T) {
	t.Parallel()
	w := newWorld(t, catest.Options{})
	p, broken := w.program("ingester")
	a, _ := w.run()
	w.await(a, "ingester", "proved", delivered)
	first := w.awaitServed(p.leaf())
	if first.Address != p.address || first.Servers != 1 || time.Since(first.Since) > time.Hour {
		t.Errorf("the record has %+v", first)
	}
	broken.Store(true)
	if err := a.Renew(t.Context(), "ingester"); err != nil {
		t.Fatal(err)
	}
	w.await(a, "ingester", "an alarm", func(s agent.IdentityStatus) bool { return s.Delivery.Alarm })
	newest := newestLeaf(t, w.cfg.Identities[0].Dir)
	if again := w.recorded(newest); again != nil {
		t.Errorf("a certificate that no server serves is recorded as served: %+v", again)
	}
	if again := w.recorded(p.leaf()); again == nil || !again.Since.Equal(first.Since) {
		t.Errorf("the one before is %+v, and was %+v", again, first)
	}
	broken.Store(false)
	w.await(a, "ingester", "the end of the alarm", delivered)
	if second := w.awaitServed(newest); second.Since.Before(first.Since) {
		t.Errorf("the next one is %+v, after %+v", second, first)
	}
	w.ca.Check(t)
}

// TestOnceReports: a run without a daemon reports what it has proved before it ends, and an authority that is
// away is no failure of it.
func TestOnceReports(t *testing.T) {
	t.Parallel()
	var refuse atomic.Int64
	w := newWorld(t, catest.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if status := int(refuse.Load()); status != 0 && r.URL.Path == stepapi.Prefix+stepapi.PathWatch {
				rw.WriteHeader(status)
				return
			}
			next.ServeHTTP(rw, r)
		})
	}})
	p, _ := w.program("ingester")
	for _, status := range []int64{http.StatusNotFound, http.StatusBadGateway, 0} {
		refuse.Store(status)
		if err := w.agent().Once(t.Context()); err != nil {
			t.Fatalf("status %d: %v", status, err)
		}
		if d := w.recorded(p.leaf()); (d != nil) != (status == 0) {
			t.Errorf("status %d: recorded %+v", status, d)
		}
		if said := strings.Contains(w.log.String(), "the authority was not told what is served"); said != (status != http.StatusNotFound) {
			t.Errorf("status %d: log\n%s", status, w.log.String())
		}
	}
	if d := w.recorded(p.leaf()); d != nil && d.Address != p.address {
		t.Errorf("recorded %+v", d)
	}
	w.ca.Check(t)
}

// leaf is the certificate that the program serves.
func (p *program) leaf() *x509.Certificate { return p.cert.Load().Leaf }

func newestLeaf(t *testing.T, dir string) *x509.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

// recorded returns what the record of the authority has of the delivery of a certificate.
func (w *world) recorded(leaf *x509.Certificate) *record.Delivery {
	w.t.Helper()
	rec, err := ca.StateDir(w.ca.Dir).OpenRecord(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = rec.Close() }() // read only
	c, err := rec.Show(w.t.Context(), leaf.SerialNumber.String())
	if err != nil {
		w.t.Fatal(err)
	}
	return c.Served
}

// awaitServed waits until the record has a delivery of a certificate.
func (w *world) awaitServed(leaf *x509.Certificate) *record.Delivery {
	w.t.Helper()
	for limit := time.Now().Add(patience); ; pause(20 * time.Millisecond) {
		if d := w.recorded(leaf); d != nil {
			return d
		}
		if time.Now().After(limit) {
			w.t.Fatalf("the authority has not heard of it; log:\n%s", w.log.String())
		}
	}
}

// TestHookIsRetried: a hook that fails is owed until it succeeds, also over a restart.
func TestHookIsRetried(t *testing.T) {
	t.Parallel()
	w := newWorld(t, catest.Options{})
	allowed, runs := filepath.Join(w.dir, "allowed"), filepath.Join(w.dir, "runs")
	w.identity("ingester", func(i *agent.Identity) {
		i.Hook = &agent.Hook{Command: []string{"sh", "-c", "echo x >>" + runs + "; test -e " + allowed + " || { echo unit is masked >&2; exit 4; }"}, Timeout: time.Minute}
	})
	failing := func(s agent.IdentityStatus) bool { return s.Delivery.State == "failed" }
	a, stop := w.run()
	s := w.await(a, "ingester", "a failure", failing)
	if !strings.Contains(s.Problem, "running sh: exit status 4: unit is masked") || s.Delivery.HookFailed == 0 {
		t.Errorf("status %+v", s)
	}
	w.await(a, "ingester", "an alarm", func(s agent.IdentityStatus) bool { return s.Delivery.Alarm })
	stop()
	a, stop = w.run()
	w.await(a, "ingester", "the failure after a restart", failing)
	w.write(allowed, "")
	w.await(a, "ingester", "delivered", delivered)
	stop()
	before, err := os.ReadFile(runs)
	if err != nil {
		t.Fatal(err)
	}
	a, _ = w.run()
	w.await(a, "ingester", "the same after a restart", delivered)
	if after, err := os.ReadFile(runs); err != nil || len(after) != len(before) {
		t.Errorf("the hook ran for a set that is delivered: %v", err)
	}
}

// TestHangingHook: its time limit ends it, and the status says so.
func TestHangingHook(t *testing.T) {
	t.Parallel()
	w := newWorld(t, catest.Options{})
	w.identity("ingester", func(i *agent.Identity) {
		i.Hook = &agent.Hook{Command: []string{"sleep", "600"}, Timeout: 100 * time.Millisecond}
	})
	a, _ := w.run()
	s := w.await(a, "ingester", "a failure", func(s agent.IdentityStatus) bool { return s.Delivery.State == "failed" })
	if !strings.Contains(s.Problem, "ended by its time limit of 100ms") {
		t.Errorf("problem %q", s.Problem)
	}
}

// TestForeignServer: what answers at the port is not TLS, or nothing answers.
func TestForeignServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, catest.Options{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("SSH-2.0-OpenSSH\r\n"))
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close() })
	w.identity("ingester", func(i *agent.Identity) {
		i.Serves = []agent.Address{{Address: ln.Addr().String()}, {Address: "127.0.0.1:1"}}
		i.Hook = &agent.Hook{Command: []string{"true"}, Timeout: time.Minute, Settle: time.Millisecond}
	})
	a, _ := w.run()
	s := w.await(a, "ingester", "an alarm", func(s agent.IdentityStatus) bool { return s.Delivery.Alarm })
	if !strings.Contains(s.Delivery.Serves[0].Error, "first record does not look like a TLS handshake") || !strings.Contains(s.Delivery.Serves[1].Error, "connection refused") {
		t.Errorf("serves %+v", s.Delivery.Serves)
	}
	if strings.Contains(s.Problem, "\n") {
		t.Errorf("more than one line: %q", s.Problem)
	}
}
