package rotation_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/revocation"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
)

// crlUntil is crl with the extension that says until when the entries count.
func (ca *testCA) crlUntil(t testing.TB, minutes int, end time.Time, revoked ...rotation.Material) *x509.RevocationList {
	t.Helper()
	at := time.Now().Add(time.Duration(minutes) * time.Minute)
	list := &x509.RevocationList{Number: serials(), ThisUpdate: at, NextUpdate: at.Add(48 * time.Hour)}
	ends := make([]int64, len(revoked))
	for i, m := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: m.Certificate.Leaf.SerialNumber, RevocationTime: at})
		ends[i] = end.Unix()
	}
	if len(ends) > 0 {
		value, err := revocation.EncodeEnds(at, ends)
		if err != nil {
			t.Fatal(err)
		}
		list.ExtraExtensions = []pkix.Extension{{Id: revocation.OIDEnds, Value: value}}
	}
	return signList(t, list, ca.inter, ca.interKey)
}

// TestPeerNeverUnrevokes expects that a revoked peer stays refused if a newer list lacks
// its entry, as the list of an authority that has lost its record does: over new,
// resumed and open connections.
func TestPeerNeverUnrevokes(t *testing.T) {
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			ca := newCA(t, "ca")
			m := taking(ca.leaf(t, "svc", nil), ca.crl(t, -9))
			src := newPushed(m)
			id := open(t, src, time.Minute)
			addr := listenServer(t, id, rotation.ServerOptions{Authorize: rotation.AllowNames("client")}, whoami)
			bad, good := ca.leaf(t, "client", nil), ca.leaf(t, "client", nil)
			badly := transport(t, open(t, rotation.Static(bad), 0), rotation.TransportOptions{HTTP1Only: !h2})
			goodly := transport(t, open(t, rotation.Static(good), 0), rotation.TransportOptions{HTTP1Only: !h2})
			mustGet(t, badly, addr)
			src.mustPush(t, taking(m, ca.crl(t, -8, bad)))
			waitFor(t, "the cut", func() bool { return id.Status().Forced > 0 })
			generation := id.Current().Number()
			for i, list := range []*x509.RevocationList{ca.crl(t, -7), ca.crl(t, -6, good), ca.crl(t, -5)} {
				src.mustPush(t, taking(m, list))
				if _, err := get(t, badly, addr); err == nil {
					t.Errorf("list %d: the revoked client got in", i)
				}
			}
			if _, err := get(t, goodly, addr); err == nil {
				t.Error("the client that one list named got in")
			}
			if st := id.Status(); st.RevokedSerials != 0 || st.RevokedKept != 2 || st.Generation != generation+1 {
				t.Errorf("%d on lists, %d kept in generation %d", st.RevokedSerials, st.RevokedKept, st.Generation)
			}
			if err := id.Reload(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := get(t, badly, addr); err == nil {
				t.Error("after a reload the revoked client got in")
			}
		})
	}
}

// TestOpenConnectionToForgotten expects that open connections are cut to a peer that a
// list names newly, and to one that it does not name any more.
func TestOpenConnectionToForgotten(t *testing.T) {
	ca := newCA(t, "ca")
	one, two := ca.leaf(t, "svc", nil), ca.leaf(t, "svc", nil)
	endless := func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	opts := rotation.ServerOptions{Authorize: rotation.AllowNames("client")}
	addr := listenServer(t, open(t, rotation.Static(two), 0), opts, endless)
	m := taking(ca.leaf(t, "client", nil), ca.crl(t, -9))
	src := newPushed(m)
	id := open(t, src, time.Hour)
	tr := transport(t, id, rotation.TransportOptions{})
	src.mustPush(t, taking(m, ca.crl(t, -8, one)))
	resp := start(t, tr, addr, "/")
	defer func() { _ = resp.Body.Close() }()
	src.mustPush(t, taking(m, ca.crl(t, -7, two)))
	if _, err := resp.Body.Read(make([]byte, 1)); err == nil {
		t.Error("the stream from a revoked server goes on")
	}
	src.mustPush(t, taking(m, ca.crl(t, -6)))
	if _, err := get(t, tr, addr); !errors.Is(err, rotation.ErrRevoked) {
		t.Errorf("a new connection to the server that the list forgot: %v", err)
	}
}

// TestKeptIsDroppedAtItsEnd expects that an entry is kept until the second that the list
// has given as its end, and not longer.
func TestKeptIsDroppedAtItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, "ca")
		bad := ca.leaf(t, "client", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(24 * time.Hour) })
		m := ca.leaf(t, "svc", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(96 * time.Hour) })
		end := time.Now().Add(2 * time.Hour)
		src := newPushed(taking(m, ca.crlUntil(t, -2, end, bad)))
		id := open(t, src, 0)
		kept := func(want int) {
			t.Helper()
			if got := id.Status().RevokedKept; got != want {
				t.Errorf("%s before the end: %d kept, want %d", time.Until(end), got, want)
			}
		}
		src.mustPush(t, taking(m, ca.crlUntil(t, -1, end)))
		kept(1)
		time.Sleep(time.Until(end))
		src.mustPush(t, taking(m, ca.crlUntil(t, 0, end)))
		kept(1)
		time.Sleep(2 * time.Second)
		src.mustPush(t, taking(m, ca.crlUntil(t, 0, end)))
		kept(0)
	})
}

// TestKeptOfFiles expects that crl.kept beside crl.pem counts after a restart. A damaged
// crl.kept is an error.
func TestKeptOfFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	ca := newCA(t, "ca")
	bad := ca.leaf(t, "client", nil)
	dir := t.TempDir()
	m := ca.leaf(t, "svc", nil)
	write(t, dir, m)
	crl := func(l *x509.RevocationList) {
		put(t, filepath.Join(dir, "crl.pem"), pemfile.EncodeRevocationLists([]*x509.RevocationList{l}))
	}
	crl(ca.crl(t, -9, bad))
	source := files.Source(files.Set{Dir: dir, Poll: 20 * time.Millisecond})
	id := open(t, source, 0)
	refuses := func(id *rotation.Identity) bool {
		addr := listenServer(t, id, rotation.ServerOptions{Authorize: rotation.AllowNames("client")}, whoami)
		_, err := get(t, transport(t, open(t, rotation.Static(bad), 0), rotation.TransportOptions{}), addr)
		return err != nil
	}
	crl(ca.crl(t, -8))
	waitFor(t, "the new list", func() bool { return id.Status().RevokedKept == 1 })
	if !refuses(id) {
		t.Error("the revoked client got in beside the newer list")
	}
	index := revocation.Index{}
	if err := index.Add(ca.crl(t, -9, bad), ca.inter); err != nil {
		t.Fatal(err)
	}
	kept, err := (*revocation.Kept)(nil).Follow(index, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "crl.kept")
	if err := os.WriteFile(path, kept.Encode(), 0o600); err != nil {
		t.Fatal(err)
	}
	again := open(t, files.Source(files.Set{Dir: dir}), 0)
	if again.Status().RevokedKept != 1 || !refuses(again) {
		t.Error("after a restart the revoked client got in")
	}
	if merged := open(t, rotation.Merge(rotation.Static(m), files.Source(files.Set{Dir: dir})), 0); !refuses(merged) {
		t.Error("the trust of a merged identity lost what was kept")
	}
	if err := os.WriteFile(path, kept.Encode()[:80], 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	damaged, err := rotation.Open(ctx, rotation.Config{Source: files.Source(files.Set{Dir: dir})})
	if err == nil {
		_ = damaged.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "kept") {
		t.Errorf("a damaged file was taken: %v", err)
	}
}
