package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// TestNoSecretInAnyOutput runs nearly every command with detailed logs, keeps all output, and then
// searches it for every secret that the commands have made: key passwords, private keys in
// several encodings, client secrets, tokens. The one exception is the token on the standard
// output of `token` and `access-token`.
func TestNoSecretInAnyOutput(t *testing.T) {
	long(t, "it runs nearly all commands")
	t.Parallel() // with the other long ones, most of which wait
	dir := t.TempDir()
	p := &program{t: t, dir: dir}
	p.ok("init", "--dir", p.path("ca"), "--dns", "localhost", "--dns", "127.0.0.1")
	caURL := p.serve("ca.url", "serve", "--dir", p.path("ca"), "--listen", "127.0.0.1:0")
	identity := func(service string) []string {
		p.token(service)
		return []string{"--ca-url", caURL, "--token-file", p.path(service + ".token"), "--state", p.path(service + "-id")}
	}
	admin := p.serve("admin.url", append([]string{"dev", "admin", "--dir", p.path("admin"), "--listen", "127.0.0.1:0", "--allow", "ingester", "--allow", "storage-element",
		"--bound-tokens", "--account", "ingester", "--account-secret-file", p.path("client.secret"), "--account-id-file", p.path("client.id")}, identity("admin-module")...)...)
	storage := p.serve("storage.url", append([]string{"dev", "storage", "--dir", p.path("storage"), "--listen", "127.0.0.1:0", "--allow", "ingester",
		"--jwks-url", admin + "/.well-known/jwks.json"}, identity("storage-element")...)...)
	p.write("file.txt", "content")
	upload := append([]string{"upload", "--admin-url", admin, "--storage-url", storage, "--client-id", p.read("client.id"),
		"--client-secret-file", p.path("client.secret")}, identity("ingester")...)
	p.ok(append(upload, p.path("file.txt"))...)
	p.accessToken("access.token", upload[1:]...)
	p.serve("token.ready", append([]string{"access-token", "serve", "--log-level", "debug", "--socket", p.path("token.sock")}, upload[1:]...)...)
	p.askSocket("served.token", p.path("token.sock"))
	p.stopLast()
	p.ok(append([]string{"dev", "ingester", "--count", "3", "--every", "10ms"}, upload[1:]...)...)
	p.ok("dev", "bootstrap", "--dir", p.path("ca"), "--token", "ingester="+p.path("first.token"), "--token", "ingester:ingester="+p.path("second.token"))

	p.token("query-module")
	p.ok("issue", "--ca-url", caURL, "--token-file", p.path("query-module.token"), "--out", p.path("issued"))
	p.ok("renew", "--ca-url", caURL, p.path("issued"))
	p.ok("list", "--dir", p.path("ca"))
	p.ok("list", "--dir", p.path("ca"), "-o", "json")
	p.readAll(p.serve("dashboard.ready", "dashboard", "--dir", p.path("ca"), "--listen", "127.0.0.1:0"))
	p.ok("show", "--dir", p.path("ca"), p.serial("issued/tls.crt"))
	p.ok("show", "--dir", p.path("ca"), "-o", "pem", p.serial("issued/tls.crt"))
	p.ok("fingerprint", "--dir", p.path("ca"))
	p.ok("audit", "--record", p.path("ca"), p.dir, strings.TrimPrefix(storage, "https://"))
	p.ok("audit", "-o", "json", p.dir)
	p.ok("inspect", p.path("issued"))
	p.ok("inspect", strings.TrimPrefix(admin, "https://"))
	p.ok("revoke", "--dir", p.path("ca"), "--file", p.path("issued/tls.crt"))
	p.ok("demo", "--duration", "3s", "--leaf-lifetime", "1m", "--dir", p.path("demo"), "--verbose")
	p.ok("dev", "certs", "--expired", p.path("devcerts"))
	p.ok("dev", "certs", "--renew", "--dry-run", "-o", "json", p.path("devcerts"))

	p.write("first.password", p.read("ca/secrets/password"))
	p.write("new.password", "a password that nobody may see\n")
	p.write("root.password", "a password of the root key\n")
	p.ok("enrolment-key", "rotate", "--dir", p.path("ca"))
	p.ok("enrolment-key", "rotate", "--dir", p.path("ca"), "--now", "-o", "json")
	p.ok("log", "show", "--dir", p.path("ca"), "--kind", "enrolment-key", "-o", "json")
	p.ok("password", "change", "--dir", p.path("ca"), "--new-password-file", p.path("new.password"), "-o", "json")
	p.ok("password", "change", "--dir", p.path("ca"), "--new-password-file", p.path("root.password"), "--root")
	p.fails("password", "change", "--dir", p.path("ca"), "--password-file", p.path("root.password"), "--new-password-file", p.path("client.secret"))

	// Errors print most. Each of these commands fails when it has a secret in memory.
	p.fails("issue", "--ca-url", caURL, "--token-file", p.path("query-module.token"), "--out", p.path("again"))
	p.fails("serve", "--dir", p.path("ca"), "--password-file", p.path("client.secret"), "--listen", "127.0.0.1:0")
	p.fails("upload", "--cert", p.path("issued/tls.key"), "--key", p.path("issued/tls.crt"), "--ca-cert", p.path("issued/tls.key"),
		"--admin-url", admin, "--storage-url", storage, "--client-id", "x", "--client-secret-file", p.path("client.secret"), p.path("file.txt"))
	p.write("devcerts/localhost/current/tls.key", p.read("devcerts/query-module/tls.key")+p.read("devcerts/ca/secrets/password"))
	p.fails("dev", "certs", "--password-file", p.path("client.secret"), p.path("devcerts"))
	wrong := append([]string{"upload", "--admin-url", admin, "--storage-url", storage, "--client-id", "nobody",
		"--client-secret-file", p.path("ca/secrets/password")}, upload[len(upload)-6:]...)
	p.fails(append(wrong, p.path("file.txt"))...)
	p.fails(append([]string{"dev", "ingester", "--count", "1"}, wrong[1:]...)...)
	p.fails("dev", "bootstrap", "--dir", p.path("ca"), "--password-file", p.path("client.secret"), "--token", "ingester="+p.path("third.token"))
	p.fails("dev", "admin", "--dir", p.path("admin"), "--listen", "127.0.0.1:0", "--allow", "ingester",
		"--account", "ingester", "--account-secret-file", p.path("first.token"))

	out := p.stop()
	secrets := p.secrets()
	if len(secrets) < 20 {
		t.Fatalf("only %d secrets found to look for: the test has gone blind", len(secrets))
	}
	for what, s := range secrets {
		if strings.Contains(out, s) {
			t.Errorf("%s is in the output", what)
		}
	}
	if jwt := regexp.MustCompile(`eyJ[A-Za-z0-9_-]{10,}\.`).FindString(out); jwt != "" {
		t.Errorf("something like a token is in the output: %.20s…", jwt)
	}
	if strings.Contains(out, "PRIVATE KEY") {
		t.Error("a private key is in the output")
	}
}

