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
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

const (
	crashEnv     = "ARTSTORE_PKI_TEST_CRASH_DIR"
	killsEnv     = "ARTSTORE_CA_KILLS" // rounds of TestKill; make soak runs 200
	crashRounds  = 5
	crashWorkers = 4
	crashAfter   = 20 // certificates received before each kill
)

// TestServeForCrash does nothing in an ordinary run: TestKill runs it in processes of
// their own and kills those.
func TestServeForCrash(t *testing.T) {
	dir := os.Getenv(crashEnv)
	if dir == "" {
		return // an ordinary run of the tests
	}
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	a.MarkEvery(0) // with each new head
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = a.KeepLog(t.Context()) }()
	fmt.Fprintf(os.Stdout, "http://%s\n", ln.Addr())
	// Cleartext is enough: the test is about the record, and /sign needs no client certificate.
	srv := &http.Server{Handler: a.Handler(), ReadHeaderTimeout: time.Minute}
	t.Log(srv.Serve(ln))
}

// TestKill ends issuing authorities with SIGKILL, many times: one that has its record
// in a file, and one after the other of three that share PostgreSQL, while clients use
// those that are left. Every certificate that a client has received must be in the
// record, the log must verify, no token may be good for a second key, and the marker
// must name a head that the record has.
func TestKill(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	rounds := crashRounds
	if text := os.Getenv(killsEnv); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("sqlite", func(t *testing.T) { killOver(t, rounds, 1, "") })
	t.Run("postgres", func(t *testing.T) { killOver(t, rounds, 3, postgres.Database(t)) })
}

func killOver(t *testing.T, rounds, processes int, database string) {
	dir, allowed := t.TempDir()+"/ca", profiles()
	storage := allowed["storage"]
	storage.MaxLive = 1_000_000 // 200 rounds leave more than a service has
	allowed["storage"] = storage
	if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, PlainKeys: true, Profiles: allowed, Database: database}); err != nil {
		t.Fatal(err)
	}
	var given []bought
	marked := int64(0)
	for round := range rounds {
		f := &fleet{}
		for range processes {
			f.add(startForCrash(t, dir))
		}
		got := issueUntilKilled(t, dir, f)
		if len(got) < processes*crashAfter {
			t.Fatalf("round %d: only %d certificates before the last kill", round, len(got))
		}
		given = append(given, got...)
		marked = markerAfterKill(t, dir, marked)
	}
	if marked == 0 {
		t.Error("the marker never left the empty log")
	}
	record, err := ca.StateDir(dir).OpenRecord(t.Context())
	if err != nil {
		t.Fatalf("the record does not open after a kill: %v", err)
	}
	defer func() { _ = record.Close() }()
	for _, g := range given {
		entry, err := record.Show(t.Context(), g.serial)
		if err != nil || !bytes.Equal(entry.DER, g.der) {
			t.Errorf("a certificate that was given out is not in the record: %v", err)
		}
	}
	t.Logf("%d kills, %d certificates given out", rounds*processes, len(given))
	report, err := record.VerifyLog(t.Context(), ca.LogOptions{})
	if err != nil || len(report.Findings) != 0 || report.Size == 0 {
		t.Errorf("log: %+v %v", report, err)
	}
	if len(given) < 500 {
		(&catest.CA{Dir: dir}).Check(t)
	}
	url, kill := startForCrash(t, dir)
	defer kill()
	for _, g := range given[:10] {
		if status, _ := postSign(t, url, g.token); status != http.StatusUnauthorized {
			t.Errorf("a token spent before the kill bought another key: %d", status)
		}
	}
}

// markerAfterKill returns the size of the marker. It must be whole, not ahead of the
// record, and not behind the marker after the kill before.
func markerAfterKill(t *testing.T, dir string, before int64) (size int64) {
	t.Helper()
	size = markerOf(t, dir)
	record, err := ca.StateDir(dir).OpenRecord(t.Context()) // it compares them
	if err != nil {
		t.Fatalf("the record after a kill: %v", err)
	}
	defer func() { _ = record.Close() }()
	if size < before {
		t.Errorf("the marker went back from %d to %d", before, size)
	}
	return size
}

type bought struct {
	token, serial string
	der           []byte
}

// fleet has the authorities that are alive.
type fleet struct {
	mu    sync.Mutex
	urls  []string
	kills []func()
	next  int
}

func (f *fleet) add(url string, kill func()) {
	f.urls, f.kills = append(f.urls, url), append(f.kills, kill)
}

// pick returns the URL of the next authority in turn, "" when none is left.
func (f *fleet) pick() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.urls) == 0 {
		return ""
	}
	f.next++
	return f.urls[f.next%len(f.urls)]
}

func (f *fleet) killOne() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.kills) == 0 {
		return // all are killed, and this answer was under way
	}
	f.kills[0]()
	f.urls, f.kills = f.urls[1:], f.kills[1:]
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

// issueUntilKilled gets certificates with several clients at once, and kills one
// authority after the other meanwhile. It returns the certificates whose answers were
// received whole.
func issueUntilKilled(t *testing.T, dir string, f *fleet) []bought {
	t.Helper()
	var mu sync.Mutex // guards got
	var got []bought
	var workers sync.WaitGroup
	for range crashWorkers {
		workers.Go(func() {
			for url := f.pick(); url != "" && !t.Failed(); url = f.pick() {
				b, ok := buy(t, dir, url)
				if !ok {
					continue // it was killed, before its answer or in the middle of it
				}
				mu.Lock()
				got = append(got, b)
				enough := len(got)%crashAfter == 0
				mu.Unlock()
				if enough {
					f.killOne()
				}
			}
		})
	}
	workers.Wait()
	return got
}

func buy(t *testing.T, dir, url string) (b bought, ok bool) {
	token, err := ca.StateDir(dir).NewToken(t.Context(), ca.TokenOptions{Service: "storage"})
	if err != nil {
		t.Error(err)
		return b, false
	}
	status, body := postSign(t, url, token.Expose())
	var resp stepapi.SignResponse
	if status == 0 || status == http.StatusCreated && json.Unmarshal(body, &resp) != nil {
		return b, false
	}
	if status != http.StatusCreated {
		t.Errorf("sign: %d %s", status, body)
		return b, false
	}
	leaf, err := pemfile.Certificates([]byte(resp.Certificate))
	if err != nil {
		t.Error(err)
		return b, false
	}
	return bought{token.Expose(), leaf[0].SerialNumber.String(), leaf[0].Raw}, true
}

// postSign returns 0 if there was no whole answer.
func postSign(t *testing.T, url, token string) (status int, body []byte) {
	t.Helper()
	req := stepapi.SignRequest{CSR: csr(t, newKey(t), "storage", "storage", "localhost", "127.0.0.1"), OTT: token}
	c := &client{t: quiet{t}, url: url, http: &http.Client{Timeout: time.Minute}}
	return c.do("POST", "/sign", req)
}

// quiet drops the connection errors that a kill causes at the clients.
type quiet struct{ *testing.T }

func (quiet) Errorf(string, ...any) {}
