package enroll_test

import (
	"crypto"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// TestGraceNeedsNoToken expects that no token is needed after an outage that is longer
// than the life of the certificate, within the grace of the authority: while running and
// at a start.
func TestGraceNeedsNoToken(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, time.Hour)
			w.ca.grace = 3 * time.Hour
			stop := w.watch(w.source())
			w.setToken(secret.String{})
			time.Sleep(time.Minute)
			w.net.setDown(true)
			if restart {
				stop()
				w.cfg.Token = nil
			}
			time.Sleep(2 * time.Hour)
			w.net.setDown(false)
			if restart {
				stop = w.watch(w.source())
			}
			time.Sleep(8 * time.Minute) // the longest step when it is over
			stop()
			leaves := w.leaves()
			if len(leaves) != 2 || w.ca.count(stepapi.PathSign) != 1 || w.ca.count(stepapi.PathRenew) != 0 {
				t.Fatalf("restart %v: %d certificates, %d enrolments:\n%s", restart, len(leaves), w.ca.count(stepapi.PathSign), w.log.String())
			}
			if leaves[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(leaves[1].PublicKey) {
				t.Error("the key was kept")
			}
			if n := len(w.ca.digests); n != 1 || w.ca.digests[0] != stepapi.TrustDigest(w.ca.bundle()) {
				t.Errorf("%d digests reported", n)
			}
		})
	}
}

// TestBeyondGraceEnrols expects that a token is used after the grace, in memory too, and
// that each attempt asks the authority for a renewal once.
func TestBeyondGraceEnrols(t *testing.T) {
	t.Parallel()
	for _, inMemory := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, time.Hour)
			w.ca.grace = time.Minute
			if inMemory {
				w.cfg.Dir, w.cfg.InMemory = "", true
			}
			src := w.source()
			w.watch(src)()
			time.Sleep(3 * time.Hour)
			w.setToken(w.ca.token("ingester", "ingester"))
			if !inMemory {
				src = w.source()
			}
			w.watch(src)()
			if len(w.leaves()) != 2 || w.ca.count(stepapi.PathSign) != 2 || w.ca.count(stepapi.PathRekey) != 1 {
				t.Errorf("%d certificates, %d enrolments, %d renewals:\n%s",
					len(w.leaves()), w.ca.count(stepapi.PathSign), w.ca.count(stepapi.PathRekey), w.log.String())
			}
		})
	}
}

// TestBeyondGraceWithoutToken expects an error with the reason, and that a running
// service goes on with its attempts.
func TestBeyondGraceWithoutToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		w.watch(w.source())()
		time.Sleep(2 * time.Hour)
		w.cfg.Token = nil
		err := w.source().Watch(t.Context(), w.yield)
		if err == nil || !strings.Contains(err.Error(), "expired too long ago") || !strings.Contains(err.Error(), "no enrolment token") {
			t.Errorf("Watch = %v", err)
		}
		if _, err := enroll.Renew(t.Context(), w.cfg); err == nil || !strings.Contains(err.Error(), "the certificate expired at 2000-01-01T01:00:00Z") {
			t.Errorf("Renew = %v", err)
		}
		w.ca.mu.Lock()
		w.ca.grace = 12 * time.Hour
		w.ca.mu.Unlock()
		if m, err := enroll.Renew(t.Context(), w.cfg); err != nil || time.Until(m.Certificate.Leaf.NotAfter) < 50*time.Minute {
			t.Errorf("Renew within the grace: %v", err)
		}
	})
}

// TestGraceOfStepCA expects that the old key is used with a stock step-ca, which accepts
// renewal tokens for the same key only.
func TestGraceOfStepCA(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		w.ca.grace, w.ca.stock = 3*time.Hour, true
		w.watch(w.source())()
		time.Sleep(2 * time.Hour)
		w.cfg.Token = nil
		stop := w.watch(w.source())
		time.Sleep(time.Hour)
		stop()
		if n := len(w.leaves()); n < 3 || w.ca.count(stepapi.PathRenew) != 1 {
			t.Errorf("%d certificates, %d renewals with the old key; want it renewed once, then with a new key:\n%s", n, w.ca.count(stepapi.PathRenew), w.log.String())
		}
		for _, want := range []string{"the authority serves no revoked lists\"", "level=INFO"} {
			if n := strings.Count(w.log.String(), want); n == 0 || n > 2 && want != "level=INFO" {
				t.Errorf("%q is %d times in the log", want, n)
			}
		}
		if _, err := os.Lstat(filepath.Join(w.cfg.Dir, "crl.pem")); err == nil {
			t.Error("there is a crl.pem")
		}
	})
}