// program runs commands in this process and keeps what they print.
type program struct {
	t   *testing.T
	dir string
	mu  sync.Mutex // guards all
	all bytes.Buffer

	cancel []context.CancelFunc
	ended  sync.WaitGroup
}

// Write keeps output; servers write from their own goroutines.
func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all.Write(b)
}

func (p *program) run(ctx context.Context, stdout *bytes.Buffer, args ...string) int {
	std := ui.Streams{In: strings.NewReader(""), Out: p, Err: p, Getenv: func(string) string { return "" }}
	if stdout != nil {
		std.Out = stdout
	}
	return run(ctx, std, append([]string{"artstore-pki"}, args...))
}

func (p *program) ok(args ...string) {
	p.t.Helper()
	if code := p.run(p.t.Context(), nil, args...); code != ui.ExitOK {
		p.t.Fatalf("%q: exit status %d\n%s", args, code, p.tail())
	}
}

func (p *program) fails(args ...string) {
	p.t.Helper()
	if code := p.run(p.t.Context(), nil, args...); code == ui.ExitOK {
		p.t.Fatalf("%q succeeded, and should not", args)
	}
}

// readAll keeps all pages and tables that the dashboard has, from the first page on by their links.
func (p *program) readAll(url string) {
	p.t.Helper()
	link := regexp.MustCompile(`href="(/[^"]*)"`)
	client := &http.Client{Transport: &http.Transport{}} // one, which keeps its connection
	seen, queue := map[string]bool{}, []string{"/"}
	for len(queue) > 0 && len(seen) < 300 {
		at := queue[0]
		if queue = queue[1:]; seen[at] {
			continue
		}
		seen[at] = true
		resp, err := client.Get(url + at)
		must(p.t, err)
		body, err := io.ReadAll(resp.Body)
		must(p.t, errors.Join(err, resp.Body.Close()))
		if resp.StatusCode != http.StatusOK {
			p.t.Errorf("%s: %s", at, resp.Status)
		}
		_, _ = p.Write(body)
		for _, m := range link.FindAllStringSubmatch(string(body), -1) {
			queue = append(queue, html.UnescapeString(m[1]))
		}
	}
	if len(seen) < 30 {
		p.t.Errorf("the dashboard has %d pages", len(seen))
	}
}

