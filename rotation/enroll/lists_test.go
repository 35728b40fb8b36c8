package enroll_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/internal/testpki"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// isRevoked asks the lists of a material.
func isRevoked(m rotation.Material, c *x509.Certificate) bool {
	return slices.ContainsFunc(m.Revoked, func(l *x509.RevocationList) bool {
		return slices.ContainsFunc(l.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(c.SerialNumber) == 0 })
	})
}

// TestListsAreKept expects that the lists are fetched soon after the start and with each
// refresh, cause no publication while nothing changes, are stored, and are there after a
// restart without the authority.
func TestListsAreKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		src := w.source()
		stop := w.watch(src)
		time.Sleep(35 * time.Second)
		if n := len(w.last().Revoked); n != 1 || len(w.last().Issuers) != 0 {
			t.Fatalf("%d lists, %d issuers soon after the start; want one of the own issuer", n, len(w.last().Issuers))
		}
		yields := w.count()
		time.Sleep(30 * time.Minute)
		if w.count() != yields || w.ca.count(stepapi.PathRevoked) < 3 {
			t.Errorf("%d yields after %d looks at the same lists", w.count()-yields, w.ca.count(stepapi.PathRevoked))
		}
		victim := w.last().Certificate.Leaf // any will do
		w.ca.revoke(victim)
		time.Sleep(12 * time.Minute)
		if !isRevoked(w.last(), victim) {
			t.Error("a revocation did not arrive with the next look")
		}
		st := src.Status()
		if st.RevokedLists != 1 || st.RevokedSerials != 1 || time.Since(st.RevokedAt) > 12*time.Minute || st.RevokedError != "" {
			t.Errorf("status %+v", st)
		}
		w.ca.activate(t) // the old issuer is then known by the list alone
		time.Sleep(time.Hour)
		if m := w.last(); len(m.Revoked) != 2 || len(m.Issuers) != 1 || !isRevoked(m, victim) {
			t.Errorf("after a change of the intermediate: %d lists, %d issuers", len(m.Revoked), len(m.Issuers))
		}
		stop()
		w.check()
		w.net.setDown(true)
		w.watch(w.source())()
		if m := w.last(); len(m.Revoked) != 2 || len(m.Issuers) != 1 || !isRevoked(m, victim) {
			t.Errorf("after a restart: %d lists, %d issuers", len(m.Revoked), len(m.Issuers))
		}
		copied := t.TempDir()
		if err := enroll.WriteFiles(copied, w.last()); err != nil {
			t.Fatal(err)
		}
		one, err := os.ReadFile(filepath.Join(w.cfg.Dir, "crl.pem"))
		two, again := os.ReadFile(filepath.Join(copied, "crl.pem"))
		if err := errors.Join(err, again); err != nil || !bytes.Equal(one, two) || bytes.Count(one, []byte("BEGIN X509 CRL")) != 2 || bytes.Count(one, []byte("BEGIN CERTIFICATE")) != 1 {
			t.Errorf("crl.pem: %v\n%s", err, one)
		}
		bare := w.last()
		bare.Revoked, bare.Issuers = nil, nil
		if err := enroll.WriteFiles(copied, bare); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(filepath.Join(copied, "crl.pem")); err == nil {
			t.Error("crl.pem dangles")
		}
	})
}

// TestFirstHasLists expects that a source publishes its first certificate with the lists, in one
// generation, and without them if they cannot be fetched: then they follow soon.
func TestFirstHasLists(t *testing.T) {
	t.Parallel()
	for name, failing := range map[string]bool{"served": false, "failing": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, time.Hour)
				if failing {
					w.ca.setFault(func(r *http.Request) *stepapi.Error {
						if strings.HasSuffix(r.URL.Path, stepapi.PathRevoked) {
							return &stepapi.Error{Status: http.StatusServiceUnavailable}
						}
						return nil
					})
				}
				stop := w.watch(w.source())
				if got := len(w.last().Revoked); w.count() != 1 || got > 0 == failing {
					t.Errorf("%d lists in the first of %d generations", got, w.count())
				}
				w.ca.setFault(nil)
				time.Sleep(35 * time.Second)
				if got := len(w.last().Revoked); got != 1 || w.count() > 1 != failing {
					t.Errorf("%d lists in %d generations soon after", got, w.count())
				}
				stop()
				w.check()
			})
		})
	}
}

