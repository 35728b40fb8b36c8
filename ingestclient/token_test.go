package ingestclient_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/secret"
)

// fakeServers are a token endpoint and a Storage Element in memory, because a
// synctest bubble must not use sockets. The test sets latency and answers; each
// request is recorded.
type fakeServers struct {
	mu      sync.Mutex
	latency time.Duration
	life    string // expires_in as JSON
	token   func(n int, thumb string) string
	status  int // of token answers, 0 means 200
	header  http.Header
	asked   []time.Time
	thumbs  []string
	secrets []string

	// storage answers a file request; nil accepts everything
	storage func(req *http.Request, token string) (int, string)
	seen    []string // tokens seen by the storage
}

type fakeTokenTransport struct {
	e     *fakeServers
	thumb string
}

// generation is generation n of an identity that talks to e.
func (e *fakeServers) generation(n uint64) ingestclient.FakeGeneration {
	thumb := fmt.Sprintf("thumb-%d", n)
	return ingestclient.FakeGeneration{Number: n, Thumb: thumb, Token: fakeTokenTransport{e, thumb}, Storage: fakeStorageTransport{e}}
}

func (s fakeTokenTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	e := s.e
	body, _ := io.ReadAll(req.Body)
	_ = req.Body.Close()
	e.mu.Lock()
	e.asked = append(e.asked, time.Now())
	e.thumbs = append(e.thumbs, s.thumb)
	e.secrets = append(e.secrets, string(body))
	n, latency := len(e.asked), e.latency
	e.mu.Unlock()
	select {
	case <-time.After(latency):
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.status < 0:
		return nil, io.ErrUnexpectedEOF
	case e.status != 0:
		return reply(req, e.status, `{"error":"invalid_client"}`, e.header), nil
	}
	token := fmt.Sprintf("opaque-%s-%d", s.thumb, n)
	if e.token != nil {
		token = e.token(n, s.thumb)
	}
	life := e.life
	if life == "" {
		life = "1800"
	}
	return reply(req, 200, fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer","expires_in":%s}`, token, life), nil), nil
}

func reply(req *http.Request, status int, body string, h http.Header) *http.Response {
	if h == nil {
		h = http.Header{}
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: req}
}

type fakeStorageTransport struct{ e *fakeServers }

func (s fakeStorageTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	token := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
	s.e.mu.Lock()
	s.e.seen = append(s.e.seen, token)
	storage := s.e.storage
	s.e.mu.Unlock()
	status, body := 200, `{"file_id":"f1","size":1,"checksum":""}`
	if storage != nil {
		status, body = storage(req, token)
	}
	if req.Body != nil {
		_ = req.Body.Close()
	}
	return reply(req, status, body, nil), nil
}

func (e *fakeServers) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.asked)
}

func (e *fakeServers) set(change func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change()
}

func (e *fakeServers) lastSeen() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen[len(e.seen)-1]
}

func config() ingestclient.Config {
	return ingestclient.Config{
		TokenURL: "https://admin.test/api/v1/auth/token", Elements: only("https://storage.test"),
		ClientID: "sa_test_1", ClientSecret: fixedSecret("s3cret:%&"), MaxAttempts: 1, TokenLag: -1, Logger: slog.New(slog.DiscardHandler),
	}
}

func fixedSecret(v string) func(context.Context) (secret.String, error) {
	return func(context.Context) (secret.String, error) { return secret.New(v), nil }
}

// mid makes the schedule and the pauses of a test exact and typical.
func mid() float64 { return 0.5 }

