package spiffe_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"

	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/spiffe"
)

var _ spiffe.Feed = (*workloadapi.X509Source)(nil)

// agent is a Workload API server: the protocol of SPIRE's agent on a socket.
type agent struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	answers chan *workload.X509SVIDResponse
}

func (a *agent) FetchX509SVID(_ *workload.X509SVIDRequest, s grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	for {
		select {
		case <-s.Context().Done():
			return s.Context().Err()
		case r := <-a.answers:
			if err := s.Send(r); err != nil {
				return err
			}
		}
	}
}

// answer is m as the Workload API sends it, with a federated bundle beside.
func answer(t *testing.T, m rotation.Material, federated *x509.Certificate) *workload.X509SVIDResponse {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(m.Certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return &workload.X509SVIDResponse{
		Svids: []*workload.X509SVID{{
			SpiffeId: storage, X509Svid: m.Certificate.Certificate[0], X509SvidKey: key, Bundle: m.Roots[0].Raw,
		}},
		FederatedBundles: map[string][]byte{other.IDString(): federated.Raw},
	}
}

func serveAgent(t *testing.T) (*agent, string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{answers: make(chan *workload.X509SVIDResponse, 1)}
	srv := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(srv, a)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { srv.Stop(); <-done })
	return a, "unix://" + socket
}

// TestFollowWorkloadAPI is the whole way: agent, go-spiffe's client, identity.
func TestFollowWorkloadAPI(t *testing.T) {
	ca, partner := pkitest.NewCA(t), pkitest.NewCA(t)
	a, addr := serveAgent(t)
	first := ca.Leaf(t, "storage", named(storage))
	a.answers <- answer(t, first, partner.Root)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	feed, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(addr)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = feed.Close() }()
	id := pkitest.Open(t, rotation.Config{Source: spiffe.Follow(feed)})
	if !id.Current().Leaf().Equal(first.Certificate.Leaf) {
		t.Fatal("the first generation is not the SVID")
	}
	if roots := id.Current().Roots(); len(roots) != 1 || !roots[0].Equal(ca.Root) {
		t.Errorf("%d roots: federated domains must not speak for ours", len(roots))
	}
	changes := make(chan rotation.Change, 10)
	id.Subscribe(func(c rotation.Change) { changes <- c })
	for range 3 {
		next := ca.Leaf(t, "storage", named(storage))
		a.answers <- answer(t, next, partner.Root)
		c := receive(ctx, t, changes)
		if c.Err != nil || !c.Generation.Leaf().Equal(next.Certificate.Leaf) {
			t.Fatalf("change %v, error %v", c.Generation, c.Err)
		}
	}
}

func receive(ctx context.Context, t *testing.T, changes <-chan rotation.Change) rotation.Change {
	t.Helper()
	select {
	case c := <-changes:
		return c
	case <-ctx.Done():
		t.Fatal("no change came")
		return rotation.Change{}
	}
}

// feed is under the control of a test, for what an agent does not do.
type feed struct {
	*spiffe.Source // of another identity, which is where it takes its SVID from
	mu             sync.Mutex
	broken         error
	updated        chan struct{}
}

func (f *feed) Updated() <-chan struct{} { return f.updated }

func (f *feed) GetX509SVID() (*x509svid.SVID, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		return nil, f.broken
	}
	return f.Source.GetX509SVID()
}

func (f *feed) breakWith(err error) {
	f.mu.Lock()
	f.broken = err
	f.mu.Unlock()
	f.updated <- struct{}{}
}

// TestFollowSurvivesAFeed expects that refusals and errors of a feed are reported, that
// the last good generation stays, and that the next good one is published.
func TestFollowSurvivesAFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := pkitest.NewCA(t)
		pushed := pkitest.NewSource(ca.Leaf(t, "storage", named(storage)))
		upstream := pkitest.Open(t, rotation.Config{Source: pushed})
		f := &feed{Source: spiffe.NewSource(upstream), updated: make(chan struct{}, 1)}
		id := pkitest.Open(t, rotation.Config{Source: spiffe.Follow(f)})
		if _, err := id.Transport(rotation.TransportOptions{}); err != nil { // from now on clientAuth is needed
			t.Fatal(err)
		}

		onlyServer := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
		pushed.Push(t, ca.Leaf(t, "storage", named(storage), onlyServer))
		f.updated <- struct{}{}
		synctest.Wait()
		if st := id.Status(); st.Generation != 1 || !strings.Contains(st.LastError, "clientAuth") {
			t.Errorf("generation %d, last error %q after a refused SVID", st.Generation, st.LastError)
		}
		f.breakWith(errors.New("the agent is gone"))
		synctest.Wait()
		if st := id.Status(); st.Generation != 1 || !strings.Contains(st.LastError, "the agent is gone") {
			t.Errorf("generation %d, last error %q after a broken feed", st.Generation, st.LastError)
		}
		pushed.Push(t, ca.Leaf(t, "storage", named(storage)))
		f.breakWith(nil)
		time.Sleep(time.Minute) // longer than the longest pause
		if st := id.Status(); st.Generation != 2 || st.LastError != "" {
			t.Errorf("generation %d, last error %q after the feed came back", st.Generation, st.LastError)
		}
		close(f.updated)
		synctest.Wait()
		if st := id.Status(); st.Generation != 2 || !strings.Contains(st.LastError, "it ended") {
			t.Errorf("generation %d, last error %q after the end of the feed", st.Generation, st.LastError)
		}
	})
}

// TestFollowFailsEarly expects that a fault at the start is the error of Open.
func TestFollowFailsEarly(t *testing.T) {
	ca := pkitest.NewCA(t)
	good := spiffe.NewSource(pkitest.Open(t, rotation.Config{Source: rotation.Static(ca.Leaf(t, "storage", named(storage)))}))
	nameless := spiffe.NewSource(pkitest.Open(t, rotation.Config{Source: rotation.Static(ca.Leaf(t, "storage"))}))
	for name, c := range map[string]struct {
		feed spiffe.Feed
		want string
	}{
		"no SVID":   {&feed{Source: nameless}, "no URI SAN"},
		"no bundle": {domainless{&feed{Source: good}}, "reading trust bundle of artstore.example"},
	} {
		if _, err := rotation.Open(t.Context(), rotation.Config{Source: spiffe.Follow(c.feed)}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}

// domainless knows an SVID and no bundle.
type domainless struct{ *feed }

func (domainless) GetX509BundleForTrustDomain(spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return nil, errors.New("unknown")
}
