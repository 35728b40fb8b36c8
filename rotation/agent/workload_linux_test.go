package agent_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/artstore/artstore-pki/audit/served"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/rotation/agent"
	"github.com/artstore/artstore-pki/rotation/workload"
)

func spiffeID(name string) string { return "spiffe://artstore.example/" + name }

// newSpiffeWorld is an authority of which some services have SPIFFE IDs, and an agent for two of them and
// one that has none.
func newSpiffeWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, catest.Options{Profiles: map[string]policy.Profile{
		"web": {Names: []string{"web", spiffeID("web")}}, "db": {Names: []string{"db", spiffeID("db")}}, "plain": {Names: []string{"plain"}},
	}})
	for _, name := range []string{"web", "db", "plain"} {
		w.identity(name, nil)
	}
	if err := os.Chmod(w.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w.cfg.Workload = &agent.WorkloadAPI{Socket: workload.Socket{Path: filepath.Join(w.dir, "w")}}
	return w
}

// ownRule names the user of this test.
func ownRule(identities ...string) workload.Rule {
	return workload.Rule{User: strconv.Itoa(os.Geteuid()), Identities: identities}
}

// serveWorkload serves until the test ends.
func (w *world) serveWorkload(a *agent.Agent) {
	w.t.Helper()
	ln, err := workload.Listen(w.t.Context(), w.cfg.Workload.Socket)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan error, 1)
	go func() { done <- a.ServeWorkload(ctx, ln) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
}

// stream is a stream of SVIDs over a connection of its own.
type stream struct {
	t    *testing.T
	next func() (*pb.X509SVIDResponse, error)
	made atomic.Int64 // connections
}

func (w *world) stream() *stream {
	w.t.Helper()
	s := &stream{t: w.t}
	c, err := grpc.NewClient("passthrough:agent", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		s.made.Add(1)
		return new(net.Dialer).DialContext(ctx, "unix", w.cfg.Workload.Socket.Path)
	}))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(w.t.Context(), "workload.spiffe.io", "true"), patience)
	w.t.Cleanup(cancel)
	open, err := pb.NewSpiffeWorkloadAPIClient(c).FetchX509SVID(ctx, &pb.X509SVIDRequest{})
	if err != nil {
		w.t.Fatal(err)
	}
	s.next = open.Recv
	return s
}

// until receives messages until one is as wanted.
func (s *stream) until(what string, ok func(*pb.X509SVIDResponse) bool) *pb.X509SVIDResponse {
	s.t.Helper()
	for {
		msg, err := s.next()
		if err != nil {
			s.t.Fatalf("%s: %v", what, err)
		}
		if ok(msg) {
			return msg
		}
	}
}

// ids are the SPIFFE IDs of a message.
func ids(msg *pb.X509SVIDResponse) string {
	var all []string
	for _, s := range msg.GetSvids() {
		all = append(all, s.GetSpiffeId())
	}
	return strings.Join(all, " ")
}

func serialIn(t *testing.T, msg *pb.X509SVIDResponse, n int) string {
	t.Helper()
	chain, err := x509.ParseCertificates(msg.GetSvids()[n].GetX509Svid())
	if err != nil {
		t.Fatal(err)
	}
	return certs.Serial(chain[0])
}

