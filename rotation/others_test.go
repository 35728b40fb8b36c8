package rotation_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
)

// second is a certificate for another name than that of the service.
func second(t testing.TB, ca *testCA, edit func(*x509.Certificate)) rotation.Material {
	t.Helper()
	return ca.leaf(t, "second", func(c *x509.Certificate) {
		c.DNSNames, c.IPAddresses = []string{"second"}, nil
		if edit != nil {
			edit(c)
		}
	})
}

// servedLeaf asks the configuration which leaf it shows to a client that wants the name.
func servedLeaf(t testing.TB, ca *testCA, addr, name string) *x509.Certificate {
	t.Helper()
	p := newTicketClient(addr, ca.leaf(t, "client", nil))
	var leaf *x509.Certificate
	p.conf.ServerName = name
	p.conf.VerifyConnection = func(cs tls.ConnectionState) error { leaf = cs.PeerCertificates[0]; return nil }
	_, err := p.connect(t)
	if wrong, ok := errors.AsType[x509.HostnameError](err); ok {
		return wrong.Certificate
	}
	if err != nil {
		t.Fatalf("asking for %s: %v", name, err)
	}
	return leaf
}

// spoil makes the other pair in dir bad, and returns a part of what is said about it.
var spoil = map[string]func(t *testing.T, ca *testCA, dir string) (file, why string){
	"expired": func(t *testing.T, ca *testCA, dir string) (string, string) {
		write(t, dir, second(t, ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }))
		return "tls.crt", "expired at"
	},
	"missing key": func(t *testing.T, _ *testCA, dir string) (string, string) {
		must(t, os.Remove(filepath.Join(dir, "tls.key")))
		return "tls.key", "no such file"
	},
	"torn": func(t *testing.T, ca *testCA, dir string) (string, string) {
		b := chainPEM(t, second(t, ca, nil))
		put(t, filepath.Join(dir, "tls.crt"), b[:len(b)-100])
		return "tls.crt", "damaged PEM"
	},
	"wrong key": func(t *testing.T, ca *testCA, dir string) (string, string) {
		put(t, filepath.Join(dir, "tls.key"), keyPEM(t, second(t, ca, nil)))
		return "tls.key", "does not fit"
	},
}

// TestABadOtherCertificate expects that a bad other certificate affects no other one, at
// the start and later, and that the log has the name of its file.
func TestABadOtherCertificate(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	for name, spoil := range spoil {
		for _, later := range []bool{false, true} {
			t.Run(map[bool]string{true: "later", false: "at the start"}[later]+" "+name, func(t *testing.T) {
				t.Parallel()
				ca, dir := newCA(t, "ca"), t.TempDir()
				own, other := filepath.Join(dir, "own"), filepath.Join(dir, "other")
				f := write(t, own, noAddress(t, ca))
				good := second(t, ca, nil)
				pair := write(t, other, good)
				f.Others, f.Poll = []files.Pair{{Cert: pair.Cert, Key: pair.Key}}, time.Hour
				var file, why string
				if !later {
					file, why = spoil(t, ca, other)
				}
				var log logs
				id, err := rotation.Open(t.Context(), rotation.Config{Source: files.Source(f), Logger: log.logger()})
				must(t, err)
				defer func() { _ = id.Close() }()
				conf, err := id.ServerTLSConfig(rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()})
				must(t, err)
				addr := accept(t, conf)
				if later {
					file, why = spoil(t, ca, other)
				}
				waitFor(t, "a word about the bad one", func() bool { return id.Status().Others[0].Error != "" })

				st := id.Status().Others[0]
				if st.Served != later || !strings.Contains(st.Error, why) || !strings.Contains(st.Error, filepath.Join(other, file)) {
					t.Errorf("status %+v, want served %v and an error about %s", st, later, file)
				}
				next := noAddress(t, ca)
				write(t, own, next)
				awaitSerial(t, id, next)
				must(t, id.Check())
				if got := servedLeaf(t, ca, addr, "second"); got.Equal(good.Certificate.Leaf) != later {
					t.Errorf("asked for the other name, %q is shown; the last good one stays: %v", got.DNSNames, later)
				}
				if got := servedLeaf(t, ca, addr, "svc"); !got.Equal(next.Certificate.Leaf) {
					t.Error("asked for the own name, another certificate is shown")
				}
				checkWarning(t, log.String(), pair.Cert, file, why)

				mended := second(t, ca, nil)
				write(t, other, mended)
				waitFor(t, "the mended one", func() bool { return id.Status().Others[0].Serial == certs.Serial(mended.Certificate.Leaf) })
				if got := servedLeaf(t, ca, addr, "second"); !got.Equal(mended.Certificate.Leaf) || id.Status().Others[0].Error != "" {
					t.Error("the mended one is not in use")
				}
			})
		}
	}
}

