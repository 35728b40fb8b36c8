package enroll_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// dials counts the connections of one source.
type dials struct {
	net *network
	mu  sync.Mutex
	at  []time.Time
}

func (d *dials) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d.mu.Lock()
	d.at = append(d.at, time.Now())
	d.mu.Unlock()
	return d.net.DialContext(ctx, network, address)
}

// from returns the connections from a moment on: how many, the shortest time between two of them
// that come more than a minute after the first, and the most in ten minutes.
func (d *dials) from(begin time.Time) (n int, closest time.Duration, most int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := slices.DeleteFunc(slices.Clone(d.at), func(at time.Time) bool { return at.Before(begin) })
	closest = time.Hour
	for i, oldest := 1, 0; i < len(at); i++ {
		for at[i].Sub(at[oldest]) >= 10*time.Minute {
			oldest++
		}
		most = max(most, i-oldest+1)
		if at[i-1].Sub(at[0]) > time.Minute {
			closest = min(closest, at[i].Sub(at[i-1]))
		}
	}
	return len(at), closest, most
}

// TestOutageIsPaced takes the real authority away for a day, and longer than the certificate lives.
// From a minute after the first failure on, two connections of an identity are 30 s apart, of
// whatever kinds they are, and with that minute there are 20 in ten minutes at most. When the authority is back, the certificate is renewed and the revoked lists are fetched
// within 5 min. A source that starts meanwhile, with the expired certificate or with none, keeps to
// the same.
func TestOutageIsPaced(t *testing.T) {
	t.Parallel()
	for name, pollOnly := range map[string]bool{"watch": false, "poll": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, net, dir := realWorld(t)
				defer serveReal(t, a, net)()
				start := func(at string) (*enroll.Source, *dials, func() *rotation.Identity) {
					token := func(ctx context.Context) (secret.String, error) { // one that has not expired
						return ca.StateDir(dir).NewToken(ctx, ca.TokenOptions{Service: "ingester"})
					}
					d := &dials{net: net}
					src, err := enroll.New(enroll.Config{
						URL: "https://" + caHost, Dir: at, DialContext: d.DialContext, Token: token, PollOnly: pollOnly, Logger: slog.New(slog.DiscardHandler),
					})
					if err != nil {
						t.Fatal(err)
					}
					opened := make(chan *rotation.Identity, 1)
					go func() {
						id, err := rotation.Open(t.Context(), rotation.Config{Source: src, Logger: slog.New(slog.DiscardHandler)})
						if err != nil {
							t.Errorf("%s: %v", at, err)
						}
						opened <- id
					}()
					return src, d, sync.OnceValue(func() *rotation.Identity { return <-opened })
				}
				home := t.TempDir()
				src, d, opened := start(filepath.Join(home, "running"))
				id := opened()
				defer func() { _ = id.Close() }()
				first := id.Current().Leaf()
				time.Sleep(14 * time.Hour)
				net.setDown(true)
				began, before := time.Now(), src.Status().WatchFailures // the server of this test holds none
				time.Sleep(24 * time.Hour)
				late, few, enrolled := start(filepath.Join(home, "late"))
				time.Sleep(6 * time.Hour)
				st := src.Status()
				t.Logf("requests in 30 h: %d renewals, %d bundles, %d lists, %d to be held", st.RenewalFailures, st.TrustFailures, st.RevokedFailures, st.WatchFailures-before)
				for what, d := range map[string]*dials{"30 h": d, "6 h before the first certificate": few} {
					n, closest, most := d.from(began)
					t.Logf("%s: %d connections, at least %v apart, at most %d in ten minutes", what, n, closest, most)
					if closest < 30*time.Second || most > 20 {
						t.Errorf("%s: too many", what)
					}
				}
				net.setDown(false)
				back := time.Now()
				for id.Current().Leaf().Equal(first) || src.Status().RevokedFailures > 0 {
					if time.Sleep(time.Second); time.Since(back) > 5*time.Minute+2*time.Second {
						t.Fatalf("not healed: %+v", src.Status())
					}
				}
				t.Logf("renewed, with new lists, %v after the authority was back", time.Since(back))
				other := enrolled()
				if other == nil || time.Since(back) > 5*time.Minute+2*time.Second {
					t.Fatalf("the first certificate came %v after the authority was back", time.Since(back))
				}
				_ = other.Close()
				if late.Status().RevokedLists != 2 {
					t.Errorf("status %+v", late.Status())
				}
			})
		})
	}
}

// TestRestartIsNoOutage expects that an authority which is away for seconds is asked again in
// seconds, although the spacing of an outage would take longer.
func TestRestartIsNoOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 24*time.Hour)
		src := w.source()
		stop := w.watch(src)
		time.Sleep(time.Until(src.Status().NextRenewal) - time.Second)
		w.net.setDown(true)
		time.Sleep(5 * time.Second)
		w.net.setDown(false)
		time.Sleep(16 * time.Second) // the step of the next attempt
		if n := len(w.leaves()); n != 2 {
			t.Errorf("not renewed: %+v", src.Status())
		}
		stop()
		w.check()
	})
}

// TestRetryAfterOfEachKind expects that a Retry-After of half an hour is obeyed by the trust
// bundle, the lists and the request that is held, however often they have failed.
func TestRetryAfterOfEachKind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const pause = 30 * time.Minute
		w := newWorld(t, time.Hour) // bundle and lists each 10 min
		w.ca.life = 30 * 24 * time.Hour
		w.cfg.TrustRefresh = 10 * time.Minute
		var mu sync.Mutex
		at := map[string][]time.Time{}
		stop := w.watch(w.source())
		time.Sleep(time.Minute)
		w.ca.mu.Lock()
		w.ca.answer = func(rw http.ResponseWriter, r *http.Request) bool {
			mu.Lock()
			at[r.URL.Path] = append(at[r.URL.Path], time.Now())
			mu.Unlock()
			rw.Header().Set("Retry-After", "1800")
			rw.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(rw, `{"status":503,"message":"busy"}`)
			return true
		}
		w.ca.mu.Unlock()
		time.Sleep(10 * time.Hour)
		stop()
		for _, path := range []string{stepapi.PathRoots, stepapi.PathRevoked, stepapi.PathWatch} {
			got := at[stepapi.Prefix+path]
			if len(got) < 5 {
				t.Errorf("%s: %d requests in ten hours", path, len(got))
			}
			for n := 1; n < len(got); n++ {
				if apart := got[n].Sub(got[n-1]); apart < pause {
					t.Errorf("%s: asked again after %v", path, apart)
				}
			}
		}
	})
}