// TestListsFailApart expects that a failure of the lists delays nothing else, and that
// lists that do not verify are not used.
func TestListsFailApart(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		spoil func(w *world)
		want  string
	}{
		"hanging": {func(w *world) {
			w.ca.setFault(func(r *http.Request) *stepapi.Error {
				if strings.HasSuffix(r.URL.Path, stepapi.PathRevoked) {
					<-r.Context().Done()
					return &stepapi.Error{Status: 503}
				}
				return nil
			})
		}, "level=WARN msg=\"revoked lists not refreshed\""},
		"of another key": {func(w *world) {
			w.ca.mu.Lock()
			w.ca.forger = testpki.Root(w.t, "Mallory")
			w.ca.mu.Unlock()
		}, "verifying the revoked list"},
		"not there any more": {func(w *world) {
			w.ca.mu.Lock()
			w.ca.stock = true
			w.ca.mu.Unlock()
		}, "level=WARN msg=\"the authority serves no revoked lists any more, the last ones stay in effect\" lists=1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, time.Hour)
				victim := testpki.Root(t, "Victim").Cert
				src := w.source()
				stop := w.watch(src)
				time.Sleep(time.Minute)
				before := w.last().Revoked
				tc.spoil(w)
				w.ca.revoke(victim)
				w.ca.addRoot(t)
				time.Sleep(50 * time.Minute)
				st := src.Status()
				stop()
				w.check()
				if len(w.leaves()) != 2 || len(w.last().Roots) != 2 {
					t.Errorf("%d certificates, %d roots: held up", len(w.leaves()), len(w.last().Roots))
				}
				if len(before) != 1 || len(w.last().Revoked) != 1 || !bytes.Equal(w.last().Revoked[0].Raw, before[0].Raw) {
					t.Error("the list in effect changed")
				}
				if !strings.Contains(w.log.String(), tc.want) {
					t.Errorf("the log lacks %q:\n%s", tc.want, w.log.String())
				}
				if (st.RevokedFailures > 0) != (name != "not there any more") || (st.RevokedError != "") != (st.RevokedFailures > 0) || st.TrustFailures != 0 {
					t.Errorf("status %+v", st)
				}
			})
		})
	}
}

// TestRefusedLists expects that the lists before stay in effect and on disk if the gate
// refuses new ones.
func TestRefusedLists(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		stop := w.watch(w.source())
		time.Sleep(time.Minute)
		w.setRefuse(errors.New("too old"))
		victim := w.last().Certificate.Leaf
		w.ca.revoke(victim)
		time.Sleep(25 * time.Minute)
		if !strings.Contains(w.log.String(), `level=ERROR msg="revoked lists not refreshed"`) {
			t.Errorf("not told:\n%s", w.log.String())
		}
		w.check()
		w.setRefuse(nil)
		time.Sleep(12 * time.Minute) // nothing was remembered as seen
		if !isRevoked(w.last(), victim) {
			t.Error("the lists did not come after the gate had opened")
		}
		stop()
	})
}

// TestListsLeaveWithTheirRoot expects that a list is dropped with the last root of its
// issuer.
func TestListsLeaveWithTheirRoot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		stop := w.watch(w.source())
		time.Sleep(5 * time.Minute)
		w.ca.addRoot(t)
		time.Sleep(12 * time.Minute)
		w.ca.activate(t)
		time.Sleep(time.Hour)
		if m := w.last(); len(m.Revoked) != 2 || len(m.Issuers) != 1 {
			t.Fatalf("%d lists, %d issuers", len(m.Revoked), len(m.Issuers))
		}
		w.ca.mu.Lock()
		w.ca.retired = nil
		w.ca.mu.Unlock()
		w.ca.dropRoot(t)
		time.Sleep(12 * time.Minute)
		stop()
		w.check()
		if m := w.last(); len(m.Roots) != 1 || len(m.Revoked) != 1 || len(m.Issuers) != 0 {
			t.Errorf("%d roots, %d lists, %d issuers", len(m.Roots), len(m.Revoked), len(m.Issuers))
		}
	})
}