func over(t *testing.T, cfg ingestclient.Config, r *ingestclient.FakeIdentity) *ingestclient.Client {
	t.Helper()
	c, err := ingestclient.NewWithFake(cfg, r, mid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// touch makes one authenticated request.
func touch(t *testing.T, c *ingestclient.Client) error {
	t.Helper()
	_, err := c.Metadata(t.Context(), "f1")
	return err
}

func TestScheduleFitsShortAndLongTokens(t *testing.T) {
	for _, tc := range []struct{ life, refresh, until time.Duration }{
		{30 * time.Minute, 29 * time.Minute, 30*time.Minute - 5*time.Second},
		{10 * time.Minute, 9 * time.Minute, 10*time.Minute - 5*time.Second},
		{300 * time.Second, 240 * time.Second, 295 * time.Second},
		{60 * time.Second, 48 * time.Second, 55 * time.Second},
		{10 * time.Second, 8 * time.Second, 9 * time.Second},
		{time.Second, 800 * time.Millisecond, 900 * time.Millisecond},
	} {
		refresh, until := ingestclient.RefreshTimes(tc.life, 0)
		if refresh != tc.refresh || until != tc.until {
			t.Errorf("%v: refresh at %v, used until %v; want %v, %v", tc.life, refresh, until, tc.refresh, tc.until)
		}
		early, same := ingestclient.RefreshTimes(tc.life, 0.999)
		if early >= refresh || same != until || early <= tc.life/2 {
			t.Errorf("%v: jitter moved the refresh from %v to %v and the end to %v", tc.life, refresh, early, same)
		}
	}
}

// TestTokenLives expects that the cache obeys the times of the table test above.
func TestTokenLives(t *testing.T) {
	for _, life := range []time.Duration{60 * time.Second, 300 * time.Second, 1800 * time.Second} {
		t.Run(life.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &fakeServers{life: fmt.Sprintf("%d", int(life.Seconds()))}
				c := over(t, config(), ingestclient.NewFakeIdentity(e.generation(1)))
				refresh, _ := ingestclient.RefreshTimes(life, mid())
				step := func(d time.Duration, fetches int, token string) {
					t.Helper()
					time.Sleep(d)
					if err := touch(t, c); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					if e.count() != fetches || e.lastSeen() != token {
						t.Fatalf("%d fetches and %s was sent, want %d and %s", e.count(), e.lastSeen(), fetches, token)
					}
				}
				step(0, 1, "opaque-thumb-1-1")
				step(refresh-time.Millisecond, 1, "opaque-thumb-1-1")
				step(time.Millisecond, 2, "opaque-thumb-1-1") // due: the old one is sent while the new one is fetched
				step(time.Millisecond, 2, "opaque-thumb-1-2")
				step(2*life, 3, "opaque-thumb-1-3") // long idle: the dead one is never sent
			})
		})
	}
}

func TestNotHandedOutInItsLastSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{life: "300"}
		c := over(t, config(), ingestclient.NewFakeIdentity(e.generation(1)))
		if err := touch(t, c); err != nil {
			t.Fatal(err)
		}
		e.set(func() { e.latency = 20 * time.Second })
		time.Sleep(294 * time.Second)
		if err := touch(t, c); err != nil || e.lastSeen() != "opaque-thumb-1-1" {
			t.Fatalf("at 294 s: %v, %s", err, e.lastSeen())
		}
		time.Sleep(time.Second)
		begun := time.Now()
		if err := touch(t, c); err != nil || e.lastSeen() != "opaque-thumb-1-2" {
			t.Fatalf("at 295 s: %v, %s", err, e.lastSeen())
		}
		if waited := time.Since(begun); waited != 19*time.Second {
			t.Errorf("waited %v for the fetch under way", waited)
		}
	})
}

// TestSlowAnswerDoesNotLengthenLife expects that a life counts from the request, not
// from the answer.
func TestSlowAnswerDoesNotLengthenLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{life: "100", latency: 25 * time.Second}
		c := over(t, config(), ingestclient.NewFakeIdentity(e.generation(1)))
		if err := touch(t, c); err != nil {
			t.Fatal(err)
		}
		time.Sleep(55 * time.Second) // 80 s after the request: a fifth is left
		if err := touch(t, c); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if e.count() != 2 {
			t.Fatalf("%d fetches, want the refresh to be under way", e.count())
		}
		e.set(func() { e.life, e.latency = "5", 10*time.Second })
		time.Sleep(time.Hour)
		if err := touch(t, c); !errors.Is(err, ingestclient.ErrTokenAnswer) {
			t.Errorf("a token that was over when it arrived: %v", err)
		}
	})
}

func TestColdHerdIsOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{latency: 300 * time.Millisecond}
		c := over(t, config(), ingestclient.NewFakeIdentity(e.generation(1)))
		var late, failed atomic.Int64
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				ctx := t.Context()
				if i%2 == 0 {
					short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
					defer cancel()
					ctx = short
				}
				begun := time.Now()
				_, err := c.Metadata(ctx, "f1")
				if i%2 == 0 && (!errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > 55*time.Millisecond) {
					late.Add(1)
				}
				if i%2 == 1 && err != nil {
					failed.Add(1)
				}
			})
		}
		wg.Wait()
		if e.count() != 1 || late.Load() != 0 || failed.Load() != 0 {
			t.Errorf("%d fetches, %d short callers held too long, %d patient ones failed", e.count(), late.Load(), failed.Load())
		}
		if got := c.Stats().TokenFetches; got != 1 {
			t.Errorf("stats say %d fetches", got)
		}
	})
}

