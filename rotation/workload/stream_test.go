//go:build linux

package workload

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/internal/testpki"
)

// source returns a source of go-spiffe that has got an SVID. It is closed at the end of the test.
func (w *world) source() *workloadapi.X509Source {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	src, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr("unix://"+w.path)))
	must(w.t, err)
	w.t.Cleanup(func() { _ = src.Close() })
	return src
}

// The client of go-spiffe gets its SVID, ten rotations and a new bundle over one connection.
func TestRotations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	storage := w.add("storage")
	w.serve(ownRule("storage"))
	src := w.source()
	td := spiffeid.RequireTrustDomainFromString("artstore.example")
	for i := range 11 {
		var svid *x509svid.SVID
		waitFor(t, fmt.Sprintf("rotation %d", i), func() bool {
			got, err := src.GetX509SVID()
			must(t, err)
			svid = got
			return svid.Certificates[0].SerialNumber.Text(16) == storage.serial()
		})
		if svid.ID.String() != spiffeID("storage") || svid.Hint != "storage" {
			t.Errorf("SVID %s with hint %q", svid.ID, svid.Hint)
		}
		if _, _, err := x509svid.Verify(svid.Certificates, src); err != nil {
			t.Errorf("go-spiffe refuses what it got: %v", err)
		}
		storage.rotate(t)
	}
	old := w.ca
	storage.ca = pkitest.NewCA(t)
	storage.rotate(t)
	waitFor(t, "the new bundle", func() bool {
		b, err := src.GetX509BundleForTrustDomain(td)
		must(t, err)
		return b.HasX509Authority(storage.ca.Root) && !b.HasX509Authority(old.Root)
	})
	if n := w.accepted.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// The other methods that go-spiffe has for X.509.
func TestFetchOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.add("web")
	w.add("storage")
	w.serve(ownRule("storage", "web"), ownRule("web"))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := workloadapi.New(ctx, workloadapi.WithAddr("unix://"+w.path))
	must(t, err)
	defer func() { _ = c.Close() }()
	svids, err := c.FetchX509SVIDs(ctx)
	must(t, err)
	var hints []string
	for _, s := range svids {
		hints = append(hints, s.Hint)
	}
	if want := []string{"storage", "web"}; !slices.Equal(hints, want) {
		t.Errorf("identities %q, want %q: in the order of the rules, each once", hints, want)
	}
	set, err := c.FetchX509Bundles(ctx)
	must(t, err)
	if b, ok := set.Get(spiffeid.RequireTrustDomainFromString("artstore.example")); set.Len() != 1 || !ok || !b.HasX509Authority(w.ca.Root) || len(b.X509Authorities()) != 1 {
		t.Errorf("bundles %v", set.Bundles())
	}
	if _, err := c.FetchX509Context(ctx); err != nil {
		t.Error(err)
	}
}

// A stream of bundles has a message for each change of trust, and none for a new leaf.
func TestBundlesStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	storage, web := w.add("storage"), w.add("web")
	w.serve(ownRule("storage", "web"))
	_, c := w.dial()
	stream, err := c.FetchX509Bundles(limited(t), &pb.X509BundlesRequest{})
	must(t, err)
	roots := func() (all []*x509.Certificate) {
		msg, err := stream.Recv()
		must(t, err)
		all, err = x509.ParseCertificates(msg.GetBundles()["spiffe://artstore.example"])
		must(t, err)
		if len(msg.GetBundles()) != 1 {
			t.Errorf("%d bundles", len(msg.GetBundles()))
		}
		return all
	}
	if got := roots(); len(got) != 1 || !got[0].Equal(w.ca.Root) {
		t.Errorf("%d roots at first", len(got))
	}
	for range 3 {
		storage.rotate(t)
	}
	web.ca = pkitest.NewCA(t)
	web.rotate(t)
	got := roots()
	if len(got) != 2 || !slices.ContainsFunc(got, web.ca.Root.Equal) || !slices.ContainsFunc(got, w.ca.Root.Equal) {
		t.Errorf("%d roots after one of two identities has another one", len(got))
	}
	storage.ca = web.ca
	storage.rotate(t)
	if got := roots(); len(got) != 1 || !got[0].Equal(web.ca.Root) {
		t.Errorf("%d roots at the end", len(got))
	}
}

// Chain, key and bundle of a message belong together while generations change all the time.
func TestOneGenerationPerMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	storage := w.add("storage")
	w.serve(ownRule("storage"))
	next := w.svids()
	first := make(chan struct{})
	go func() {
		<-first
		for range 50 {
			storage.ca = pkitest.NewCA(t)
			storage.rotate(t)
		}
		w.ids.Remove("storage")
	}()
	for n := 0; ; n++ {
		msg, err := next()
		if err != nil {
			wantStatus(t, "the end", err, codes.Unavailable, "no certificate yet")
			t.Logf("%d messages for 50 rotations", n)
			return
		}
		if n == 0 {
			close(first)
		}
		s := msg.GetSvids()[0]
		leaf, err := x509.ParseCertificate(s.GetX509Svid())
		must(t, err)
		key, err := x509.ParsePKCS8PrivateKey(s.GetX509SvidKey())
		must(t, err)
		root, err := x509.ParseCertificate(s.GetBundle())
		must(t, err)
		if !key.(crypto.Signer).Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(leaf.PublicKey) {
			t.Error("the key does not fit the leaf")
		}
		must(t, leaf.CheckSignatureFrom(root))
	}
}

