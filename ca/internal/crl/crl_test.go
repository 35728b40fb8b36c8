package crl_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.step.sm/crypto/pemutil"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/crl"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/internal/keytype"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/revocation"
)

func newIssuer(t testing.TB, key crypto.Signer) *x509.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}, SubjectKeyId: []byte{1, 2, 3}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCRLSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// What is signed is what the standard library would have signed, to the byte.
func TestCRLIsTheStandardLibrarys(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Truncate(time.Second).Add(time.Second / 2)
	var listed []record.RevokedEntry
	for i, reason := range []int{0, 1, 2, 3, 4, 5, 9, 10} {
		serial := new(big.Int).Lsh(big.NewInt(int64(i+1)), uint(20*i)) // some with a leading bit that DER pads
		listed = append(listed, record.RevokedEntry{Serial: serial.String(), RevokedAt: now.AddDate(i*6-10, 0, 0), Reason: reason, NotAfter: now.Add(time.Hour)})
	}
	for name, key := range map[string]crypto.Signer{"EC-P256": newKey(t), "Ed25519": ed, "RSA": rsaKey} {
		for _, n := range []int{0, 1, len(listed)} {
			t.Run(fmt.Sprint(name, n), func(t *testing.T) {
				cert := newIssuer(t, key)
				var ends []int64
				tmpl := &x509.RevocationList{Number: big.NewInt(now.UnixMicro()), ThisUpdate: now, NextUpdate: now.AddDate(30, 0, 0)}
				for _, l := range listed[:n] {
					serial, _ := new(big.Int).SetString(l.Serial, 10)
					tmpl.RevokedCertificateEntries = append(tmpl.RevokedCertificateEntries,
						x509.RevocationListEntry{SerialNumber: serial, RevocationTime: l.RevokedAt, ReasonCode: l.Reason})
					ends = append(ends, l.NotAfter.Unix()+1) // in whole seconds: not before it has ended
				}
				if n > 0 {
					value, err := revocation.EncodeEnds(now, ends)
					if err != nil {
						t.Fatal(err)
					}
					tmpl.ExtraExtensions = []pkix.Extension{{Id: revocation.OIDEnds, Value: value}}
				}
				der, err := x509.CreateRevocationList(rand.Reader, tmpl, cert, key)
				if err != nil {
					t.Fatal(err)
				}
				want, err := x509.ParseRevocationList(der)
				if err != nil {
					t.Fatal(err)
				}
				gone := record.RevokedEntry{Serial: "77", RevokedAt: now, NotAfter: now} // has just expired
				ours, err := crl.Sign(cert, key, tmpl, append([]record.RevokedEntry{gone}, listed[:n]...))
				if err != nil {
					t.Fatal(err)
				}
				got, err := x509.ParseRevocationList(ours)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got.RawTBSRevocationList, want.RawTBSRevocationList) {
					t.Errorf("signed\n%x, the standard library\n%x", got.RawTBSRevocationList, want.RawTBSRevocationList)
				}
				if err := got.CheckSignatureFrom(cert); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestCRLRefuses(t *testing.T) {
	key := newKey(t)
	cert, tmpl := newIssuer(t, key), &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	if _, err := crl.Sign(cert, key, tmpl, []record.RevokedEntry{{Serial: "x"}}); err == nil || !strings.Contains(err.Error(), `serial "x"`) {
		t.Errorf("a serial that is no number: %v", err)
	}
	if _, err := crl.Sign(cert, newKey(t), tmpl, nil); err == nil || !strings.Contains(err.Error(), "signing the CRL") {
		t.Errorf("another key: %v", err)
	}
}

// world is lists over the record of an authority, as another process would have them.
type world struct {
	*crl.Lists
	record  *store.Store
	dir     string
	issuing *x509.Certificate
}

// start makes an authority with n certificates, whose serials are 1000001 and up.
func start(t testing.TB, n int) *world {
	t.Helper()
	c := catest.Start(t, catest.Options{})
	issuing := certificate(t, filepath.Join(c.Dir, "certs", "intermediate_ca.crt"))
	damage.Certificates(t, c.Dir, damage.Issued{Service: "many", Issuer: cacert.KeyID(issuing), First: 1_000_001, Count: n})
	s, err := store.Open(t.Context(), filepath.Join(c.Dir, "pki.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	key := func(c1 *x509.Certificate) (crypto.Signer, error) {
		key, err := pemutil.Read(filepath.Join(c.Dir, "secrets", certs.Fingerprint(c1)+".key"))
		if err != nil {
			return nil, err
		}
		return key.(crypto.Signer), nil
	}
	return &world{crl.New(crl.Config{Record: s, Key: key, Logger: slog.New(slog.DiscardHandler)}), s, c.Dir, issuing}
}

func certificate(t testing.TB, path string) *x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pemfile.Certificates(data)
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := keytype.New(keytype.P256)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// made is how many entries the list of the intermediate has, and when it was made.
func (w *world) made(ctx context.Context, exact bool) (entries int, at time.Time, err error) {
	l, err := w.Get(ctx, w.issuing, nil, exact)
	if err != nil {
		return 0, at, err
	}
	return l.Entries(), l.Made(), nil
}

func (w *world) revoke(t testing.TB, serial int) {
	t.Helper()
	err := w.record.Revoke(t.Context(), store.RevokeRequest{Revocation: record.Revocation{Serial: fmt.Sprint(serial), RevokedAt: time.Now(), Reason: 1, Caller: "test"}})
	if err != nil {
		t.Fatal(err)
	}
}

// A short list tells of a revocation at once. A long one is made once a second:
// who asks for /crl gets the old one meanwhile, who asks for /revoked waits for
// the new one. Revocations come from another process.
func TestLongListsArePaced(t *testing.T) {
	w := start(t, 1202)
	damage.Certificates(t, w.dir, damage.Issued{Service: "one", Issuer: cacert.KeyID(w.issuing), First: 2_000_001, Count: 1})
	ctx := t.Context()
	made := func(exact bool) (int, time.Time) {
		t.Helper()
		n, at, err := w.made(ctx, exact)
		if err != nil {
			t.Fatal(err)
		}
		return n, at
	}
	for i := 1; i <= 3; i++ {
		w.revoke(t, 1_000_000+i)
		if n, _ := made(false); n != i {
			t.Errorf("%d entries after %d revocations", n, i)
		}
	}
	if n, err := w.record.RevokeSet(ctx, record.Selection{Service: "many"}, record.Revocation{RevokedAt: time.Now(), Caller: "test"}); err != nil || n != 1199 {
		t.Fatalf("%d revoked, %v", n, err)
	}
	n, first := made(false)
	if n != 1202 {
		t.Errorf("%d entries, want 1202", n)
	}
	w.revoke(t, 2_000_001)
	if n, at := made(false); n != 1202 && at.Sub(first) < time.Second {
		t.Errorf("%d entries %s after the last list", n, at.Sub(first))
	}
	if n, at := made(true); n != 1203 || at.Sub(first) < time.Second {
		t.Errorf("exactly: %d entries %s after the last list, want 1203 after a second", n, at.Sub(first))
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := w.made(cancelled, true); err == nil {
		t.Error("a request that is over got a list")
	}
	set := time.Now().Truncate(time.Second)
	w.SetClock(w.issuing, set.Add(time.Hour)) // the clock was set back by an hour
	if n, at := made(true); n != 1203 || at.Before(set) || at.After(time.Now()) {
		t.Errorf("after the clock was set back: %d entries, made at %s", n, at)
	}
	w.SetClock(w.issuing, set.Add(-13*time.Hour))
	if n, at := made(false); n != 1203 || at.Before(set) || at.After(time.Now()) {
		t.Errorf("past half of its life: %d entries, made at %s", n, at)
	}
}

// A list that could not be signed is not taken for one that has nothing new.
func TestListsAfterAFailure(t *testing.T) {
	w := start(t, 1)
	if n, _, err := w.made(t.Context(), true); err != nil || n != 0 {
		t.Fatalf("%d %v", n, err)
	}
	good := w.SwapKey(w.issuing, newKey(t))
	w.revoke(t, 1_000_001)
	for range 2 {
		if n, _, err := w.made(t.Context(), true); err == nil {
			t.Errorf("a wrong key signed a list of %d", n)
		}
	}
	w.SwapKey(w.issuing, good)
	if n, _, err := w.made(t.Context(), true); err != nil || n != 1 {
		t.Errorf("%d entries, %v", n, err)
	}
}

// BenchmarkRevoke revokes one certificate after the other, and fetches the list
// after each: run with -benchtime 100000x. It tells the processor time apart, for a
// disk that is busy with others says nothing about lists.
func BenchmarkRevoke(b *testing.B) {
	w := start(b, b.N)
	b.ResetTimer()
	before := cpuTime(b)
	for i := range b.N { // not b.Loop: there must be as many certificates
		w.revoke(b, 1_000_001+i)
		if _, _, err := w.made(b.Context(), false); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

// cpuTime is what this process has used: on a busy machine the clock says little.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
