package ingestclient_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
)

// The numbers this client promises, each as a test that prints what it saw.

func TestThousandColdCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{latency: 300 * time.Millisecond}
		c := over(t, config(), ingestclient.NewFakeIdentity(e.generation(1)))
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				if err := touch(t, c); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if e.count() != 1 {
			t.Errorf("%d token requests", e.count())
		}
		t.Logf("1000 cold callers: %d token request", e.count())
	})
}

// TestOutageAndRecovery takes the endpoint away for a minute, with 100 callers in a
// loop.
func TestOutageAndRecovery(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	for name, retryAfter := range map[string]time.Duration{"silent": 0, "Retry-After": 7 * time.Second} {
		for kind, status := range map[string]int{"500": 500, "unreachable": -1} {
			if status < 0 && retryAfter > 0 {
				continue // who cannot be reached says nothing
			}
			t.Run(kind+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { outage(t, status, retryAfter) })
			})
		}
	}
}

func outage(t *testing.T, status int, retryAfter time.Duration) {
	e := &fakeServers{latency: 20 * time.Millisecond, status: status}
	if retryAfter > 0 {
		e.header = http.Header{"Retry-After": {fmt.Sprint(int(retryAfter.Seconds()))}}
	}
	c := over(t, config(), ingestclient.NewFakeIdentity(e.generation(1)))
	var recovered atomic.Int64 // nanoseconds since the begin
	begun := time.Now()
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for ctx.Err() == nil && recovered.Load() == 0 {
				if _, err := c.Metadata(ctx, "f1"); err == nil {
					recovered.CompareAndSwap(0, int64(time.Since(begun)))
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	time.Sleep(time.Minute)
	e.mu.Lock()
	asked := append([]time.Time(nil), e.asked...)
	last := asked[len(asked)-1]
	e.status = 0
	e.mu.Unlock()
	wg.Wait()
	for i := 5; i < len(asked); i++ {
		if asked[i].Sub(asked[i-5]) < time.Second {
			t.Fatalf("six requests within %v", asked[i].Sub(asked[i-5]))
		}
	}
	free := time.Minute // when it is back and may be asked
	if until := last.Add(20 * time.Millisecond).Add(retryAfter).Sub(begun); retryAfter > 0 && until > free {
		free = until
	}
	took := time.Duration(recovered.Load()) - free
	if recovered.Load() == 0 || took > time.Second {
		t.Errorf("recovered %v after it was back", took)
	}
	t.Logf("%.2f requests/s during the outage, recovered %v after it was back", float64(len(asked))/60, took)
}

// A steady upload every half second over 20 lives of a token.
func TestRequestsPerLifetime(t *testing.T) {
	for _, life := range []time.Duration{60 * time.Second, 300 * time.Second, 1800 * time.Second} {
		t.Run(life.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const lives = 20
				begun := time.Now()
				e := &fakeServers{life: fmt.Sprint(int(life.Seconds())), latency: 200 * time.Millisecond}
				e.token = func(int, string) string {
					return fmt.Sprintf("ends-%d", time.Now().Add(-200*time.Millisecond).Add(life).Sub(begun))
				}
				var expired atomic.Int64
				e.storage = func(_ *http.Request, token string) (int, string) {
					var end time.Duration
					_, _ = fmt.Sscanf(token, "ends-%d", &end)
					if time.Since(begun) >= end {
						expired.Add(1)
					}
					return 200, `{"file_id":"f1","size":1}`
				}
				cfg := config()
				c, err := ingestclient.NewWithFake(cfg, ingestclient.NewFakeIdentity(e.generation(1)), nil) // jitter as it comes
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = c.Close() }()
				for time.Since(begun) < lives*life {
					if err := touch(t, c); err != nil {
						t.Fatal(err)
					}
					time.Sleep(500 * time.Millisecond)
				}
				rate := float64(e.count()) / lives
				if rate > 1.4 || expired.Load() != 0 {
					t.Errorf("%.2f requests per life, %d expired tokens were sent", rate, expired.Load())
				}
				t.Logf("%.2f requests per life of %v, %d expired tokens sent", rate, life, expired.Load())
			})
		})
	}
}

