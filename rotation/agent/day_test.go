package agent_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation/agent"
)

// bubble is a real authority on a network in memory, which can be away.
type bubble struct {
	t         *testing.T
	authority *ca.Authority
	dir       ca.StateDir
	network   *pkitest.Network
	current   atomic.Pointer[tls.Config]
	print     string // of the root
	away      atomic.Bool

	mu    sync.Mutex
	dials map[string][]time.Time // by identity
}

func newBubble(t *testing.T, life time.Duration) *bubble {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ca")
	made, err := setup.Init(t.Context(), setup.Options{Dir: dir, LeafLifetime: life, PlainKeys: true, DNSNames: []string{"ca.example"}})
	if err != nil {
		t.Fatal(err)
	}
	b := &bubble{t: t, network: pkitest.NewNetwork(), dir: ca.StateDir(dir), print: made.RootFingerprint, dials: map[string][]time.Time{}}
	if b.authority, err = ca.Open(t.Context(), ca.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	return b
}

// serve answers until ctx ends.
func (b *bubble) serve(ctx context.Context) (wait func()) {
	var work sync.WaitGroup
	ready := make(chan struct{}, 1)
	work.Go(func() {
		_ = b.authority.Watch(ctx, func(id ca.ServerIdentity) error { // the error of ctx
			b.current.Store(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{id.Certificate}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: certs.Pool(id.Roots...), NextProtos: []string{"http/1.1"}})
			select {
			case ready <- struct{}{}:
			default:
			}
			return nil
		})
	})
	<-ready
	work.Go(func() {
		_ = httpserver.Serve(ctx, b.network, httpserver.Config{ // the error of ctx
			Handler: b.authority.Handler(), Logger: slog.New(slog.DiscardHandler),
			TLS: &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return b.current.Load(), nil }},
		})
	})
	return work.Wait
}

// dial returns the dialer of one identity.
func (b *bubble) dial(name string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		b.mu.Lock()
		b.dials[name] = append(b.dials[name], time.Now())
		b.mu.Unlock()
		if b.away.Load() {
			return nil, errors.New("connection refused")
		}
		return b.network.Dial(ctx, network, address)
	}
}

// token makes an enrolment token.
func (b *bubble) token(service string) string {
	b.t.Helper()
	token, err := b.dir.NewToken(b.t.Context(), ca.TokenOptions{Service: service})
	if err != nil {
		b.t.Fatal(err)
	}
	return token.Expose()
}

// dialsOf returns when an identity has connected after a moment.
func (b *bubble) dialsOf(name string, after time.Time) (out []time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, at := range b.dials[name] {
		if at.After(after) {
			out = append(out, at)
		}
	}
	return out
}

// TestAuthorityAwayForADay: for hours, and for a day, nobody answers. From a minute after the
// first failure on, an identity connects once in 30 s at most, whatever it wants. After the outage
// all have a new certificate: within 5 min if the certificate has expired, and within 20 min if not.
func TestAuthorityAwayForADay(t *testing.T) {
	for outage, spread := range map[time.Duration]time.Duration{24 * time.Hour: 5 * time.Minute, 8 * time.Hour: 20 * time.Minute} {
		t.Run(outage.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { awayFor(t, outage, spread) })
		})
	}
}

func awayFor(t *testing.T, outage, spread time.Duration) {
	const identities = 3
	b := newBubble(t, 24*time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	wait := b.serve(ctx)
	dir := t.TempDir()
	agents := map[string]*agent.Agent{}
	var running sync.WaitGroup
	for n := range identities {
		name := fmt.Sprintf("id-%d", n)
		i := agent.Identity{Name: name, Dir: filepath.Join(dir, name), TokenFile: filepath.Join(dir, name+".token"), URL: "https://ca.example", RootFingerprint: b.print}
		(&world{t: t}).write(i.TokenFile, b.token("ingester"))
		a, err := agent.New(agent.Config{Identities: []agent.Identity{i}}, agent.Options{DialContext: b.dial(name), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		agents[name] = a
		running.Go(func() { _ = a.Run(ctx) }) // the error of ctx
	}
	time.Sleep(time.Hour)
	before := map[string]string{}
	for name, a := range agents {
		if s := a.Status().Identities[0]; delivered(s) {
			before[name] = s.Serial
		} else {
			t.Fatalf("%s: %+v", name, s)
		}
	}
	time.Sleep(10 * time.Hour) // before the first of them renews
	b.away.Store(true)
	begin := time.Now()
	time.Sleep(outage)
	for name := range agents {
		b.checkPace(name, begin)
	}
	b.away.Store(false)
	back := time.Now()
	var healed []time.Duration
	for len(healed) < identities && time.Since(back) < 2*time.Hour {
		time.Sleep(time.Second)
		for name, a := range agents {
			if s := a.Status().Identities[0]; before[name] != "" && s.Serial != before[name] && delivered(s) {
				healed, before[name] = append(healed, time.Since(back)), ""
			}
		}
	}
	t.Logf("healed after %v", healed)
	if len(healed) < identities || healed[identities-1] > spread+2*time.Second {
		t.Errorf("%d of %d have healed", len(healed), identities)
	}
	cancel()
	running.Wait()
	wait()
	if err := b.authority.Close(); err != nil {
		t.Error(err)
	}
}

// checkPace judges the connections of an identity since the begin of an outage.
func (b *bubble) checkPace(name string, begin time.Time) {
	b.t.Helper()
	dials := b.dialsOf(name, begin)
	closest, most := time.Hour, 0
	for n, oldest := 1, 0; n < len(dials); n++ {
		for dials[n].Sub(dials[oldest]) >= 10*time.Minute {
			oldest++
		}
		most = max(most, n-oldest+1)
		if dials[n-1].Sub(dials[0]) > time.Minute {
			closest = min(closest, dials[n].Sub(dials[n-1]))
		}
	}
	b.t.Logf("%s: %d connections in the outage, at least %v apart, at most %d in ten minutes", name, len(dials), closest, most)
	if closest < 30*time.Second || most > 20 {
		b.t.Errorf("%s connects more than once in 30 s", name)
	}
}