// crl makes a list of an issuer.
func crl(t testing.TB, issuer *testpki.Pair, number int64, at time.Time) *x509.RevocationList {
	t.Helper()
	return issuer.List(t, &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: at, NextUpdate: at.Add(time.Hour)})
}

// TestMerge expects that the newer list of an issuer is taken, in whatever order they
// come, and that lists of other issuers stay.
func TestMerge(t *testing.T) {
	one, two := testpki.Root(t, "One"), testpki.Root(t, "Two")
	now := time.Now().Truncate(time.Second)
	old, same, fresh, other := crl(t, one, 1, now), crl(t, one, 2, now), crl(t, one, 1, now.Add(time.Second)), crl(t, two, 1, now)
	for _, tc := range []struct{ have, got, want []*x509.RevocationList }{
		{nil, []*x509.RevocationList{old}, []*x509.RevocationList{old}},
		{[]*x509.RevocationList{old}, []*x509.RevocationList{same}, []*x509.RevocationList{same}},
		{[]*x509.RevocationList{same}, []*x509.RevocationList{old}, []*x509.RevocationList{same}},
		{[]*x509.RevocationList{same}, []*x509.RevocationList{fresh, other}, []*x509.RevocationList{fresh, other}},
		{[]*x509.RevocationList{fresh, other}, []*x509.RevocationList{same}, []*x509.RevocationList{fresh, other}},
	} {
		got := enroll.Merge(tc.have, tc.got, one.Cert, two.Cert)
		if !slices.EqualFunc(got, tc.want, func(a, b *x509.RevocationList) bool { return bytes.Equal(a.Raw, b.Raw) }) {
			t.Errorf("%d and %d lists became %d", len(tc.have), len(tc.got), len(got))
		}
	}
}

func TestParseLists(t *testing.T) {
	m := material(t, "service")
	issuer, stranger := testpki.Root(t, "Issuer"), testpki.Root(t, "Stranger")
	now := time.Now()
	file := func(lists []*x509.RevocationList, certs ...*x509.Certificate) string {
		return string(enroll.EncodeLists(lists, certs))
	}
	list := crl(t, issuer, 1, now)
	good := file([]*x509.RevocationList{list}, issuer.Cert)
	if n, err := enroll.ParseLists(m, []byte(good)); n != 1 || err != nil {
		t.Errorf("%d lists, %v", n, err)
	}
	if n, err := enroll.ParseLists(m, nil); n != 0 || err != nil {
		t.Errorf("nothing: %d lists, %v", n, err)
	}
	if n, err := enroll.ParseLists(m, []byte(file(nil, issuer.Cert))); n != 0 || err != nil {
		t.Errorf("an issuer alone: %d lists, %v", n, err)
	}
	for want, data := range map[string]string{
		"no known issuer":    file([]*x509.RevocationList{list}, stranger.Cert),
		"of one issuer":      file([]*x509.RevocationList{list, crl(t, issuer, 2, now)}, issuer.Cert),
		"damaged PEM":        "x" + good,
		"not PEM after":      good + "x",
		"parsing revocation": strings.Replace(good, "X509 CRL-----\nM", "X509 CRL-----\nX", 1),
		"before block 1":     "-----BEGIN X509 CRL-----\nMII\n" + good,
		"before block":       file(nil, issuer.Cert)[:100] + "\n" + file(nil, issuer.Cert),
		"not PEM":            "nothing",
	} {
		if n, err := enroll.ParseLists(m, []byte(data)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d lists, %v; want …%s…", n, err, want)
		}
	}
}

// FuzzLists: any file is an error or lists that each verify by an issuer.
func FuzzLists(f *testing.F) {
	m := material(f, "service")
	issuer := testpki.Root(f, "Issuer")
	f.Add(enroll.EncodeLists([]*x509.RevocationList{crl(f, issuer, 1, time.Now())}, []*x509.Certificate{issuer.Cert}))
	f.Add([]byte("-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"))
	f.Add([]byte(" \n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := enroll.ParseLists(m, data)
		if err == nil && n != bytes.Count(data, []byte("-----END X509 CRL-----")) {
			t.Errorf("%d lists of %q", n, data)
		}
	})
}
