//go:build linux

package workload

import (
	"crypto/x509"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	pb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"

	"github.com/artstore/artstore-pki/internal/testpki"
)

// revokedBy makes a list of an authority.
func (s *served) revokedBy(t *testing.T, number int64, entries int) *x509.RevocationList {
	t.Helper()
	now := time.Now()
	template := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: now.Add(time.Duration(number) * time.Second), NextUpdate: now.Add(time.Hour)}
	for n := range entries {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(int64(n) + 1<<60), RevocationTime: now})
	}
	return (&testpki.Pair{Cert: s.ca.Root, Key: s.ca.Key}).List(t, template)
}

// TestRevocationLists: a message has the newest list of each issuer, and another message follows
// when a list changes. Lists that are too long are left out, and the status says so.
func TestRevocationLists(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	storage, web := w.add("storage"), w.add("web")
	w.serve(ownRule("storage", "web"))
	next := w.svids()
	want := func(what string, lists ...*x509.RevocationList) {
		t.Helper()
		msg, err := next()
		must(t, err)
		var ders [][]byte
		for _, l := range lists {
			ders = append(ders, l.Raw)
		}
		if !slices.EqualFunc(msg.GetCrl(), ders, slices.Equal) {
			t.Errorf("%s: %d lists, want %d", what, len(msg.GetCrl()), len(ders))
		}
		for _, der := range msg.GetCrl() {
			l, err := x509.ParseRevocationList(der)
			must(t, err)
			must(t, l.CheckSignatureFrom(w.ca.Root))
		}
	}
	want("before there is one")
	first, second, long := storage.revokedBy(t, 1, 1), storage.revokedBy(t, 2, 2), storage.revokedBy(t, 3, 10_000)
	w.ids.SetRevoked("storage", []*x509.RevocationList{first})
	want("the first one", first)
	w.ids.SetRevoked("storage", []*x509.RevocationList{first}) // no change, and no message
	w.ids.SetRevoked("absent", []*x509.RevocationList{first})
	w.ids.SetRevoked("web", []*x509.RevocationList{second})
	want("of two editions the newer one", second)
	web.rotate(t)
	want("a new certificate keeps the lists", second)
	w.ids.SetRevoked("storage", []*x509.RevocationList{long})
	want("a long one")
	waitFor(t, "the reason in the log", func() bool { return strings.Contains(w.logs.String(), "identity served without its revocation lists") })
	for _, st := range w.ids.Status() {
		if got := st.ListsErr != nil; got != (st.Name == "storage") {
			t.Errorf("%s: %v", st.Name, st.ListsErr)
		}
	}
	w.ids.SetRevoked("storage", nil)
	want("after the long one", second)
	_, c := w.dial()
	stream, err := c.FetchX509Bundles(limited(t), &pb.X509BundlesRequest{})
	must(t, err)
	if msg, err := stream.Recv(); err != nil || len(msg.GetCrl()) != 1 || !slices.Equal(msg.GetCrl()[0], second.Raw) {
		t.Errorf("bundles: %v, %v", msg, err)
	}
}
