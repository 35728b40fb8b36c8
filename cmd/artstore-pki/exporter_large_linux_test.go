package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/testpki"
)

// exportedEnv is the number of files in TestExporterAtSize, 20000 for the bars. There is a server for
// each hundred files.
const exportedEnv = "ARTSTORE_EXPORTED"

const (
	fewExported = 600
	// firstPassRatio is what the first pass may cost beside an audit of the same, in CPU.
	firstPassRatio = 1.5
	// exporterIdle is the share of a core that it may cost afterwards, with a scrape each minute.
	exporterIdle = 0.02
	// exporterPeak is the most memory that it may have had, in bytes.
	exporterPeak = 96 << 20
	// seenWithin is the time within which a changed file is in the metrics.
	seenWithin = 5 * time.Second
)

// TestExporterAtSize measures a real exporter with many files and servers: what its first pass costs
// beside "audit" of the same, what it costs afterwards, its memory, and how soon a changed file is in the
// metrics. With few files the program itself is most of the cost, so the bars are for the number of
// the environment only.
func TestExporterAtSize(t *testing.T) {
	long(t, "it makes hundreds of certificates")
	n := fewExported
	if text := os.Getenv(exportedEnv); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		must(t, err)
	}
	f := exportMany(t, n)
	f.firstPass(t)
	f.changedFile(t)
	f.idle(t)
	if peak := f.memory(t, "VmHWM:"); f.bars && peak > exporterPeak {
		t.Errorf("%d MiB at most, want %d", peak>>20, exporterPeak>>20)
	}
	t.Logf("%d files: %d MiB at most, %d MiB now", n, f.memory(t, "VmHWM:")>>20, f.memory(t, "VmRSS:")>>20)
}

// exported is an exporter of many files and servers.
type exported struct {
	w       *killFixture
	issuer  *testpki.Pair
	root    *testpki.Pair
	config  string
	targets []string
	files   int
	url     string
	pid     int
	bars    bool
}

// exportMany makes files, 20 in a directory, each with a leaf and its intermediate, and servers.
func exportMany(t *testing.T, n int) *exported {
	t.Helper()
	f := &exported{w: &killFixture{dir: t.TempDir()}, files: n, bars: n > fewExported && !raceEnabled}
	f.w.program = selfAs(t, f.w.dir)
	authority := func(cn string, by *testpki.Pair) *testpki.Pair {
		return testpki.Issue(t, by, &x509.Certificate{
			Subject: pkix.Name{CommonName: cn}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().AddDate(1, 0, 0),
		}, nil)
	}
	f.root = authority("Root", nil)
	f.issuer = authority("Intermediate", f.root)
	dir := filepath.Join(f.w.dir, "tls")
	must(t, os.Mkdir(dir, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "ca.crt"), pemOf(f.root), 0o600))
	var keys []*ecdsa.PrivateKey
	for range 50 {
		keys = append(keys, testpki.Key(t))
	}
	for i := range n {
		path := f.path(i)
		if i%20 == 0 {
			must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		}
		must(t, os.WriteFile(path, f.leaf(t, i, keys[i%len(keys)]), 0o600))
	}
	f.targets = []string{"tls"}
	for range max(1, n/100) {
		f.targets = append(f.targets, f.serve(t))
	}
	f.config = fmt.Sprintf("targets: [%s]\ntrust_bundle: tls/ca.crt\n", `"`+strings.Join(f.targets, `", "`)+`"`)
	must(t, os.WriteFile(filepath.Join(f.w.dir, "exporter.yaml"), []byte(f.config), 0o600))
	return f
}

func (f *exported) path(i int) string {
	return filepath.Join(f.w.dir, "tls", fmt.Sprintf("host-%d", i/20), fmt.Sprintf("service-%d.crt", i))
}

func pemOf(chain ...*testpki.Pair) (out []byte) {
	for _, p := range chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Cert.Raw})...)
	}
	return out
}

func (f *exported) leaf(t *testing.T, i int, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	name := fmt.Sprintf("service-%d.example", i)
	return pemOf(testpki.Issue(t, f.issuer, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name, "localhost", "www." + name}, NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, key), f.issuer)
}

// serve starts a server in this process.
func (f *exported) serve(t *testing.T) string {
	t.Helper()
	leaf := testpki.Issue(t, f.issuer, &x509.Certificate{DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, nil)
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Cert.Raw, f.issuer.Cert.Raw}, PrivateKey: leaf.Key}}}
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = tls.Server(c, config).HandshakeContext(t.Context())
				_ = c.Close()
			}()
		}
	}()
	return ln.Addr().String()
}

