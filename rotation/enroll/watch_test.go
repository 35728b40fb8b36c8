package enroll_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/secret"
)

// TestDayOfRenewals runs a day with certificates of an hour: every renewal is within
// [0.60, 0.70] of the life, there is no gap, and no token after the first.
func TestDayOfRenewals(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		stop := w.watch(w.source())
		w.setToken(secret.String{})
		time.Sleep(24 * time.Hour)
		stop()
		w.check()
		leaves := w.leaves()
		if len(leaves) < 34 || len(leaves) > 41 {
			t.Errorf("%d certificates in 24 h, want 24/0.7 … 24/0.6", len(leaves))
		}
		shares := map[int]bool{}
		for i := 1; i < len(leaves); i++ {
			d := leaves[i].NotAfter.Sub(leaves[i-1].NotAfter).Seconds() / 3600
			if d < 0.599 || d > 0.702 {
				t.Errorf("renewal %d at %.3f of the life", i, d)
			}
			shares[int(d*1000)] = true
		}
		if len(shares) < 10 {
			t.Errorf("renewals are not spread: %v", shares)
		}
		if n := w.ca.count(stepapi.PathSign); n != 1 {
			t.Errorf("%d enrolments, want 1", n)
		}
		if n := w.ca.count(stepapi.PathRoots); n < 24*6*8/10 || n > 24*6*12/10+2 {
			t.Errorf("%d looks at the bundle in 24 h, want about 144", n)
		}
		for _, d := range w.ca.digests {
			if d != stepapi.TrustDigest(w.ca.bundle()) {
				t.Errorf("reported digest %q", d)
			}
		}
	})
}

// TestOutageOfSixHours takes the authority away for six hours of a day's life. Nothing
// expires, the attempts are few, and the renewal comes soon after the outage.
func TestOutageOfSixHours(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 24*time.Hour)
		stop := w.watch(w.source())
		time.Sleep(14 * time.Hour) // renewal falls between 14.4 h and 16.8 h
		w.net.setDown(true)
		time.Sleep(6 * time.Hour)
		if n := len(w.leaves()); n != 1 {
			t.Fatalf("%d certificates during the outage", n)
		}
		if n := strings.Count(w.log.String(), "certificate not renewed"); n < 10 || n > 100 {
			t.Errorf("%d attempts in the outage, want a dozen or two", n)
		}
		w.net.setDown(false)
		time.Sleep(20*time.Minute + time.Second) // the longest step
		if n := len(w.leaves()); n != 2 {
			t.Error("not renewed within the longest step after the outage")
		}
		stop()
		w.check()
		if strings.Contains(w.log.String(), "level=ERROR") {
			t.Errorf("an outage that heals needs nobody to act:\n%s", w.log.String())
		}
	})
}

// TestExpiredEnrolsAgain expects that a token is used after an outage that is longer
// than the certificate lives.
func TestExpiredEnrolsAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		stop := w.watch(w.source())
		w.setToken(secret.String{})
		w.net.setDown(true)
		time.Sleep(2 * time.Hour)
		w.net.setDown(false)
		time.Sleep(10 * time.Minute)
		if len(w.leaves()) != 1 || !strings.Contains(w.log.String(), "level=ERROR msg=\"certificate not renewed\"") {
			t.Errorf("expired without a token: want an Error in the log:\n%s", w.log.String())
		}
		w.setToken(w.ca.token("ingester", "ingester"))
		time.Sleep(3*time.Minute + time.Second) // life/20: a refusal, and there is no token
		if n := len(w.leaves()); n != 2 {
			t.Errorf("%d certificates after a new token, want 2", n)
		}
		stop()
	})
}

// TestDeniedUsesToken expects that a token is used at once if the authority refuses the
// certificate.
func TestDeniedUsesToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		stop := w.watch(w.source())
		w.setToken(secret.String{})
		w.ca.setFault(func(r *http.Request) *stepapi.Error {
			if strings.HasSuffix(r.URL.Path, stepapi.PathRekey) {
				return &stepapi.Error{Status: http.StatusUnauthorized, Message: "the certificate is revoked"}
			}
			return nil
		})
		time.Sleep(50 * time.Minute)
		denied := w.ca.count(stepapi.PathRekey)
		if denied < 2 || denied > 30 {
			t.Errorf("%d attempts while denied: want slow ones", denied)
		}
		w.setToken(w.ca.token("ingester", "ingester"))
		time.Sleep(3 * time.Minute)
		stop()
		w.check()
		if n := len(w.leaves()); n != 2 {
			t.Errorf("%d certificates, want 2:\n%s", n, w.log.String())
		}
	})
}

