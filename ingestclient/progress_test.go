package ingestclient_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
)

// slowTransport is a fake Storage Element that reads the body piece by piece, as the network lets it.
type slowTransport struct {
	piece  int
	pause  func(read int) time.Duration // before each piece; negative: for ever
	answer time.Duration                // after the last byte
}

func (p slowTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	defer func() { _ = req.Body.Close() }()
	ctx := req.Context()
	buf := make([]byte, p.piece)
	for total := 0; ; {
		pause := p.pause(total)
		if int64(total) == req.ContentLength {
			pause = 0 // only the end is still to be read
		}
		if err := rest(ctx, pause); err != nil {
			return nil, err
		}
		n, err := req.Body.Read(buf)
		total += n
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if err := rest(ctx, p.answer); err != nil {
		return nil, err
	}
	return reply(req, 503, "", nil), nil
}

func rest(ctx context.Context, d time.Duration) error {
	if d < 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func every(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }

func TestWatchEndsWhatDoesNotMove(t *testing.T) {
	for name, tc := range map[string]struct {
		slow      slowTransport
		stall     time.Duration
		rate      int64
		want      error
		after     time.Duration
		ambiguous bool
	}{
		"stalls in the middle": {slowTransport{1 << 15, func(n int) time.Duration {
			if n > 1<<19 {
				return -1
			}
			return time.Second
		}, 0}, 0, 0, ingestclient.ErrStalled, 77 * time.Second, false},
		"trickles":            {slowTransport{100, every(time.Second), 0}, 0, 0, ingestclient.ErrTooSlow, time.Minute, false},
		"slow but welcome":    {slowTransport{1 << 14, every(30 * time.Second), 0}, 0, -1, ingestclient.ErrServer, 0, false},
		"hours, no total":     {slowTransport{1 << 15, every(20 * time.Second), 0}, 0, 0, ingestclient.ErrServer, 0, false},
		"never stalls":        {slowTransport{1 << 20, every(10 * time.Minute), 0}, -1, -1, ingestclient.ErrServer, 0, false},
		"answer comes late":   {slowTransport{1 << 15, every(0), 29 * time.Second}, 0, 0, ingestclient.ErrServer, 29 * time.Second, false},
		"answer never comes":  {slowTransport{1 << 15, every(0), -1}, 0, 0, ingestclient.ErrNoAnswer, 30 * time.Second, true},
		"shorter by settings": {slowTransport{1 << 15, every(3 * time.Second), 0}, 2 * time.Second, 0, ingestclient.ErrStalled, 2 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &fakeServers{}
				g := e.generation(1)
				g.Storage = tc.slow
				cfg := config()
				cfg.StallTimeout, cfg.MinRate = tc.stall, tc.rate
				c := over(t, cfg, ingestclient.NewFakeIdentity(g))
				begun := time.Now()
				_, err := c.Upload(t.Context(), ingestclient.BytesContent("a", make([]byte, 1<<20)), ingestclient.Meta{})
				if !errors.Is(err, tc.want) || errors.Is(err, ingestclient.ErrAmbiguous) != tc.ambiguous {
					t.Fatalf("after %v: %v", time.Since(begun), err)
				}
				if took := time.Since(begun); tc.after != 0 && (took < tc.after || took > tc.after+10*time.Second) {
					t.Errorf("ended after %v, want %v", took, tc.after)
				}
			})
		})
	}
}

func TestCallersDeadlineEndsAnUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for answer, ambiguous := range map[time.Duration]bool{0: false, -1: true} {
			e := &fakeServers{}
			g := e.generation(1)
			g.Storage = slowTransport{1 << 10, every(time.Second), answer}
			size := 1 << 20
			if ambiguous {
				size = 10
			}
			cfg := config()
			cfg.MaxAttempts = 5
			c := over(t, cfg, ingestclient.NewFakeIdentity(g))
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			_, err := c.Upload(ctx, ingestclient.BytesContent("a", make([]byte, size)), ingestclient.Meta{})
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ingestclient.ErrAmbiguous) != ambiguous {
				t.Errorf("%v", err)
			}
		}
	})
}

// TestNoSleepBeyondTheDeadline expects that a pause that would end after the deadline of
// the caller does not begin.
func TestNoSleepBeyondTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{status: 429, header: http.Header{"Retry-After": {"20"}}}
		cfg := config()
		cfg.MaxAttempts = 5
		c := over(t, cfg, ingestclient.NewFakeIdentity(e.generation(1)))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begun := time.Now()
		_, err := c.Upload(ctx, ingestclient.BytesContent("a", nil), ingestclient.Meta{})
		if !errors.Is(err, ingestclient.ErrTokenEndpoint) || time.Since(begun) != 0 {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		other, stop := context.WithCancelCause(t.Context())
		gone := errors.New("the user left")
		time.AfterFunc(time.Second, func() { stop(gone) })
		if _, err = c.Upload(other, ingestclient.BytesContent("a", nil), ingestclient.Meta{}); !errors.Is(err, gone) {
			t.Errorf("cancelled while pausing: %v", err)
		}
	})
}

// slowBody is a download that stops in the middle.
type slowBody struct {
	ctx  context.Context
	left int
}

func (b *slowBody) Close() error { return nil }

func (b *slowBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		<-b.ctx.Done()
		return 0, b.ctx.Err()
	}
	n := min(len(p), b.left)
	b.left -= n
	return n, rest(b.ctx, time.Second)
}

type downloads struct{ n int }

func (d *downloads) RoundTrip(req *http.Request) (*http.Response, error) {
	d.n++
	if d.n == 1 {
		return nil, io.ErrUnexpectedEOF
	}
	r := reply(req, 200, "", nil)
	r.Body = &slowBody{req.Context(), 1 << 16}
	return r, nil
}

func TestStalledDownload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{}
		g := e.generation(1)
		d := &downloads{}
		g.Storage = d
		cfg := config()
		cfg.MaxAttempts = 5
		c := over(t, cfg, ingestclient.NewFakeIdentity(g))
		var out bytes.Buffer
		begun := time.Now()
		_, err := c.Download(t.Context(), "f1", &out)
		if !errors.Is(err, ingestclient.ErrStalled) || out.Len() != 1<<16 || time.Since(begun) > 2*time.Minute {
			t.Errorf("%d bytes after %v: %v", out.Len(), time.Since(begun), err)
		}
		if d.n != 2 {
			t.Errorf("%d requests: a failure before the first byte is repeated, one after it is not", d.n)
		}
	})
}