// A reader that is slow skips generations; it ends with the newest one.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	storage := w.add("storage")
	w.serve(ownRule("storage"))
	next := w.svids()
	_, err := next()
	must(t, err)
	// Messages wait in the windows of the stream, 64 KiB on each side, and in its buffers. What
	// does not find room there is never made.
	const rotations = 600
	for range rotations {
		storage.rotate(t)
	}
	received := 0
	for newest := storage.serial(); ; {
		msg, err := next()
		must(t, err)
		received++
		if serials(t, msg) == newest {
			break
		}
	}
	t.Logf("%d rotations, %d messages", rotations, received)
	if received > rotations/2 {
		t.Errorf("%d messages waited for a slow reader", received)
	}
}

// Identities come and go while streams are open.
func TestIdentitiesComeAndGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.serve(ownRule("storage", "web"))
	_, err := w.svids()()
	wantStatus(t, "before there is an identity", err, codes.Unavailable, `the identity "storage" has no certificate yet`)
	storage := w.add("storage")
	next := w.svids()
	want := func(serial string) {
		t.Helper()
		msg, err := next()
		must(t, err)
		if got := serials(t, msg); got != serial {
			t.Errorf("serials %s, want %s", got, serial)
		}
	}
	want(storage.serial())
	web := w.add("web")
	want(storage.serial() + " " + web.serial())
	w.ids.Remove("storage")
	want(web.serial())
	other := w.prepare("web")
	w.ids.Put("web", other.id)
	want(other.serial())
	web.rotate(t) // not served any more
	w.ids.Remove("absent")
	other.rotate(t)
	want(other.serial())
	w.ids.Remove("web")
	_, err = next()
	wantStatus(t, "after the last identity", err, codes.Unavailable, "no certificate yet")
}

// Certificates that are no X509-SVIDs, or are none any more.
func TestWhatIsNotServed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good, bad := w.add("good"), w.add("bad")
	w.serve(ownRule("bad"), Rule{User: numeral(os.Geteuid() + 1), Identities: []string{"good"}})
	leaf := func(edit func(*x509.Certificate)) func() {
		return func() { bad.src.Push(t, w.ca.Leaf(t, "bad", withURI(spiffeID("bad")), edit)) }
	}
	for _, c := range []struct {
		name string
		do   func()
		code codes.Code
		want string
	}{
		{"no URI", leaf(withURI()), codes.FailedPrecondition, "no URI SAN"},
		{"two URIs", leaf(withURI(spiffeID("a"), spiffeID("b"))), codes.FailedPrecondition, "more than one URI SAN"},
		{"no path", leaf(withURI("spiffe://artstore.example")), codes.FailedPrecondition, "must have a path"},
		{"a key in hardware", func() {
			m := w.ca.Leaf(t, "bad", withURI(spiffeID("bad")))
			m.Certificate.PrivateKey = struct{ crypto.Signer }{m.Certificate.PrivateKey.(crypto.Signer)}
			bad.src.Push(t, m)
		}, codes.FailedPrecondition, "cannot leave"},
		{"expired", func() {
			bad.src.Push(t, w.ca.Leaf(t, "bad", withURI(spiffeID("bad")), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(1500 * time.Millisecond) }))
			until := bad.id.Current().Leaf().NotAfter
			waitFor(t, "its end", func() bool { return time.Now().After(until) })
		}, codes.Unavailable, "has expired"},
	} {
		w.logs.Take()
		c.do()
		_, err := w.svids()()
		wantStatus(t, c.name, err, c.code, c.want)
		if err != nil && strings.Contains(err.Error(), "good") {
			t.Errorf("%s: the caller is told of another identity: %v", c.name, err)
		}
		var states []string
		for _, st := range w.ids.Status() {
			states = append(states, st.Name)
			if sound := st.Name == "good"; sound != (st.Err == nil) || sound != (st.SPIFFEID == spiffeID("good")) && c.name != "expired" {
				t.Errorf("%s: status %+v", c.name, st)
			}
			if st.Err != nil && !strings.Contains(st.Err.Error(), c.want) {
				t.Errorf("%s: status says %v", c.name, st.Err)
			}
		}
		if fmt.Sprint(states) != "[bad good]" {
			t.Errorf("states of %v", states)
		}
		if c.code == codes.FailedPrecondition {
			waitFor(t, c.name+" in the log", func() bool { return strings.Contains(w.logs.String(), "identity not served") })
		}
	}
	bad.rotate(t)
	if _, err := w.svids()(); err != nil {
		t.Errorf("the fault outlives its certificate: %v", err)
	}
	waitFor(t, "the end of the fault in the log", func() bool {
		return strings.Contains(w.logs.String(), `msg="identity served" identity=bad spiffe_id=`+spiffeID("bad"))
	})
	good.rotate(t)
}