// 8 uploaders, 20 rotations in 10 s of real time, tokens bound to the
// certificate, resumption on, over the real rotation package.
func TestTwentyRotationsInTenSeconds(t *testing.T) {
	if testing.Short() {
		t.Skip("10 s of real uploads")
	}
	w := newServers(t, func(c *ingestclient.Config) { c.MaxAttempts = 1 })
	id, rotate := w.identity(time.Minute)
	c, err := ingestclient.New(w.cfg, id)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	// It takes ten seconds where there is time; a machine that has none may take longer.
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	b := content(200_000)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := c.Upload(t.Context(), ingestclient.BytesContent("a", b), ingestclient.Meta{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	ticker := time.NewTicker(480 * time.Millisecond)
	defer ticker.Stop()
	const rotations = 20
	for n := range int64(rotations) {
		<-ticker.C
		rotate()
		for c.Stats().Swaps <= n {
			if _, err := c.Metadata(ctx, "0000-1"); err != nil {
				t.Error(err)
			}
		}
	}
	stop()
	wg.Wait()
	st := c.Stats()
	if st.Rejected+st.UploadErrors+st.Retries != 0 || w.storage.stale != 0 || st.Swaps != rotations || st.TokenFetches != rotations+1 {
		t.Errorf("%d stale tokens, %+v", w.storage.stale, st)
	}
	t.Logf("%d uploads, %d rotations: 401 %d, failed %d, repeated %d, token fetches %d (1 + %d rotations)",
		st.Uploads, st.Swaps, st.Rejected, st.UploadErrors, st.Retries, st.TokenFetches, rotations)
}

// TestUnwillingElementIsLeftAndTheFileIsWhole uses an element that at first reads
// nothing, or a byte a second. The stored file is whole.
func TestUnwillingElementIsLeftAndTheFileIsWhole(t *testing.T) {
	for name, tc := range map[string]struct {
		slow slowTransport
		want error
	}{
		"stops reading": {slowTransport{1 << 10, func(n int) time.Duration {
			if n > 1<<14 {
				return -1
			}
			return 0
		}, 0}, ingestclient.ErrStalled},
		"a byte a second": {slowTransport{1, every(time.Second), 0}, ingestclient.ErrTooSlow},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &fakeServers{}
				g := e.generation(1)
				side := &unwilling{bad: tc.slow}
				g.Storage = side
				cfg := config()
				cfg.MaxAttempts = 3
				c := over(t, cfg, ingestclient.NewFakeIdentity(g))
				b := content(1 << 17)
				rec, err := c.Upload(t.Context(), ingestclient.BytesContent("a", b), ingestclient.Meta{})
				if err != nil || rec.Attempts != 2 || rec.SHA256 != hexSum(b) || !strings.Contains(side.stored, string(b)) {
					t.Fatalf("%+v, %v", rec, err)
				}
				if !errors.Is(side.cause, tc.want) {
					t.Errorf("the first attempt ended by %v", side.cause)
				}
			})
		})
	}
}

// unwilling behaves badly once.
type unwilling struct {
	bad    slowTransport
	n      int
	cause  error
	stored string
}

func (u *unwilling) RoundTrip(req *http.Request) (*http.Response, error) {
	if u.n++; u.n == 1 {
		resp, err := u.bad.RoundTrip(req)
		u.cause = context.Cause(req.Context())
		return resp, err
	}
	defer func() { _ = req.Body.Close() }()
	raw, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	u.stored = string(raw)
	_, content, _ := strings.Cut(u.stored, "octet-stream\r\n\r\n")
	content = content[:strings.LastIndex(content, "\r\n--")]
	answer, _ := json.Marshal(map[string]any{"file_id": "f1", "size": len(content), "checksum": hexSum([]byte(content))})
	return reply(req, 201, string(answer), nil), nil
}
