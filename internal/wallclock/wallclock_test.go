package wallclock_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/wallclock"
)

func TestUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if !wallclock.Until(t.Context(), start.Add(3*time.Hour+time.Second), nil) || time.Since(start) != 3*time.Hour+time.Second {
			t.Errorf("woke after %v", time.Since(start))
		}
		if !wallclock.Until(t.Context(), start, nil) {
			t.Error("a moment that is past is waited for")
		}

		wake := make(chan struct{})
		time.AfterFunc(time.Minute, func() { close(wake) })
		start = time.Now()
		if !wallclock.Until(t.Context(), start.Add(time.Hour), wake) || time.Since(start) != time.Minute {
			t.Errorf("woken after %v", time.Since(start))
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if start = time.Now(); wallclock.Until(ctx, start.Add(time.Hour), nil) || time.Since(start) != time.Minute {
			t.Errorf("the end of the context came after %v", time.Since(start))
		}
	})
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if err := wallclock.Sleep(t.Context(), time.Minute); err != nil || time.Since(start) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		cause := errors.New("cause")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		if err := wallclock.Sleep(ctx, time.Minute); !errors.Is(err, cause) {
			t.Errorf("%v, want the cause", err)
		}
		for _, d := range []time.Duration{0, -1} {
			if err := wallclock.Sleep(ctx, d); !errors.Is(err, cause) {
				t.Errorf("%v: %v, want the cause", d, err)
			}
			if err := wallclock.Sleep(t.Context(), d); err != nil {
				t.Errorf("%v: %v", d, err)
			}
		}
	})
}
