package enroll_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// jumpingClock is a clock that jumps while timers do not, like that of a machine that
// was suspended, or whose clock was set.
type jumpingClock struct{ ahead atomic.Int64 }

func (w *jumpingClock) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

// jump moves the wall clock of everyone: here a machine sleeps, and the world goes on.
func (w *jumpingClock) jump(a *authority, d time.Duration) {
	w.ahead.Add(int64(d))
	a.mu.Lock()
	defer a.mu.Unlock()
	a.shift = time.Duration(w.ahead.Load())
}

// handshake makes a mutual TLS connection between two holders of m at that time.
func handshake(m rotation.Material, now func() time.Time) error {
	pool := x509.NewCertPool()
	for _, r := range m.Roots {
		pool.AddCert(r)
	}
	here, there := newPipe()
	client := tls.Client(here, &tls.Config{Time: now, MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: "ingester", Certificates: []tls.Certificate{m.Certificate}})
	server := tls.Server(there, &tls.Config{
		Time: now, MinVersion: tls.VersionTLS13, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, Certificates: []tls.Certificate{m.Certificate},
	})
	served := make(chan error, 1)
	go func() {
		_, err := io.CopyN(server, server, 1) // the handshake, then an echo
		_ = there.Close()
		served <- err
	}()
	_, err := client.Write([]byte("x"))
	if err == nil {
		_, err = io.ReadFull(client, make([]byte, 1)) // fails if the server refuses the client
	}
	_ = here.Close()
	return errors.Join(err, <-served)
}

// TestDayOfJumps runs a day with certificates of 15 minutes. The machine is suspended
// for minutes and for hours, the clock is set, and the authority is away. At each minute
// around these events a real handshake is made. It fails only when no certificate could
// be obtained, and not later than one tick after all is back.
func TestDayOfJumps(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const life = 15 * time.Minute
		var clock jumpingClock
		w := newWorld(t, life)
		w.ca.grace = 3 * life
		src := w.source()
		src.SetClock(clock.now)
		stop := w.watch(src)
		excused := time.Time{}                      // failures are none until then
		for minute := 1; minute <= 1000; minute++ { // and 17 hours more by the wall clock
			time.Sleep(time.Minute)
			now := w.ca.now()
			switch minute {
			case 100, 400, 900: // asleep within the life
				clock.jump(w.ca, 11*time.Minute)
				excused = now.Add(11*time.Minute + enrollTick)
			case 200, 800: // asleep beyond the life, and its grace: the token is the way
				w.setToken(w.ca.token("ingester", "ingester"))
				clock.jump(w.ca, 8*time.Hour)
				excused = now.Add(8*time.Hour + enrollTick)
			case 300: // the clock is set back by what it was ahead
				clock.ahead.Add(int64(-3 * time.Minute))
			case 305:
				clock.ahead.Add(int64(3 * time.Minute))
			case 500: // an outage that allows it
				w.net.setDown(true)
			case 504:
				w.net.setDown(false)
			case 600: // one that does not
				w.net.setDown(true)
			case 620:
				w.net.setDown(false)
				excused = now.Add(28*time.Second + time.Minute) // the next attempt
			}
			if minute%100 > 30 && minute%15 > 0 { // nothing happens: a handshake now and then
				continue
			}
			down := minute >= 600 && minute < 620
			world := w.ca.now() // not the clock that was set
			if err := handshake(w.last(), func() time.Time { return world }); err != nil && !down && world.After(excused) {
				t.Errorf("minute %d: %v; status %+v", minute, err, src.Status())
			}
		}
		stop()
		if n := w.ca.count(stepapi.PathSign); n != 3 {
			t.Errorf("%d enrolments, want the first and two after the long sleeps", n)
		}
		if t.Failed() {
			t.Log(w.log.String())
		}
	})
}

// enrollTick is the tick of a 15-minute certificate: how late a jump is noticed.
var enrollTick = enroll.Tick(15 * time.Minute)

// realWorld puts the project's own authority, with its record on disk, into the
// bubble: on a listener without the kernel.
func realWorld(t *testing.T) (a *ca.Authority, net *network, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "ca")
	if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, DNSNames: []string{caHost}, PlainKeys: true, Profiles: map[string]policy.Profile{"ingester": {Names: []string{"ingester"}}}}); err != nil {
		t.Fatal(err)
	}
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return a, newNetwork(), dir
}

// serveReal feeds the listener with the authority's own certificate until stop is called.
func serveReal(t *testing.T, a *ca.Authority, net *network) (stop func()) {
	t.Helper()
	var conf atomic.Pointer[tls.Config]
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() {
		done <- a.Watch(ctx, func(id ca.ServerIdentity) error {
			pool := x509.NewCertPool()
			for _, r := range id.Roots {
				pool.AddCert(r)
			}
			conf.Store(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{id.Certificate}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool})
			return nil
		})
	}()
	synctest.Wait()
	srv := &http.Server{Handler: a.Handler(), ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	go func() {
		done <- srv.Serve(tls.NewListener(net, &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return conf.Load(), nil }}))
	}()
	return func() {
		cancel()
		_ = srv.Close()
		<-done
		<-done
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestOutagesOfRealAuthority takes the authority of this project away for six hours
// around the time of renewal, and for longer than a life. A certificate of a day does
// not expire in the first outage, and needs no token after the second.
func TestOutagesOfRealAuthority(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, net, dir := realWorld(t)
		defer serveReal(t, a, net)()
		token, err := ca.StateDir(dir).NewToken(t.Context(), ca.TokenOptions{Service: "ingester"})
		if err != nil {
			t.Fatal(err)
		}
		src, err := enroll.New(enroll.Config{
			URL: "https://" + caHost, Dir: filepath.Join(t.TempDir(), "identity"), DialContext: net.DialContext, Token: once(token), Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		id, err := rotation.Open(t.Context(), rotation.Config{Source: src, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = id.Close() }()
		first := id.Current().Leaf()
		time.Sleep(14 * time.Hour)
		net.setDown(true)
		time.Sleep(6 * time.Hour)
		if left := time.Until(id.Current().Leaf().NotAfter); left <= 0 || !id.Current().Leaf().Equal(first) {
			t.Errorf("%v left at the end of the outage", left)
		}
		net.setDown(false)
		time.Sleep(20*time.Minute + time.Second) // the longest step
		if id.Current().Leaf().Equal(first) {
			t.Errorf("not renewed within the longest step: %+v", src.Status())
		}
		second := id.Current().Leaf()
		net.setDown(true)
		time.Sleep(time.Until(second.NotAfter) + 20*time.Hour)
		net.setDown(false)
		time.Sleep(5*time.Minute + time.Second) // the longest step when it is over
		if third := id.Current().Leaf(); third.Equal(second) || time.Until(third.NotAfter) < 23*time.Hour {
			t.Errorf("not renewed within the grace: %+v", src.Status())
		}
		time.Sleep(61 * time.Minute) // the trust bundle comes within 66 minutes, as ever
		if st := src.Status(); st.RevokedLists != 2 || st.RevokedFailures+st.RenewalFailures != 0 {
			t.Errorf("status %+v", st)
		}
	})
}
