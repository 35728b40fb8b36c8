package enroll_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/internal/testpki"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// TestTrustChange expects that an added root is fetched, stored, published with the same
// certificate, and reported with the next renewal; then the authority signs under it and
// removes the old one.
func TestTrustChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		stop := w.watch(w.source())
		w.ca.addRoot(t)
		time.Sleep(12 * time.Minute)
		if len(w.leaves()) != 1 || len(w.last().Roots) != 2 {
			t.Fatalf("%d certificates, %d roots; want the old one with both roots", len(w.leaves()), len(w.last().Roots))
		}
		time.Sleep(time.Hour)
		if i := slices.Index(w.ca.digests, stepapi.TrustDigest(w.ca.bundle())); i < 0 {
			t.Error("the new digest was not reported")
		}
		w.ca.activate(t)
		time.Sleep(time.Hour)
		w.ca.dropRoot(t)
		time.Sleep(time.Hour)
		stop()
		w.check()
		if n := len(w.last().Roots); n != 1 {
			t.Errorf("%d roots at the end, want the new one", n)
		}
	})
}

// TestRenewalUnderNewRootLooksAgain lets the authority sign under a root that this side
// does not have yet.
func TestRenewalUnderNewRootLooksAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		w.cfg.TrustRefresh = 100 * time.Hour
		stop := w.watch(w.source())
		time.Sleep(time.Minute) // past the first look at the bundle
		w.ca.addRoot(t)
		// The issuer moves; the server's own certificate stays under the old root.
		served := w.ca.served
		w.ca.activate(t)
		w.ca.mu.Lock()
		w.ca.served = served
		w.ca.mu.Unlock()
		time.Sleep(45 * time.Minute)
		stop()
		w.check()
		if len(w.leaves()) != 2 || len(w.last().Roots) != 2 {
			t.Errorf("%d certificates, %d roots; want 2 and 2:\n%s", len(w.leaves()), len(w.last().Roots), w.log.String())
		}
	})
}

// TestJobsFailApart expects that a failure of one task does not delay the other.
func TestJobsFailApart(t *testing.T) {
	t.Parallel()
	for _, broken := range []string{stepapi.PathRoots, stepapi.PathRekey} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, time.Hour)
			stop := w.watch(w.source())
			w.ca.setFault(func(r *http.Request) *stepapi.Error {
				if !strings.HasSuffix(r.URL.Path, broken) {
					return nil
				}
				_, _ = io.Copy(io.Discard, r.Body) // only then does the server notice that the client left
				<-r.Context().Done()
				return &stepapi.Error{Status: 503}
			})
			w.ca.addRoot(t)
			time.Sleep(50 * time.Minute)
			stop()
			w.check()
			renewed, trusted := len(w.leaves()) > 1, len(w.last().Roots) == 2
			if renewed != (broken == stepapi.PathRoots) || trusted != (broken == stepapi.PathRekey) {
				t.Errorf("with %s hanging: renewed %v, new trust %v", broken, renewed, trusted)
			}
		})
	}
}

// TestRefusedYield expects that the old generation stays in effect and on disk if the
// gate refuses the new one.
func TestRefusedYield(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		stop := w.watch(w.source())
		w.setRefuse(errors.New("no server usage"))
		w.ca.addRoot(t)
		time.Sleep(50 * time.Minute)
		if len(w.leaves()) != 1 || !strings.Contains(w.log.String(), `level=ERROR msg="trust bundle not refreshed"`) ||
			!strings.Contains(w.log.String(), `level=ERROR msg="certificate not renewed"`) {
			t.Errorf("refused: want errors in the log:\n%s", w.log.String())
		}
		w.check() // the disk still holds what was published
		w.setRefuse(nil)
		time.Sleep(12 * time.Minute) // the longest wait for a look
		stop()
		w.check()
		if len(w.leaves()) != 2 || len(w.last().Roots) != 2 {
			t.Errorf("%d certificates, %d roots after the gate opened", len(w.leaves()), len(w.last().Roots))
		}
	})
}