// checkWarning wants one warning about the file, and no complaint about the own certificate.
func checkWarning(t *testing.T, log, pair, file, why string) {
	t.Helper()
	found := 0
	for line := range strings.Lines(log) {
		switch {
		case strings.Contains(line, "level=INFO"):
		case strings.Contains(line, "another certificate refused") && strings.Contains(line, "file="+pair) &&
			strings.Contains(line, file) && strings.Contains(line, why) && strings.Contains(line, "serial="):
			found++
		default:
			t.Errorf("unexpected line: %s", line)
		}
	}
	if found != 1 {
		t.Errorf("%d warnings about %s, want 1:\n%s", found, file, log)
	}
}

// TestAnotherCertificateExpires expects that handshakes leave out another certificate
// after its end, and that the identity is still served and renewed.
func TestAnotherCertificateExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, "ca")
		m := ca.leaf(t, "svc", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Hour) })
		short := second(t, ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(10 * time.Minute) })
		m.Others = []tls.Certificate{short.Certificate}
		src := newPushed(m)
		var log logs
		id, err := rotation.Open(context.Background(), rotation.Config{Source: src, Logger: log.logger()})
		must(t, err)
		defer func() { _ = id.Close() }()
		s, err := id.Server(rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()})
		must(t, err)
		watched := func() int {
			conf, err := rotation.ServerAt(s)(time.Now())
			must(t, err)
			return len(conf.Certificates)
		}
		if watched() != 2 {
			t.Fatal("the other certificate is not served")
		}
		time.Sleep(10*time.Minute - time.Second)
		if watched() != 2 || id.Status().Others[0].Served != true || !id.Status().Others[0].Overdue {
			t.Error("a second before its end it is left out already, or not overdue")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		st := id.Status()
		if watched() != 1 || st.Others[0].Served || !strings.Contains(st.Others[0].Error, "expired") {
			t.Errorf("it is served after its end: %+v", st.Others)
		}
		if err := id.Check(); err != nil || st.Generation != 1 {
			t.Errorf("generation %d, check %v", st.Generation, err)
		}
		for _, want := range []string{"another certificate is not renewed in time", "another certificate expired and is left out"} {
			if n := strings.Count(log.String(), want+`" file=Others[0] serial=`+certs.Serial(short.Certificate.Leaf)); n != 1 {
				t.Errorf("%q is said %d times:\n%s", want, n, log.String())
			}
		}
		src.mustPush(t, m)
		if id.Current().Number() != 1 {
			t.Error("the end of another certificate makes what the source repeats a rotation")
		}
		next := ca.leaf(t, "svc", nil)
		next.Others = m.Others
		src.mustPush(t, next)
		if id.Check() != nil || serial(id) != next.Certificate.Leaf.SerialNumber.String() {
			t.Error("the own certificate did not rotate")
		}
	})
}

// TestAnotherCertificateAhead expects that another certificate that is not valid yet
// does not delay a publication, and that its earlier version is served until then.
func TestAnotherCertificateAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, "ca")
		m, early := noAddress(t, ca), second(t, ca, nil)
		m.Others = []tls.Certificate{early.Certificate}
		src := newPushed(m)
		id := open(t, src, 0)
		s, err := id.Server(rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()})
		must(t, err)
		shown := func() *x509.Certificate {
			conf, err := rotation.ServerAt(s)(time.Now())
			must(t, err)
			return conf.Certificates[1].Leaf
		}
		ahead := second(t, ca, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })
		next := noAddress(t, ca)
		next.Others = []tls.Certificate{ahead.Certificate}
		src.mustPush(t, next)
		if serial(id) != next.Certificate.Leaf.SerialNumber.String() || !shown().Equal(early.Certificate.Leaf) {
			t.Error("the own one waits, or the other one does not")
		}
		src.mustPush(t, next)
		time.Sleep(time.Minute)
		if id.Current().Number() != 2 || !shown().Equal(ahead.Certificate.Leaf) {
			t.Errorf("generation %d; the other one is not in use when its time has come", id.Current().Number())
		}
		src.mustPush(t, next)
		if id.Current().Number() != 2 {
			t.Error("what the source repeats is a rotation")
		}
		// Without an earlier one it is shown at once: the clock of a peer may be ahead.
		alone := open(t, rotation.Static(next), 0)
		if st := alone.Status().Others; !st[0].Served {
			t.Errorf("at the start: %+v", st)
		}
	})
}