// TestWorkloadReload: the identities that rules name are served, streams stay open over reloads, and what
// a reload takes away is not served any more.
func TestWorkloadReload(t *testing.T) {
	t.Parallel()
	w := newSpiffeWorld(t)
	w.cfg.Workload.Rules = []workload.Rule{ownRule("web", "db")}
	a, _ := w.run()
	w.serveWorkload(a)
	web := w.await(a, "web", "delivered", delivered)
	w.await(a, "db", "delivered", delivered)
	w.await(a, "plain", "delivered", delivered)
	s := w.stream()
	s.until("both", func(m *pb.X509SVIDResponse) bool { return ids(m) == spiffeID("web")+" "+spiffeID("db") })

	// Changes of others are no end of the stream, and neither is a change of an identity that is in it.
	w.cfg.Identities = slices.Clone(w.cfg.Identities)
	w.cfg.Identities[2].Hook = &agent.Hook{Command: []string{"true"}, Timeout: time.Minute, Settle: time.Second}
	w.cfg.Identities[0].Hook = &agent.Hook{Command: []string{"true"}, Timeout: time.Minute, Settle: time.Second}
	w.reload(a)
	w.await(a, "web", "delivered again", delivered)
	if err := a.Renew(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	next := w.await(a, "web", "the next one", func(s agent.IdentityStatus) bool { return delivered(s) && s.Serial != web.Serial })
	s.until("the renewed one", func(m *pb.X509SVIDResponse) bool {
		if ids(m) != spiffeID("web")+" "+spiffeID("db") {
			t.Errorf("meanwhile a message had %s", ids(m))
		}
		return serialIn(t, m, 0) == next.Serial
	})

	// Another service in the directory of one that is served is not served by the old certificate.
	w.cfg.Workload = &agent.WorkloadAPI{Socket: w.cfg.Workload.Socket, Rules: []workload.Rule{ownRule("web", "db", "plain")}}
	w.cfg.Identities = slices.Clone(w.cfg.Identities)
	w.cfg.Identities[1].Service = "other"
	w.reload(a)
	s.until("without the one of another service", func(m *pb.X509SVIDResponse) bool { return ids(m) == spiffeID("web") })
	st := a.Status().Workload
	if st == nil || st.Socket != w.cfg.Workload.Socket.Path || st.Rules != 1 || len(st.Identities) != 3 || st.Calls[workload.Sent] == 0 ||
		st.Identities[0].Name != "db" || st.Identities[1].Name != "plain" || !strings.Contains(st.Identities[1].Problem, "no URI SAN") ||
		st.Identities[2] != (agent.Offered{Name: "web", SPIFFEID: spiffeID("web")}) {
		t.Errorf("status %+v", st)
	}
	if lines := strings.Join(a.Status().Problems(), "\n"); !strings.Contains(lines, `Workload API: plain: the certificate of the identity "plain" cannot be handed out`) {
		t.Errorf("problems:\n%s", lines)
	}

	// A rule that is gone.
	w.cfg.Workload = &agent.WorkloadAPI{Socket: w.cfg.Workload.Socket, Rules: []workload.Rule{ownRule("plain")}}
	w.reload(a)
	if _, err := s.next(); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("the end of the stream: %v", err)
	}
	w.cfg.Identities = slices.Clone(w.cfg.Identities[2:])
	w.cfg.Workload = &agent.WorkloadAPI{Socket: w.cfg.Workload.Socket}
	w.reload(a)
	if _, err := w.stream().next(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("without a rule: %v", err)
	}
	if n := s.made.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	w.cfg.Workload = nil
	w.reload(a)
	if st := a.Status().Workload; st != nil {
		t.Errorf("status without a socket: %+v", st)
	}
}