// TestAlertUsesToken lets the authority refuse the certificate in the handshake, as
// crypto/tls does with a client whose root it does not know. A token is used then.
func TestAlertUsesToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		stop := w.watch(w.source())
		w.setToken(w.ca.token("ingester", "ingester"))
		w.ca.mu.Lock()
		w.ca.clients = []*x509.Certificate{testpki.Root(t, "Other").Cert}
		w.ca.mu.Unlock()
		time.Sleep(45 * time.Minute)
		stop()
		w.check()
		if len(w.leaves()) != 2 || w.ca.count(stepapi.PathSign) != 2 {
			t.Errorf("%d certificates, %d enrolments; want 2 and 2:\n%s", len(w.leaves()), w.ca.count(stepapi.PathSign), w.log.String())
		}
	})
}

// TestStatus expects the status of each phase: empty, failing to start, good, failing,
// good again.
func TestStatus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		src := w.source()
		if src.Status() != (enroll.Status{}) {
			t.Errorf("before all: %+v", src.Status())
		}
		w.net.setDown(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := src.Watch(ctx, w.yield); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("Watch = %v", err)
		}
		if st := src.Status(); st.RenewalFailures < 3 || !strings.Contains(st.RenewalError, "connection refused") || st.Serial != "" || st.NextRenewal.IsZero() {
			t.Errorf("after a failed start: %+v", st)
		}
		w.net.setDown(false)
		stop := w.watch(src)
		time.Sleep(15 * time.Minute)
		good := src.Status()
		if good.RenewalFailures != 0 || good.RenewalError != "" || good.TrustError != "" || good.Serial != w.last().Version ||
			!good.NotAfter.Equal(w.last().Certificate.Leaf.NotAfter) || !good.NextRenewal.After(time.Now()) || !good.NextTrust.After(time.Now()) {
			t.Errorf("running: %+v", good)
		}
		w.net.setDown(true)
		time.Sleep(30 * time.Minute)
		if st := src.Status(); st.RenewalFailures < 1 || st.TrustFailures < 3 || !strings.Contains(st.TrustError, "refused") || st.Serial != good.Serial {
			t.Errorf("in an outage: %+v", st)
		}
		w.net.setDown(false)
		time.Sleep(12 * time.Minute) // the longest wait for a look
		if st := src.Status(); st.RenewalFailures+st.TrustFailures != 0 || st.Serial == good.Serial {
			t.Errorf("after it: %+v", st)
		}
		stop()
	})
}

// TestStaleTrustUsesConfiguredAnchor changes all certificates of the authority while the
// service is off. The configured fingerprint verifies it.
func TestStaleTrustUsesConfiguredAnchor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 24*time.Hour)
		w.watch(w.source())()
		w.ca.addRoot(t)
		w.ca.activate(t)
		w.ca.dropRoot(t)
		stop := w.watch(w.source())
		time.Sleep(10 * time.Minute)
		stop()
		if st := stepapi.TrustDigest(w.last().Roots); st == stepapi.TrustDigest(w.ca.bundle()) {
			t.Error("the new root came out of nowhere")
		}
		w.cfg.RootFingerprint = certs.Fingerprint(testpki.Root(t, "Another").Cert)
		src := w.source()
		stop = w.watch(src)
		time.Sleep(10 * time.Minute)
		stop()
		if st := src.Status(); !strings.Contains(st.TrustError, "by the configured anchor") || len(w.leaves()) != 1 {
			t.Errorf("a wrong anchor: %+v", st)
		}
		// With the right fingerprint the authority is trusted again. It does not know our root any more, so a token is used at once.
		w.cfg.RootFingerprint = certs.Fingerprint(w.ca.bundle()[0])
		w.setToken(w.ca.token("ingester", "ingester"))
		stop = w.watch(w.source())
		time.Sleep(10 * time.Minute)
		stop()
		if stepapi.TrustDigest(w.last().Roots) != stepapi.TrustDigest(w.ca.bundle()) || len(w.leaves()) != 2 {
			t.Errorf("the configured anchor did not help:\n%s", w.log.String())
		}
	})
}

