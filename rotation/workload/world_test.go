//go:build linux

package workload

import (
	"context"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/artstore/artstore-pki/internal/logtest"
	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation"
)

// patience is how long a test waits for what must happen on a busy machine, too.
const patience = 3 * time.Minute

// stranger is a user that no rule of these tests names.
const stranger = 23456

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// withURI sets the URI names of a leaf.
func withURI(uris ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.URIs = nil
		for _, u := range uris {
			parsed, err := url.Parse(u)
			if err != nil {
				panic(err)
			}
			c.URIs = append(c.URIs, parsed)
		}
	}
}

func spiffeID(name string) string { return "spiffe://artstore.example/" + name }

// served is an identity that a test rotates.
type served struct {
	ca   *pkitest.CA
	src  *pkitest.Source
	id   *rotation.Identity
	name string
}

// rotate pushes a leaf with a new key.
func (s *served) rotate(t testing.TB) {
	t.Helper()
	s.src.Push(t, s.ca.Leaf(t, s.name, withURI(spiffeID(s.name))))
}

// serial of the certificate in effect.
func (s *served) serial() string { return s.id.Current().Leaf().SerialNumber.Text(16) }

// world is a server with its identities.
type world struct {
	t        *testing.T
	ca       *pkitest.CA
	ids      Identities
	rules    Rules
	path     string
	logs     *logtest.Buffer
	accepted atomic.Int64
	stop     func() error // idempotent; the error of Serve

	onOutcome func(string) // nil for none; set before serve

	mu       sync.Mutex
	outcomes map[string]int
}

// counting counts the connections that clients have made.
type counting struct {
	net.Listener
	n *atomic.Int64
}

func (c counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.n.Add(1)
	}
	return conn, err
}

// ownRule names the user of this test.
func ownRule(identities ...string) Rule {
	return Rule{User: numeral(os.Geteuid()), Identities: identities}
}

// rulesOf returns rules that are set.
func rulesOf(t testing.TB, rules ...Rule) *Rules {
	t.Helper()
	r := new(Rules)
	must(t, r.Set(rules))
	return r
}

// publicDir makes a directory that all users can enter and none can change, whatever the umask is.
func publicDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	return dir
}

// newWorld is a world without a server.
func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{t: t, ca: pkitest.NewCA(t), path: filepath.Join(publicDir(t), "workload.sock"), logs: &logtest.Buffer{}, outcomes: map[string]int{}}
}

// add makes an identity and puts it in.
func (w *world) add(name string) *served {
	w.t.Helper()
	s := w.prepare(name)
	w.ids.Put(name, s.id)
	return s
}

// prepare makes an identity.
func (w *world) prepare(name string) *served {
	w.t.Helper()
	s := &served{ca: w.ca, src: pkitest.NewSource(w.ca.Leaf(w.t, name, withURI(spiffeID(name)))), name: name}
	s.id = pkitest.Open(w.t, rotation.Config{Source: s.src})
	return s
}

func (w *world) serve(rules ...Rule) {
	w.t.Helper()
	must(w.t, w.rules.Set(rules))
	ln, err := Listen(w.t.Context(), Socket{Path: w.path})
	must(w.t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, counting{ln, &w.accepted}, Config{
			Identities: &w.ids, Rules: &w.rules, Observer: w.observe,
			Logger: slog.New(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
	}()
	w.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	w.t.Cleanup(func() {
		if err := w.stop(); err != nil {
			w.t.Errorf("serving: %v", err)
		}
	})
}

func (w *world) observe(outcome string) {
	w.mu.Lock()
	w.outcomes[outcome]++
	w.mu.Unlock()
	if w.onOutcome != nil {
		w.onOutcome(outcome)
	}
}

func (w *world) count(outcome string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.outcomes[outcome]
}

// dial is a plain client of gRPC.
func (w *world) dial() (*grpc.ClientConn, pb.SpiffeWorkloadAPIClient) {
	w.t.Helper()
	c, err := grpc.NewClient("unix:"+w.path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(w.t, err)
	w.t.Cleanup(func() { _ = c.Close() })
	return c, pb.NewSpiffeWorkloadAPIClient(c)
}

// limited ends what hangs, long after it should have ended, and has the security header.
func limited(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, securityHeader, "true")
}

// svids opens a stream and returns what it receives, one message for each call.
func (w *world) svids() func() (*pb.X509SVIDResponse, error) {
	w.t.Helper()
	_, c := w.dial()
	stream, err := c.FetchX509SVID(limited(w.t), &pb.X509SVIDRequest{})
	must(w.t, err)
	return stream.Recv
}

// serials are those of the leaves in a message, each checked against its key and bundle.
func serials(t testing.TB, msg *pb.X509SVIDResponse) string {
	t.Helper()
	var all []string
	for _, s := range msg.GetSvids() {
		chain, err := x509.ParseCertificates(s.GetX509Svid())
		must(t, err)
		all = append(all, chain[0].SerialNumber.Text(16))
	}
	return strings.Join(all, " ")
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("%s: timeout", what)
		case <-tick.C:
		}
	}
}

func wantStatus(t testing.TB, what string, err error, code codes.Code, text string) {
	t.Helper()
	if err == io.EOF || status.Code(err) != code || !strings.Contains(err.Error(), text) { //nolint:errorlint // Recv returns it as it is
		t.Errorf("%s: %v; want %s with %q", what, err, code, text)
	}
}
