//go:build linux

package workload_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/workload"
)

// Serve the identity of this program to other programs of the same user.
func ExampleServe() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	id, err := rotation.Open(ctx, rotation.Config{Source: exampleSource(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = id.Close() }()

	var ids workload.Identities
	ids.Put("storage", id)
	var rules workload.Rules
	if err := rules.Set([]workload.Rule{{User: strconv.Itoa(os.Geteuid()), Identities: []string{"storage"}}}); err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	socket := filepath.Join(dir, "workload.sock") // such as /run/artstore-pki/workload.sock
	ln, err := workload.Listen(ctx, workload.Socket{Path: socket})
	if err != nil {
		log.Fatal(err)
	}
	serving, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- workload.Serve(serving, ln, workload.Config{
			Identities: &ids,
			Rules:      &rules,
			Logger:     slog.New(slog.DiscardHandler),
		})
	}()

	server, closeServer, err := newServer(ctx, socket)
	if err != nil {
		log.Fatal(err)
	}
	defer closeServer()
	cert, err := server.TLSConfig.GetCertificate(nil)
	if err != nil {
		log.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(leaf.URIs[0])
	stop()
	fmt.Println(<-ended)
	// Output:
	// spiffe://artstore.example/storage
	// <nil>
}

// newServer returns an HTTPS server whose certificate and trust come from the Workload API
// and change without a restart. The function that it returns ends that.
func newServer(ctx context.Context, socket string) (*http.Server, func(), error) {
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr("unix://"+socket)))
	if err != nil {
		return nil, nil, err
	}
	friends := tlsconfig.AuthorizeMemberOf(spiffeid.RequireTrustDomainFromString("artstore.example"))
	conf := tlsconfig.MTLSServerConfig(source, source, friends)
	conf.SessionTicketsDisabled = true // go-spiffe does not judge resumed sessions
	return &http.Server{TLSConfig: conf, ReadHeaderTimeout: 10 * time.Second}, func() { _ = source.Close() }, nil
}

// The guide shows newServer as it is here, and no setting that there is not.
func TestGuide(t *testing.T) {
	guide, err := os.ReadFile(filepath.Join("..", "..", "docs", "workload-api.md"))
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for rest := string(guide); ; blocks++ {
		_, after, found := strings.Cut(rest, "```go\n")
		if !found {
			break
		}
		block, behind, _ := strings.Cut(after, "```")
		if !strings.Contains(string(self), block) {
			t.Errorf("not in this file:\n%s", block)
		}
		rest = behind
	}
	if blocks != 1 {
		t.Errorf("%d blocks of Go, want 1", blocks)
	}
}

func exampleSource() rotation.Source {
	t := pkitest.Example()
	return rotation.Static(pkitest.NewCA(t).Leaf(t, "storage", func(c *x509.Certificate) {
		c.URIs = []*url.URL{{Scheme: "spiffe", Host: "artstore.example", Path: "/storage"}}
	}))
}
