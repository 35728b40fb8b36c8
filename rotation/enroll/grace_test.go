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

// An outage that outlasts the certificate: within the grace no token is needed,
// while running and at a start.
func TestGraceNeedsNoToken(t *testing.T) {
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

// Beyond the grace the token is the way, in memory as well; the verdict is asked for once per attempt.
func TestBeyondGraceEnrols(t *testing.T) {
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

// Without any way the reason is in the error, and a running service goes on asking.
func TestBeyondGraceWithoutToken(t *testing.T) {
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

// A stock step-ca takes renewal tokens for the same key only.
func TestGraceOfStepCA(t *testing.T) {
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