// audit returns what an audit of the same costs, in CPU.
func (f *exported) audit(t *testing.T) time.Duration {
	t.Helper()
	cmd := f.w.command(t.Context(), io.Discard, append([]string{"audit", "-o", "ndjson", "--ca-cert", "tls/ca.crt"}, f.targets...))
	must(t, cmd.Run())
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// begin starts an exporter and returns what it costs until it has looked at everything.
func (f *exported) begin(t *testing.T) (p *process, cost time.Duration) {
	t.Helper()
	_ = os.Remove(filepath.Join(f.w.dir, "url")) // of the one before
	p = f.w.start(t, "exporter", "--config", "exporter.yaml", "--listen", "127.0.0.1:0", "--ready-file", "url")
	f.url, f.pid = f.w.url(t, "url"), p.cmd.Process.Pid
	for late := time.Now().Add(5 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		code, _, err := f.get(t, "/healthz")
		if err == nil && code == http.StatusOK {
			return p, f.cpu(t)
		}
		if time.Now().After(late) {
			t.Fatalf("it is never ready: %s", p.out.String())
		}
	}
}

// firstPass compares first passes with audits, in turns, because the machine does other things too.
func (f *exported) firstPass(t *testing.T) {
	t.Helper()
	var audits, passes []time.Duration
	for round := range 3 {
		audits = append(audits, f.audit(t))
		p, cost := f.begin(t)
		passes = append(passes, cost)
		if round < 2 {
			p.kill()
		}
	}
	ratio := float64(slices.Min(passes)) / float64(slices.Min(audits))
	t.Logf("audit %v, first pass %v: %.2f", audits, passes, ratio)
	if f.bars && ratio > firstPassRatio {
		t.Errorf("the first pass costs %.2f times an audit, want %.2f at most", ratio, firstPassRatio)
	}
	_, text, err := f.get(t, "/metrics")
	must(t, err)
	if n := strings.Count(text, "\nartstore_audit_not_after_timestamp_seconds{"); n < f.files+len(f.targets)-1 {
		t.Errorf("%d certificates are in the metrics", n)
	}
}

// changedFile replaces files and waits until they are in the metrics. The best of three counts, and
// what two scrapes take is added to the bound: on a busy machine each of them may take seconds, and
// one may have begun before the change.
func (f *exported) changedFile(t *testing.T) {
	t.Helper()
	best := time.Hour
	for i := range 3 {
		begun := time.Now()
		before := f.number(t, "artstore_exporter_file_reads_total")
		scrapes := 2 * time.Since(begun)
		cert := f.leaf(t, f.files+i, testpki.Key(t))
		begun = time.Now()
		must(t, os.WriteFile(f.path(i*7), cert, 0o600))
		for {
			_, text, err := f.get(t, "/metrics")
			must(t, err)
			if strings.Contains(text, fmt.Sprintf(`name="service-%d.example"`, f.files+i)) {
				break
			}
			if time.Since(begun) > scriptWait {
				t.Fatal("a changed file is never seen")
			}
			time.Sleep(20 * time.Millisecond)
		}
		took := time.Since(begun)
		t.Logf("a changed file is seen within %v, of which two scrapes take %v", took, scrapes)
		best = min(best, took-scrapes)
		if n := f.number(t, "artstore_exporter_file_reads_total") - before; n > 3 {
			t.Errorf("%v files were read because one has changed", n)
		}
	}
	if best > seenWithin {
		t.Errorf("a changed file is seen within %v, want %v", best, seenWithin)
	}
}

// idle measures the CPU while nothing changes: for two minutes with the number of the bars, in which
// all files are looked at twice and four of ten servers are asked, with a scrape each minute.
func (f *exported) idle(t *testing.T) {
	t.Helper()
	took, scrapes := time.Second, 1
	if f.bars {
		took, scrapes = 2*time.Minute, 2
	}
	time.Sleep(took / 20)
	before, begun := f.cpu(t), time.Now()
	for range scrapes {
		time.Sleep(took / time.Duration(scrapes))
		_, _, err := f.get(t, "/metrics")
		must(t, err)
	}
	share := float64(f.cpu(t)-before) / float64(time.Since(begun))
	t.Logf("%.2f %% of a core", 100*share)
	if f.bars && share > exporterIdle {
		t.Errorf("%.2f %% of a core, want %.0f %%", 100*share, 100*exporterIdle)
	}
	for _, path := range []string{"/", "/report.json"} { // these count for the memory
		code, text, err := f.get(t, path)
		must(t, err)
		if code != http.StatusOK || len(text) < f.files {
			t.Errorf("%s: %d, %d bytes", path, code, len(text))
		}
	}
}

func (f *exported) get(t *testing.T, path string) (int, string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), scriptWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+path, nil)
	must(t, err)
	resp, err := (&http.Client{Timeout: scriptWait}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// number returns a value of the metrics.
func (f *exported) number(t *testing.T, name string) float64 {
	t.Helper()
	_, text, err := f.get(t, "/metrics")
	must(t, err)
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			must(t, err)
			return n
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

// cpu returns what the exporter has used of processors.
func (f *exported) cpu(t *testing.T) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", f.pid))
	must(t, err)
	fields := strings.Fields(string(stat[strings.LastIndex(string(stat), ")"):]))
	var ticks int
	for _, at := range []int{12, 13} { // utime and stime of proc(5), counted from the name in parentheses
		n, err := strconv.Atoi(fields[at])
		must(t, err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100 on all of Linux
}

// memory returns a number of /proc/PID/status, in bytes.
func (f *exported) memory(t *testing.T, name string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.pid))
	must(t, err)
	_, rest, _ := strings.Cut(string(status), name)
	var kib int64
	_, err = fmt.Sscan(rest, &kib)
	must(t, err)
	return kib << 10
}