// A call without the header could be one that a program makes for somebody else.
func TestHeader(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.add("storage")
	w.serve(ownRule("storage"))
	_, c := w.dial()
	var wg sync.WaitGroup
	for _, values := range [][]string{nil, {""}, {"false"}, {"True"}, {"true", "true"}} {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			for _, v := range values {
				ctx = metadata.AppendToOutgoingContext(ctx, securityHeader, v)
			}
			stream, err := c.FetchX509SVID(ctx, &pb.X509SVIDRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			wantStatus(t, fmt.Sprintf("header %q", values), err, codes.InvalidArgument, securityHeader)
		})
	}
	wg.Wait()
	if n := w.count(Invalid); n != 5 || w.count(Sent) != 0 {
		t.Errorf("outcomes %v", w.outcomes)
	}
}

// What is not served says so.
func TestMethods(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.add("storage")
	w.serve(ownRule("storage"))
	conn, c := w.dial()
	ctx := limited(t)
	first := func(stream interface{ RecvMsg(any) error }, err error) error {
		if err != nil {
			return err
		}
		return stream.RecvMsg(&pb.JWTBundlesResponse{})
	}
	var wg sync.WaitGroup
	for name, call := range map[string]func() error{
		"FetchJWTSVID":    func() error { _, err := c.FetchJWTSVID(ctx, &pb.JWTSVIDRequest{}); return err },
		"ValidateJWTSVID": func() error { _, err := c.ValidateJWTSVID(ctx, &pb.ValidateJWTSVIDRequest{}); return err },
		"FetchJWTBundles": func() error { s, err := c.FetchJWTBundles(ctx, &pb.JWTBundlesRequest{}); return first(s, err) },
		"FetchWITSVID":    func() error { s, err := c.FetchWITSVID(ctx, &pb.WITSVIDRequest{}); return first(s, err) },
		"FetchWITBundles": func() error { s, err := c.FetchWITBundles(ctx, &pb.WITBundlesRequest{}); return first(s, err) },
		"/other/Method":   func() error { return conn.Invoke(ctx, "/other/Method", &pb.JWTSVIDRequest{}, &pb.JWTSVIDResponse{}) },
	} {
		wg.Go(func() { wantStatus(t, name, call(), codes.Unimplemented, name+" is not served: there are X.509-SVIDs") })
	}
	wg.Wait()
}

// A message that is larger than any request is refused before it is read.
func TestLargeRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.add("storage")
	w.serve(ownRule("storage"))
	conn, _ := w.dial()
	stream, err := conn.NewStream(limited(t), &streamOfSVIDs, pb.SpiffeWorkloadAPI_FetchX509SVID_FullMethodName)
	must(t, err)
	must(t, stream.SendMsg(&pb.ValidateJWTSVIDRequest{Svid: strings.Repeat("x", 2*maxRequest)}))
	must(t, stream.CloseSend())
	wantStatus(t, "a large request", stream.RecvMsg(&pb.X509SVIDResponse{}), codes.ResourceExhausted, "larger than max")
}

// Keys are in no log and in no error.
func TestKeysAreInMessagesOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	storage := w.add("storage")
	w.serve(ownRule("storage"))
	next := w.svids()
	var secrets []string
	for range 3 {
		msg, err := next()
		must(t, err)
		key, err := x509.ParsePKCS8PrivateKey(msg.GetSvids()[0].GetX509SvidKey())
		must(t, err)
		raw, err := key.(interface{ Bytes() ([]byte, error) }).Bytes()
		must(t, err)
		secrets = append(secrets, string(raw), fmt.Sprintf("%x", raw))
		storage.rotate(t)
	}
	storage.src.Push(t, w.ca.Leaf(t, "storage", withURI()))
	for {
		if _, err := next(); err != nil {
			must(t, w.stop())
			for _, s := range secrets {
				if strings.Contains(w.logs.String(), s) || strings.Contains(err.Error(), s) {
					t.Error("a key is in a log or an error")
				}
			}
			return
		}
	}
}

// Intermediates go with the leaf, and keys of other kinds are read by clients.
func TestChainsAndKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.add("storage")
	between := (&testpki.Pair{Cert: w.ca.Root, Key: w.ca.Key}).Intermediate(t, "between")
	leaf := between.Leaf(t, "storage", withURI(spiffeID("storage")))
	m := w.ca.Leaf(t, "storage")
	m.Certificate = leaf.TLS(between)
	s.src.Push(t, m)
	w.serve(ownRule("storage"))
	msg, err := w.svids()()
	must(t, err)
	got, err := x509svid.ParseRaw(msg.GetSvids()[0].GetX509Svid(), msg.GetSvids()[0].GetX509SvidKey())
	must(t, err)
	if len(got.Certificates) != 2 || !got.Certificates[1].Equal(between.Cert) {
		t.Errorf("a chain of %d certificates, want leaf and intermediate", len(got.Certificates))
	}
}
