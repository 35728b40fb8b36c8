package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// readmeMain has what README.md leaves to its reader: a listener, a handler, an
// identity for the client. It asks until both sides have had ten certificates.
const readmeMain = `package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() {
		served <- serve(ctx, ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.TLS.PeerCertificates[0].SerialNumber)
		}))
	}()
	src, err := enroll.New(enroll.Config{URL: "https://ca.internal:9443", Token: enroll.TokenFile("client.token"), Dir: "client-id"})
	if err != nil {
		return err
	}
	id, err := rotation.Open(ctx, rotation.Config{Source: src})
	if err != nil {
		return err
	}
	defer func() { _ = id.Close() }()
	asking, err := client(id)
	if err != nil {
		return err
	}
	servers, clients, requests := map[string]bool{}, map[string]bool{}, 0
	for len(servers) <= 3 || len(clients) <= 3 {
		select {
		case err := <-served:
			return fmt.Errorf("the server ended: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://localhost:"+fmt.Sprint(ln.Addr().(*net.TCPAddr).Port), nil)
		if err != nil {
			return err
		}
		resp, err := asking.Do(req)
		if err != nil {
			if requests == 0 && ctx.Err() == nil {
				continue // the server has no certificate yet
			}
			return fmt.Errorf("after %d requests: %w", requests, err)
		}
		var serial string
		_, err = fmt.Fscan(resp.Body, &serial)
		_ = resp.Body.Close()
		if err != nil {
			return err
		}
		clients[serial], servers[resp.TLS.PeerCertificates[0].SerialNumber.String()] = true, true
		requests++
	}
	fmt.Printf("%d requests, %d and %d certificates, no failure\n", requests, len(servers), len(clients))
	stop()
	return <-served
}
`

// TestReadmeRotates runs a server and a client with the code of README.md, in which only addresses
// are changed, through three rotations. No request fails.
func TestReadmeRotates(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes three lives of a certificate")
	}
	w := &killFixture{dir: t.TempDir()}
	w.program = selfAs(t, w.dir)
	w.ok(t, "dev", "bootstrap", "--dir", "ca", "--lifetime", "20s", "--dns", "localhost", "--dns", "127.0.0.1",
		"--token", "storage-element=server.token", "--token", "ingester=client.token")
	w.start(t, "serve", "--dir", "ca", "--listen", "127.0.0.1:0", "--ready-file", "ca.url")
	place := strings.NewReplacer("https://ca.internal:9443", w.url(t, "ca.url"), "/run/secrets/enrolment-token", "server.token",
		"/var/lib/storage/identity", "server-id")
	readme, err := os.ReadFile("../../README.md")
	must(t, err)
	code := strings.Split(string(readme), "```go\n")
	block, _, _ := strings.Cut(code[1], "```")
	head, body, _ := strings.Cut(readmeMain, "func main")
	source := filepath.Join(w.dir, "main.go")
	must(t, os.WriteFile(source, []byte(place.Replace(head+block+"\nfunc main"+body)), 0o600))
	built := filepath.Join(w.dir, "readme")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", built, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), built)
	cmd.Dir = w.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	t.Log(lines[len(lines)-1])
}

// TestReadmeCompiles checks that each Go block of README.md is in a file that is compiled, word for
// word.
func TestReadmeCompiles(t *testing.T) {
	read := func(path string) string {
		raw, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(path)))
		must(t, err)
		return string(raw)
	}
	compiled := read("rotation/enroll/example_readme_test.go")
	blocks := strings.Split(read("README.md"), "```go\n")[1:]
	if len(blocks) == 0 {
		t.Fatal("README.md has no Go code")
	}
	for _, b := range blocks {
		code, _, _ := strings.Cut(b, "```")
		if !strings.Contains(compiled, code) {
			t.Errorf("this block of README.md is not in the example:\n%s", code)
		}
	}
}
