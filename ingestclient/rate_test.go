package ingestclient_test

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
)

// TestUploadsShareTheLimit expects that eight uploads share MaxRate, and that none of
// them counts as stalled or too slow although it does not move for minutes.
func TestUploadsShareTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{}
		g := e.generation(1)
		g.Storage = slowTransport{1 << 15, every(0), 0} // takes everything, and answers 503
		cfg := config()
		cfg.MaxRate, cfg.MinRate, cfg.StallTimeout = 4<<10, 1<<10, 10*time.Second
		c := over(t, cfg, ingestclient.NewFakeIdentity(g))
		begun := time.Now()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				_, err := c.Upload(t.Context(), ingestclient.BytesContent("a", make([]byte, 1<<18)), ingestclient.Meta{})
				if !errors.Is(err, ingestclient.ErrServer) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		want := 8 << 18 / (4 << 10) * time.Second
		if took := time.Since(begun); took < want-20*time.Second || took > want {
			t.Errorf("2 MiB at 4 KiB/s took %v, want about %v", took, want)
		}
	})
}

// TestLimitedUploadsStillEnd expects under MaxRate too that an element that stops
// reading is a stall, and that the end of the caller's context ends the upload.
func TestLimitedUploadsStillEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{}
		g := e.generation(1)
		g.Storage = slowTransport{1 << 12, func(n int) time.Duration {
			if n > 1<<16 {
				return -1
			}
			return 0
		}, 0}
		cfg := config()
		cfg.MaxRate, cfg.MinRate = 1<<12, -1
		c := over(t, cfg, ingestclient.NewFakeIdentity(g))
		if _, err := c.Upload(t.Context(), ingestclient.BytesContent("a", make([]byte, 1<<18)), ingestclient.Meta{}); !errors.Is(err, ingestclient.ErrStalled) {
			t.Error(err)
		}
		cfg.MaxRate = 1
		slow := over(t, cfg, ingestclient.NewFakeIdentity(g))
		go func() { time.Sleep(time.Hour); _ = slow.Close() }()
		begun := time.Now()
		_, err := slow.Upload(t.Context(), ingestclient.BytesContent("a", make([]byte, 1<<18)), ingestclient.Meta{})
		if !errors.Is(err, ingestclient.ErrClosed) || errors.Is(err, ingestclient.ErrAmbiguous) || time.Since(begun) > time.Hour+2*time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
	})
}
