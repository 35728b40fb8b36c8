package pace_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ingestclient/internal/pace"
)

func TestRateIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pace.New(1 << 20)
		begun := time.Now()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 40 {
					if err := b.Take(t.Context(), 32<<10); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if took := time.Since(begun); took < 9800*time.Millisecond || took > 10*time.Second { // 10 MiB
			t.Errorf("10 MiB at 1 MiB/s took %v", took)
		}
		// A pause saves up a tenth of a second and no more.
		time.Sleep(time.Hour)
		begun = time.Now()
		for range 32 {
			_ = b.Take(t.Context(), 32<<10)
		}
		if took := time.Since(begun); took < 800*time.Millisecond {
			t.Errorf("1 MiB after a pause took %v", took)
		}
	})
}

func TestGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pace.New(10)
		_ = b.Take(t.Context(), 1000)
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(gone) })
		if err := b.Take(ctx, 1); !errors.Is(err, gone) {
			t.Error(err)
		}
	})
}

func TestNoLimit(t *testing.T) {
	for _, b := range []*pace.Bucket{nil, {}, pace.New(0), pace.New(-1)} {
		if err := b.Take(t.Context(), 1<<30); err != nil || b.Limited() {
			t.Error(err)
		}
	}
}