// TestSuspendHealsWithinOneTick expects a renewal within 30 s after a machine was
// suspended: its timers stop, and its wall clock does not.
func TestSuspendHealsWithinOneTick(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 24*time.Hour)
		var mu sync.Mutex
		var slept time.Duration
		src := w.source()
		src.SetClock(func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Add(slept)
		})
		stop := w.watch(src)
		time.Sleep(10 * time.Second)
		mu.Lock()
		slept = 20 * time.Hour
		mu.Unlock()
		time.Sleep(31 * time.Second)
		if n := len(w.leaves()); n != 2 {
			t.Errorf("%d certificates one tick after waking, want 2", n)
		}
		stop()
	})
}

// TestRestartReusesStored expects that a restart with a valid certificate needs neither
// token nor authority.
func TestRestartReusesStored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		w.watch(w.source())()
		w.net.setDown(true)
		w.cfg.Token = nil
		time.Sleep(10 * time.Minute)
		for range 3 {
			w.watch(w.source())()
		}
		if len(w.leaves()) != 1 || w.count() != 4 {
			t.Errorf("%d certificates in %d yields, want one in 4", len(w.leaves()), w.count())
		}
		// The plan counts from the issue, not from the restart.
		w.net.setDown(false)
		stop := w.watch(w.source())
		time.Sleep(32*time.Minute + 30*time.Second)
		stop()
		if len(w.leaves()) != 2 {
			t.Error("the restart put the renewal off")
		}
		w.check()
	})
}

// TestLostAnswerHeals loses the answer to an enrolment twice. The same token still
// works, from another process too.
func TestLostAnswerHeals(t *testing.T) {
	t.Parallel()
	for _, inMemory := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, time.Hour)
			if inMemory {
				w.cfg.Dir, w.cfg.InMemory = "", true
			}
			w.ca.setFault(func(r *http.Request) *stepapi.Error {
				if strings.HasSuffix(r.URL.Path, stepapi.PathSign) {
					return &stepapi.Error{}
				}
				return nil
			})
			src := w.source()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if err := src.Watch(ctx, w.yield); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, io.EOF) || w.count() != 0 {
				t.Fatalf("lost answer: %v; want what it waited for as well", err)
			}
			if n := w.ca.count(stepapi.PathSign); n < 2 {
				t.Errorf("%d attempts in 5 s", n)
			}
			w.ca.setFault(nil)
			if !inMemory {
				src = w.source()
			}
			stop := w.watch(src)
			time.Sleep(time.Minute) // the backoff of the failed attempts
			stop()
			if n := len(w.ca.certificates()); n != 1 || len(w.leaves()) != 1 {
				t.Errorf("%d certificates issued, %d yielded; want one", n, len(w.leaves()))
			}
			w.check()
		})
	}
}

// TestUnusableStoreEnrolsAgain expects that a stored identity that is damaged, expired
// or refused by the gate is replaced if there is a token.
func TestUnusableStoreEnrolsAgain(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(w *world){
		"damaged": func(w *world) {
			if err := os.Truncate(filepath.Join(w.cfg.Dir, "ca.crt"), 20); err != nil {
				w.t.Fatal(err)
			}
		},
		"over":    func(*world) { time.Sleep(2 * time.Hour) },
		"refused": func(w *world) { w.setRefuseSerial(w.last().Version) },
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, time.Hour)
			w.watch(w.source())()
			spoil(w)
			w.setToken(w.ca.token("ingester", "ingester"))
			w.watch(w.source())()
			if len(w.leaves()) != 2 || !strings.Contains(w.log.String(), "level=ERROR msg=\"stored ") {
				t.Errorf("%s: %d certificates:\n%s", name, len(w.leaves()), w.log.String())
			}
			if name == "refused" { // without a token the reason is all there is to give
				w.setRefuseSerial(w.last().Version)
				w.cfg.Token = nil
				if err := w.source().Watch(t.Context(), w.yield); err == nil || !strings.Contains(err.Error(), "not this one") {
					t.Errorf("Watch = %v", err)
				}
			}
		})
	}
}

// TestUnwritableDirectory expects that the old identity stays in effect if the new one
// cannot be stored, and that the log says so.
func TestUnwritableDirectory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		stop := w.watch(w.source())
		link := filepath.Join(w.cfg.Dir, "tls.crt")
		if err := errors.Join(os.Remove(link), os.Mkdir(link, 0o700)); err != nil { // as an operator might
			t.Fatal(err)
		}
		time.Sleep(50 * time.Minute)
		if len(w.leaves()) != 1 || !strings.Contains(w.log.String(), "not ours to replace") {
			t.Errorf("%d certificates:\n%s", len(w.leaves()), w.log.String())
		}
		if err := os.Remove(link); err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Minute) // retries are an eighth of the life apart at most
		stop()
		w.check()
		if len(w.leaves()) != 2 {
			t.Error("not renewed after the directory was repaired")
		}
	})
}