func (p *program) token(service string) {
	p.t.Helper()
	var token bytes.Buffer
	if code := p.run(p.t.Context(), &token, "token", "--dir", p.path("ca"), service); code != ui.ExitOK {
		p.t.Fatalf("token %s: exit status %d\n%s", service, code, p.tail())
	}
	p.write(service+".token", token.String())
}

// accessToken keeps what access-token prints in a file, where secrets looks for it.
func (p *program) accessToken(name string, args ...string) {
	p.t.Helper()
	var token bytes.Buffer
	if code := p.run(p.t.Context(), &token, append([]string{"access-token", "--log-level", "debug"}, args...)...); code != ui.ExitOK {
		p.t.Fatalf("access-token: exit status %d\n%s", code, p.tail())
	}
	p.write(name, token.String())
}

// askSocket keeps the token that access-token serve hands out in a file, as accessToken does.
func (p *program) askSocket(name, socket string) {
	p.t.Helper()
	over := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	resp, err := (&http.Client{Transport: over}).Get("http://localhost/token")
	must(p.t, err)
	defer func() { _ = resp.Body.Close() }() // read to its end
	var answer struct {
		Token string `json:"access_token"`
	}
	must(p.t, json.NewDecoder(resp.Body).Decode(&answer))
	p.write(name, answer.Token)
}

// serve starts a server command and returns its URL.
func (p *program) serve(ready string, args ...string) string {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background()) // ends in stop, in order, before the test ends
	exited, ended := make(chan int, 1), make(chan struct{})
	p.cancel = append(p.cancel, func() { cancel(); <-ended })
	p.ended.Go(func() {
		defer close(ended)
		exited <- p.run(ctx, nil, append(args, "--ready-file", p.path(ready))...)
	})
	deadline := time.After(scriptWait)
	for {
		if b, err := os.ReadFile(p.path(ready)); err == nil && len(b) > 0 {
			return strings.TrimSpace(string(b))
		}
		select {
		case code := <-exited:
			p.t.Fatalf("%q: exit status %d\n%s", args, code, p.tail())
		case <-deadline:
			p.t.Fatalf("%q did not get ready\n%s", args, p.tail())
		case <-time.After(10 * time.Millisecond): // a file tells when it is ready: there is nothing to wait on
		}
	}
}

// stopLast ends the server that was started last: what it renews, another command can then use.
func (p *program) stopLast() {
	p.cancel[len(p.cancel)-1]()
	p.cancel = p.cancel[:len(p.cancel)-1]
}

// stop ends the servers, last one first, and returns all output.
func (p *program) stop() string {
	for i := len(p.cancel) - 1; i >= 0; i-- {
		p.cancel[i]()
	}
	p.ended.Wait()
	return p.output()
}

func (p *program) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all.String()
}

func (p *program) tail() string {
	s := p.output()
	return s[max(0, len(s)-2000):]
}

func (p *program) path(name string) string { return filepath.Join(p.dir, name) }

func (p *program) read(name string) string {
	p.t.Helper()
	b, err := os.ReadFile(p.path(name))
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func (p *program) write(name, content string) {
	p.t.Helper()
	if err := os.WriteFile(p.path(name), []byte(content), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *program) serial(name string) string {
	p.t.Helper()
	certs, err := pemfile.Certificates([]byte(p.read(name)))
	if err != nil {
		p.t.Fatal(err)
	}
	return certs[0].SerialNumber.String()
}

// secrets collects what must not be printed from everything below the directory:
// whole secret files, each line of each key, and the scalars of readable keys.
func (p *program) secrets() map[string]string {
	found := map[string]string{}
	err := filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(p.dir, path)
		switch {
		case strings.HasSuffix(name, ".token"), strings.HasSuffix(name, ".secret"), strings.HasSuffix(name, "password"):
			found[name] = strings.TrimSpace(string(b))
		case bytes.Contains(b, []byte("PRIVATE KEY-----")):
			p.keySecrets(found, name, b)
		}
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return found
}

func (p *program) keySecrets(found map[string]string, name string, pem []byte) {
	for i, line := range strings.Split(string(pem), "\n") {
		if len(line) >= 48 && !strings.Contains(line, " ") { // base64; the short first attributes are the same for all keys
			found[fmt.Sprintf("%s line %d", name, i)] = line
		}
	}
	key, err := pemfile.PrivateKey(pem)
	if err != nil {
		return // encrypted
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return
	}
	d, err := ec.Bytes()
	if err != nil {
		p.t.Fatal(err)
	}
	found[name+" scalar, hex"] = hex.EncodeToString(d)
	found[name+" scalar, decimal"] = ec.D.String() //nolint:staticcheck // SA1019: a decimal scalar is what a careless %v would print
	found[name+" scalar, base64"] = base64.StdEncoding.EncodeToString(d)
}