// TestDeadlinesShorterThanTheFetchRecover expects a token although all deadlines of
// callers are shorter than the latency of the endpoint.
func TestDeadlinesShorterThanTheFetchRecover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{latency: 300 * time.Millisecond}
		c := over(t, config(), ingestclient.NewFakeIdentity(e.generation(1)))
		good := 0
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			if _, err := c.Metadata(ctx, "f1"); err == nil {
				good++
			}
			<-ctx.Done()
			cancel()
		}
		if e.count() != 1 || good < 13 {
			t.Errorf("%d fetches, %d of 20 callers served", e.count(), good)
		}
	})
}

func TestDeadEndpointIsSpared(t *testing.T) {
	for name, latency := range map[string]time.Duration{"at once": 0, "after 20 ms": 20 * time.Millisecond, "never": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &fakeServers{latency: latency, status: 500}
				cfg := config()
				cfg.MaxAttempts = 4
				c := over(t, cfg, ingestclient.NewFakeIdentity(e.generation(1)))
				end, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				var wg sync.WaitGroup
				for range 32 {
					wg.Go(func() {
						for end.Err() == nil {
							if _, err := c.Metadata(end, "f1"); err == nil {
								t.Error("a token out of nowhere")
							}
							time.Sleep(10 * time.Millisecond)
						}
					})
				}
				wg.Wait()
				e.mu.Lock()
				defer e.mu.Unlock()
				for i := 5; i < len(e.asked); i++ {
					if d := e.asked[i].Sub(e.asked[i-5]); d < time.Second {
						t.Fatalf("six requests within %v", d)
					}
				}
			})
		})
	}
}

func TestFailedRefreshKeepsTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{life: "300"}
		c := over(t, config(), ingestclient.NewFakeIdentity(e.generation(1)))
		if err := touch(t, c); err != nil {
			t.Fatal(err)
		}
		e.set(func() { e.status = 503 })
		time.Sleep(241 * time.Second)
		for range 50 {
			if err := touch(t, c); err != nil {
				t.Fatalf("with a token that is still good: %v", err)
			}
			time.Sleep(time.Second)
		}
		if n := e.count(); n < 3 || n > 20 {
			t.Errorf("%d requests in 50 s of outage", n)
		}
		time.Sleep(10 * time.Second)
		err := touch(t, c)
		auth, ok := errors.AsType[*ingestclient.AuthError](err)
		if !ok || !errors.Is(err, ingestclient.ErrTokenEndpoint) || auth.Status != 503 || !auth.Temporary {
			t.Fatalf("after its end: %v", err)
		}
		e.set(func() { e.status = 0 })
		time.Sleep(31 * time.Second) // the longest pause
		if err := touch(t, c); err != nil {
			t.Errorf("after the outage: %v", err)
		}
	})
}

func TestRetryAfterIsObeyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{status: 429, header: http.Header{"Retry-After": {"17"}}}
		c := over(t, config(), ingestclient.NewFakeIdentity(e.generation(1)))
		begun := time.Now()
		for time.Since(begun) < 16900*time.Millisecond {
			if err := touch(t, c); !errors.Is(err, ingestclient.ErrTokenEndpoint) {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if e.count() != 1 {
			t.Errorf("asked %d times within the pause it asked for", e.count())
		}
		e.set(func() { e.status = 0 })
		time.Sleep(200 * time.Millisecond)
		if err := touch(t, c); err != nil {
			t.Error(err)
		}
	})
}

