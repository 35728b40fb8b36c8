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

// TestAuthorityAwayForADay: for a day nobody answers. Each identity asks at most once in 30 s on
// average of any hour, and after the outage all have a new certificate within their spread.
func TestAuthorityAwayForADay(t *testing.T) {
	const (
		identities = 3
		life       = 24 * time.Hour
		outage     = 24 * time.Hour
		spread     = life / 20 // of enroll, for the attempts of a fleet after an outage
	)
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, life)
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
		most, worst := 0, ""
		for name := range agents {
			dials := b.dialsOf(name, begin.Add(time.Minute)) // the connections of before have to be made again
			t.Logf("%s: %d connections in the outage", name, len(dials))
			for from, to := 0, 0; from < len(dials); from++ {
				for to < len(dials) && dials[to].Sub(dials[from]) < time.Hour {
					to++
				}
				if to-from > most {
					most, worst = to-from, name
				}
			}
		}
		t.Logf("most connections of one identity in an hour: %d (%s)", most, worst)
		if most > 120 {
			t.Errorf("%s connects %d times in an hour, more than once in 30 s", worst, most)
		}
		b.away.Store(false)
		back := time.Now()
		var healed []time.Duration
		for len(healed) < identities && time.Since(back) < 2*time.Hour {
			time.Sleep(10 * time.Second)
			for name, a := range agents {
				if s := a.Status().Identities[0]; before[name] != "" && s.Serial != before[name] && delivered(s) {
					healed, before[name] = append(healed, time.Since(back)), ""
				}
			}
		}
		t.Logf("healed after %v", healed)
		if len(healed) < identities || healed[identities-1] > spread {
			t.Errorf("%d of %d have healed", len(healed), identities)
		}
		cancel()
		running.Wait()
		wait()
		if err := b.authority.Close(); err != nil {
			t.Error(err)
		}
	})
}