// TestWorkloadNameReused: a rule that comes with a reload gives nobody the certificate that had the name of an
// identity before.
func TestWorkloadNameReused(t *testing.T) {
	t.Parallel()
	w := newSpiffeWorld(t)
	w.cfg.Workload.Rules = []workload.Rule{ownRule("db"), {User: "23456", Identities: []string{"web"}}}
	a, _ := w.run()
	w.serveWorkload(a)
	w.await(a, "web", "delivered", delivered)
	first := w.await(a, "db", "delivered", delivered)
	s := w.stream()
	s.until("the first message", func(m *pb.X509SVIDResponse) bool { return ids(m) == spiffeID("db") })
	for _, service := range []string{"other", "another", "third"} {
		w.cfg.Workload = &agent.WorkloadAPI{Socket: w.cfg.Workload.Socket, Rules: []workload.Rule{ownRule("db"), {User: "23456", Identities: []string{"web"}}}}
		w.cfg.Identities = slices.Clone(w.cfg.Identities)
		w.cfg.Identities[0].Service = "web"
		w.reload(a)
		w.await(a, "web", "delivered", delivered)
		w.cfg.Workload = &agent.WorkloadAPI{Socket: w.cfg.Workload.Socket, Rules: []workload.Rule{ownRule("db", "web")}}
		w.cfg.Identities = slices.Clone(w.cfg.Identities)
		w.cfg.Identities[0].Service = service // nothing enrols it
		w.reload(a)
		if err := a.Renew(t.Context(), "db"); err != nil {
			t.Fatal(err)
		}
		if s := w.await(a, "web", "the stored certificate", func(s agent.IdentityStatus) bool { return s.Serial != "" }); !strings.Contains(s.Problem, "the configuration wants "+service) {
			t.Errorf("status %+v", s)
		}
		next := w.await(a, "db", "the next one", func(s agent.IdentityStatus) bool { return delivered(s) && s.Serial != first.Serial })
		s.until("the next one", func(m *pb.X509SVIDResponse) bool {
			if ids(m) != spiffeID("db") {
				t.Errorf("a message has %s", ids(m))
			}
			return serialIn(t, m, 0) == next.Serial
		})
		first = next
	}
}

// TestWorkloadLists: the lists of the authority are in the messages, and a revocation is a new message.
func TestWorkloadLists(t *testing.T) {
	t.Parallel()
	w := newSpiffeWorld(t)
	w.cfg.Workload.Rules = []workload.Rule{ownRule("web")}
	a, _ := w.run()
	w.serveWorkload(a)
	lost := w.await(a, "db", "delivered", delivered)
	w.await(a, "web", "watching", func(s agent.IdentityStatus) bool { return delivered(s) && s.Watching })
	s := w.stream()
	w.ca.Revoke(t, lost.Serial)
	s.until("the revocation", func(m *pb.X509SVIDResponse) bool {
		chain, err := x509.ParseCertificates(m.GetSvids()[0].GetX509Svid())
		if err != nil {
			t.Fatal(err)
		}
		issuers := map[string]bool{}
		for _, der := range m.GetCrl() {
			l, err := x509.ParseRevocationList(der)
			if err != nil {
				t.Fatal(err)
			}
			if issuers[string(l.RawIssuer)] {
				t.Errorf("two lists of %s", l.Issuer)
			}
			issuers[string(l.RawIssuer)] = true
			if !bytes.Equal(l.RawIssuer, chain[1].RawSubject) {
				continue
			}
			if err := l.CheckSignatureFrom(chain[1]); err != nil {
				t.Error(err)
			}
			for _, e := range l.RevokedCertificateEntries {
				if "0x"+e.SerialNumber.Text(16) == lost.Serial {
					return true
				}
			}
		}
		return false
	})
	text, err := json.Marshal(a.Status())
	if err != nil || !bytes.Contains(text, []byte(`"workload_api":{"socket":`)) {
		t.Errorf("status: %s, %v", text, err)
	}
}

// TestWorkloadGuide: the configuration in the guide of the Workload API is one, for users that exist here.
func TestWorkloadGuide(t *testing.T) {
	guide, err := os.ReadFile(filepath.Join("..", "..", "docs", "workload-api.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(guide), "```yaml\n")
	text, _, _ = strings.Cut(text, "```")
	here := strings.NewReplacer("user: storage", "user: root", "user: reports", "user: \"1000\"", "group: reports", "group: \"1000\"", "group: artstore", "group: \"1001\"").Replace(text)
	c, err := agent.ReadConfig(configFile(t, here), served.Check)
	if err != nil || len(c.Identities) != 2 || c.Workload == nil || len(c.Workload.Rules) != 2 || c.Workload.Socket.Group != 1001 {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := agent.ReadConfig(configFile(t, text), served.Check); err == nil || !strings.Contains(err.Error(), "line 18: workload_api.rules[0]: finding the user \"storage\"") {
		t.Errorf("users that are not here: %v", err)
	}
}