// TestNewSecretEndsTheWait expects that a refused secret is not tried again for long,
// but a new one at once.
func TestNewSecretEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{status: 401}
		var current atomic.Value
		current.Store("old")
		cfg := config()
		cfg.ClientSecret = func(context.Context) (secret.String, error) {
			return secret.New(current.Load().(string)), nil
		}
		c := over(t, cfg, ingestclient.NewFakeIdentity(e.generation(1)))
		for range 40 {
			err := touch(t, c)
			auth, ok := errors.AsType[*ingestclient.AuthError](err)
			if !ok || !errors.Is(err, ingestclient.ErrCredentials) || auth.Temporary || auth.Code != "invalid_client" {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if e.count() != 1 {
			t.Errorf("a refused secret was sent %d times in 4 s", e.count())
		}
		current.Store("new")
		e.set(func() { e.status = 0 })
		time.Sleep(ingestclient.Spacing)
		if err := touch(t, c); err != nil {
			t.Error(err)
		}
		if !strings.Contains(e.secrets[1], `"client_secret":"new"`) {
			t.Error("the new secret was not sent")
		}
	})
}

func TestUnreadableSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{}
		cfg := config()
		gone := errors.New("open secret: no such file")
		var calls atomic.Int64
		cfg.ClientSecret = func(context.Context) (secret.String, error) {
			if calls.Add(1) == 1 {
				return secret.String{}, gone
			}
			return secret.New("s"), nil
		}
		c := over(t, cfg, ingestclient.NewFakeIdentity(e.generation(1)))
		if err := touch(t, c); !errors.Is(err, gone) || e.count() != 0 {
			t.Fatalf("%v after %d requests", err, e.count())
		}
		time.Sleep(time.Second)
		if err := touch(t, c); err != nil {
			t.Error(err)
		}
	})
}

// TestRejectedTokenIsReplacedOnce expects one token request after many 401s for one
// token. Late 401s do not drop the new token.
func TestRejectedTokenIsReplacedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{}
		var n atomic.Int64
		e.storage = func(_ *http.Request, token string) (int, string) {
			if token == "opaque-thumb-1-1" {
				time.Sleep(time.Duration(n.Add(1)) * 100 * time.Millisecond) // each later than the one before
				return 401, `{"detail":"Invalid or expired token"}`
			}
			return 200, `{"file_id":"f1","size":1}`
		}
		c := over(t, config(), ingestclient.NewFakeIdentity(e.generation(1)))
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if err := touch(t, c); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if e.count() != 2 || c.Stats().Rejected != 20 {
			t.Errorf("%d fetches for one rejected token, %d answers with 401", e.count(), c.Stats().Rejected)
		}
	})
}

// TestTokenLagIsWaitedOut uses an element that refuses a new token for up to 15 s, until
// it has read the new keys.
func TestTokenLagIsWaitedOut(t *testing.T) {
	for name, tc := range map[string]struct {
		lag   time.Duration
		heals time.Duration
		want  error
	}{
		"healed":   {15 * time.Second, 11 * time.Second, nil},
		"too long": {15 * time.Second, time.Hour, ingestclient.ErrUnauthorized},
		"off":      {-1, 11 * time.Second, ingestclient.ErrUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				e := &fakeServers{storage: func(*http.Request, string) (int, string) {
					if time.Since(begun) < tc.heals {
						return 401, ""
					}
					return 200, `{"file_id":"f1","size":1}`
				}}
				cfg := config()
				cfg.TokenLag = tc.lag
				c := over(t, cfg, ingestclient.NewFakeIdentity(e.generation(1)))
				if err := touch(t, c); !errors.Is(err, tc.want) {
					t.Errorf("got %v", err)
				}
				if e.count() != 2 {
					t.Errorf("%d tokens fetched: a lagging server must not cost more than one", e.count())
				}
				if d := time.Since(begun); d > 16*time.Second {
					t.Errorf("took %v", d)
				}
			})
		})
	}
}

func TestCloseEndsAWaitingFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{latency: time.Hour}
		r := ingestclient.NewFakeIdentity(e.generation(1))
		c := over(t, config(), r)
		done := make(chan error, 1)
		go func() { _, err := c.Metadata(context.WithoutCancel(t.Context()), "f1"); done <- err }()
		synctest.Wait()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, ingestclient.ErrClosed) {
			t.Errorf("the waiting caller heard %v", err)
		}
		if err := touch(t, c); !errors.Is(err, ingestclient.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		_ = c.Close()
		r.Set(e.generation(2)) // a rotation after Close changes nothing
		if r.Leased(1) != 0 || r.Leased(2) != 0 {
			t.Errorf("leases left: %d, %d", r.Leased(1), r.Leased(2))
		}
	})
}
