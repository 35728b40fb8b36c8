package enroll_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

func TestSkewOf(t *testing.T) {
	sent := time.Date(2026, 1, 1, 0, 0, 0, 500_000_000, time.UTC)
	for _, c := range []struct{ date, took, want time.Duration }{
		{0, 0, 0}, {time.Second, time.Second, 0}, {2 * time.Second, 0, 0}, {-2 * time.Second, 0, 0},
		{90 * time.Second, 0, 89500 * time.Millisecond}, {-90 * time.Second, 0, -89500 * time.Millisecond},
		{10 * time.Minute, 4 * time.Second, 10*time.Minute - 4500*time.Millisecond},
		{time.Minute, 8 * time.Hour, 0}, // the machine slept over it: nothing is known
	} {
		date := sent.Truncate(time.Second).Add(c.date)
		if got := enroll.SkewOf(date, sent, sent.Add(c.took)); got != c.want {
			t.Errorf("Date %v after, answer after %v: %v, want %v", c.date, c.took, got, c.want)
		}
	}
}

func TestPlanned(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const life, u = 15 * time.Minute, 0.5
	for _, c := range []struct{ skew, want time.Duration }{
		{0, 585 * time.Second},
		{10 * time.Minute, 585 * time.Second},  // ours lags: by it, the life would be 25 min and the renewal too late
		{-10 * time.Minute, 195 * time.Second}, // ours is fast: by it, five minutes are left
		{-20 * time.Minute, 0},                 // by ours it is over
		{24 * time.Hour, 585 * time.Second},
	} {
		issued := now.Add(c.skew) // by the authority's clock
		if got := enroll.Planned(now, issued, issued.Add(life), c.skew, u).Sub(now); got != c.want {
			t.Errorf("skew %v: after %v, want %v", c.skew, got, c.want)
		}
	}
	// A stored certificate, and an offset that would make it over.
	if got := enroll.Planned(now, now, now.Add(life), time.Hour, u).Sub(now); got > 0 {
		t.Errorf("over by the authority's clock: after %v", got)
	}
}

// TestClockSkew uses wrong clocks and certificates of a quarter of an hour. Renewals
// come at their share of the life by the clock of the authority, or earlier if the clock
// here says that the end is near. They do not come in a loop. The difference is logged
// once, and is in the status.
func TestClockSkew(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	t.Parallel()
	for _, off := range []time.Duration{90 * time.Second, -90 * time.Second, 10 * time.Minute, -10 * time.Minute} { // of our clock
		t.Run(off.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 15*time.Minute)
				src := w.source()
				src.SetClock(func() time.Time { return time.Now().Add(off) })
				stop := w.watch(src)
				time.Sleep(3 * time.Hour)
				st := src.Status()
				stop()
				w.check() // no gap, by the authority's clock
				if d := (st.Skew + off).Abs(); d > time.Second {
					t.Errorf("skew %v with a clock that is off by %v", st.Skew, off)
				}
				share := 0.65
				if off > 0 {
					share *= float64(15*time.Minute-off) / float64(15*time.Minute)
				}
				want := 3 / (0.25 * share)
				if n := float64(len(w.leaves())); n < 0.9*want || n > 1.1*want {
					t.Errorf("%v certificates in three hours, want about %.0f", n, want)
				}
				if n := strings.Count(w.log.String(), `level=WARN msg="the clock here differs from the authority's"`); n != 1 {
					t.Errorf("told %d times, want once", n)
				}
				if n := w.ca.count(stepapi.PathSign); n != 1 {
					t.Errorf("%d enrolments", n)
				}
			})
		})
	}
}

// TestRefusalTeachesTheTime uses an expired stored certificate, a wrong clock and no
// token. The first renewal token has wrong dates. The refusal has the time, so the
// second one is right.
func TestRefusalTeachesTheTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 15*time.Minute)
		w.ca.grace = time.Hour
		w.watch(w.source())()
		time.Sleep(30 * time.Minute)
		w.cfg.Token = nil
		src := w.source()
		src.SetClock(func() time.Time { return time.Now().Add(10 * time.Minute) })
		stop := w.watch(src)
		time.Sleep(time.Second)
		stop()
		if len(w.leaves()) != 2 {
			t.Errorf("%d certificates:\n%s", len(w.leaves()), w.log.String())
		}
	})
}

// TestClockIsRepaired expects that the end of a difference is logged, and that the
// renewal is planned again.
func TestClockIsRepaired(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		var off atomic.Int64
		off.Store(int64(-5 * time.Minute))
		src := w.source()
		src.SetClock(func() time.Time { return time.Now().Add(time.Duration(off.Load())) })
		stop := w.watch(src)
		time.Sleep(20 * time.Minute)
		off.Store(0)
		time.Sleep(20 * time.Minute)
		if st := src.Status(); st.Skew != 0 {
			t.Errorf("skew %v", st.Skew)
		}
		stop()
		if !strings.Contains(w.log.String(), `level=INFO msg="the clock here agrees with the authority's again"`) {
			t.Errorf("not told:\n%s", w.log.String())
		}
	})
}

// TestAbsurdDate expects that an impossible Date causes no loop and no use of an expired
// certificate.
func TestAbsurdDate(t *testing.T) {
	t.Parallel()
	for _, year := range []int{1970, 2090} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, time.Hour)
			w.ca.dated = time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC).Format(http.TimeFormat)
			stop := w.watch(w.source())
			time.Sleep(6 * time.Hour)
			stop()
			w.check()
			if n := len(w.leaves()); n < 9 || n > 65 {
				t.Errorf("%d: %d certificates in six hours", year, n)
			}
		})
	}
}