// TestWatchAgain expects that Watch, called again as by Identity.Reload, yields the
// identity that it has, in memory too, where there is no second token.
func TestWatchAgain(t *testing.T) {
	t.Parallel()
	for _, inMemory := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, time.Hour)
			if inMemory {
				w.cfg.Dir, w.cfg.InMemory = "", true
			}
			src := w.source()
			w.watch(src)()
			w.setToken(secret.String{})
			for range 2 {
				stop := w.watch(src)
				time.Sleep(43 * time.Minute) // past the latest point of renewal, 0.70 of an hour
				stop()
			}
			w.check()
			if n := len(w.leaves()); n < 3 || w.ca.count(stepapi.PathSign) != 1 {
				t.Errorf("%d certificates, %d enrolments", n, w.ca.count(stepapi.PathSign))
			}
		})
	}
}

// TestHonoursRetryAfter expects that Retry-After is obeyed unless the certificate would
// expire.
func TestHonoursRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		stop := w.watch(w.source())
		w.ca.header = http.Header{"Retry-After": {"240"}}
		w.ca.setFault(func(*http.Request) *stepapi.Error { return &stepapi.Error{Status: 503, Message: "busy"} })
		time.Sleep(50 * time.Minute)
		if n := w.ca.count(stepapi.PathRekey); n < 1 || n > 4 {
			t.Errorf("%d attempts, want at most one in 4 min", n)
		}
		w.ca.setFault(nil)
		time.Sleep(6 * time.Minute)
		stop()
		w.check()
		if len(w.leaves()) != 2 {
			t.Error("not renewed after Retry-After")
		}
	})
}

// TestShortLife uses certificates of ten seconds, like the demonstration.
func TestShortLife(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10*time.Second)
		stop := w.watch(w.source())
		time.Sleep(5 * time.Minute)
		stop()
		w.check()
		if n := len(w.leaves()); n < 42 || n > 52 {
			t.Errorf("%d certificates in 5 min", n)
		}
	})
}

// TestStartErrors expects that each start fails with its cause, and then succeeds.
func TestStartErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		good := w.token
		src := w.source()
		try := func(want string) {
			t.Helper()
			err := src.Watch(t.Context(), w.yield)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Watch = %v, want …%s…", err, want)
			}
		}
		w.setToken(secret.String{})
		try("no enrolment token")
		w.setToken(secret.New("abc"))
		try("not a JWT")
		w.setToken(good)
		w.setRefuse(errors.New("no server usage"))
		try("no server usage")
		w.setRefuse(nil)
		stop := w.watch(src)
		time.Sleep(time.Minute)
		if err := src.Watch(t.Context(), w.yield); err == nil || !strings.Contains(err.Error(), "watched already") {
			t.Errorf("second Watch: %v", err)
		}
		stop()
		if n := len(w.leaves()); n != 1 {
			t.Errorf("%d certificates", n)
		}
		w.check()
	})
}

// TestLogsHoldNoSecrets expects that no log line and no error has a key or a token,
// after many kinds of failures.
func TestLogsHoldNoSecrets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		src := w.source()
		secrets := strings.Split(w.token.Expose(), ".")[1:]
		w.ca.mu.Lock()
		saved := w.ca.tokens
		w.ca.tokens = map[string]*spent{} // the authority then quotes the whole token
		w.ca.mu.Unlock()
		err := src.Watch(t.Context(), w.yield)
		if err == nil {
			t.Fatal("the unknown token was accepted")
		}
		_, _ = w.log.Write([]byte(err.Error()))
		w.ca.mu.Lock()
		w.ca.tokens = saved
		w.ca.mu.Unlock()
		stop := w.watch(src)
		time.Sleep(90 * time.Minute)
		w.ca.setFault(func(*http.Request) *stepapi.Error {
			return &stepapi.Error{Status: 401, Message: "no " + w.getToken().Expose()}
		})
		time.Sleep(90 * time.Minute)
		stop()
		for _, m := range w.yields {
			key, err := pemfile.EncodePrivateKey(m.Certificate.PrivateKey.(crypto.Signer))
			if err != nil {
				t.Fatal(err)
			}
			secrets = append(secrets, strings.Split(string(key), "\n")[1:3]...)
		}
		for _, s := range append(secrets, "PRIVATE KEY") {
			if strings.Contains(w.log.String(), s) {
				t.Errorf("the log holds %q", s)
			}
		}
		if !strings.Contains(w.log.String(), "unknown token [redacted]") {
			t.Error("the authority's quotation was not blotted")
		}
	})
}
