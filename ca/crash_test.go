package ca_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

const (
	crashEnv     = "ARTSTORE_PKI_TEST_CRASH_DIR"
	crashRounds  = 3
	crashWorkers = 4
	crashAfter   = 25 // certificates received before the kill
)

// TestServeForCrash is no test of its own: TestKill runs it in a process of its own and kills that.
func TestServeForCrash(t *testing.T) {
	dir := os.Getenv(crashEnv)
	if dir == "" {
		return // an ordinary run of the tests
	}
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(os.Stdout, "http://%s\n", ln.Addr())
	// Cleartext: what is tried here lies below TLS, and /sign needs no client certificate.
	srv := &http.Server{Handler: a.Handler(), ReadHeaderTimeout: time.Second}
	t.Log(srv.Serve(ln))
}

// TestKill ends an issuing authority with SIGKILL, over and over. Whatever a
// client was given must be in the record, and no token may buy a second key.
func TestKill(t *testing.T) {
	dir := t.TempDir() + "/ca"
	if _, err := ca.Init(t.Context(), ca.InitOptions{Dir: dir, PlainKeys: true, Profiles: profiles()}); err != nil {
		t.Fatal(err)
	}
	given := map[string][]byte{} // serial → DER
	var spent []string           // tokens that bought them
	for round := range crashRounds {
		url, kill := startForCrash(t, dir)
		got := issueUntilKilled(t, dir, url, kill)
		if len(got) < crashAfter {
			t.Fatalf("round %d: only %d certificates before the kill", round, len(got))
		}
		for _, g := range got {
			given[g.serial] = g.der
			spent = append(spent, g.token)
		}
	}
	record, err := ca.OpenRecord(t.Context(), dir)
	if err != nil {
		t.Fatalf("the record does not open after a kill: %v", err)
	}
	defer func() { _ = record.Close() }()
	for serial, der := range given {
		entry, err := record.Show(t.Context(), serial)
		if err != nil || !bytes.Equal(entry.DER, der) {
			t.Errorf("a certificate that was given out is not in the record: %v", err)
		}
	}
	url, kill := startForCrash(t, dir)
	defer kill()
	for _, token := range spent[:10] {
		if status, _ := postSign(t, url, token); status != http.StatusUnauthorized {
			t.Errorf("a token spent before the kill bought another key: %d", status)
		}
	}
}

type bought struct {
	token, serial string
	der           []byte
}

func startForCrash(t *testing.T, dir string) (url string, kill func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestServeForCrash$", "-test.v")
	cmd.Env = append(os.Environ(), crashEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // SIGKILL
		_ = cmd.Wait()         // says "killed"
	})
	t.Cleanup(kill)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "http://") {
			return lines.Text(), kill
		}
	}
	t.Fatal("the authority did not start")
	return "", nil
}

// issueUntilKilled buys certificates from several clients at once and kills the
// authority under them; it returns what was received whole.
func issueUntilKilled(t *testing.T, dir, url string, kill func()) []bought {
	t.Helper()
	var mu sync.Mutex // guards got
	var got []bought
	var workers sync.WaitGroup
	for range crashWorkers {
		workers.Go(func() {
			for {
				token, err := ca.NewToken(t.Context(), ca.TokenOptions{Dir: dir, Service: "storage"})
				if err != nil {
					t.Error(err)
					return
				}
				status, body := postSign(t, url, token.Expose())
				if status != http.StatusCreated {
					return // it was killed
				}
				var resp stepapi.SignResponse
				if json.Unmarshal(body, &resp) != nil {
					return // killed in the middle of the answer
				}
				leaf, err := pemfile.Certificates([]byte(resp.Certificate))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				got = append(got, bought{token.Expose(), leaf[0].SerialNumber.String(), leaf[0].Raw})
				enough := len(got) == crashAfter
				mu.Unlock()
				if enough {
					kill()
				}
			}
		})
	}
	workers.Wait()
	return got
}

// postSign returns 0 if there was no whole answer.
func postSign(t *testing.T, url, token string) (status int, body []byte) {
	t.Helper()
	req := stepapi.SignRequest{CSR: csr(t, newKey(t), "storage", "storage", "localhost", "127.0.0.1"), OTT: token}
	c := &client{t: quiet{t}, url: url, http: &http.Client{Timeout: 10 * time.Second}}
	return c.do("POST", "/sign", req)
}

// quiet lets a client meet the connection errors that a kill is meant to cause.
type quiet struct{ *testing.T }

func (quiet) Errorf(string, ...any) {}
