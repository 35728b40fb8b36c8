package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// watchersEnv is how many services wait in TestServeHoldsWatchers. `make soak` sets it to
// the number of the bar.
const watchersEnv = "ARTSTORE_WATCHERS"

const (
	fewWatchers = 250
	// watcherBytes is what one service that waits may cost: heap and stacks of serve.
	watcherBytes = 30 << 10
	// watcherCPU is the share of a core that all of them may cost together while nothing changes.
	watcherCPU = 0.05
	// toldWithin is how long one change may take to reach all of them.
	toldWithin = 10 * time.Second
)

// TestServeHoldsWatchers measures what a real serve pays for services that wait: memory of
// each, CPU of all, and how long one change takes to reach them. Over HTTP/2, where each would
// cost more, nothing is held. The CPU is measured with the number of the bar only, since a
// program that does nothing else costs something too.
func TestServeHoldsWatchers(t *testing.T) {
	long(t, "it enrols hundreds of services")
	n := fewWatchers
	if text := os.Getenv(watchersEnv); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		must(t, err)
	}
	f := startWatched(t, n)
	f.measure(t)
	f.notOverHTTP2(t)
}

// watchFleet is a serve, and services that have enrolled at it.
type watchFleet struct {
	w             *killFixture
	addr, metrics string
	pid           int
	roots         *x509.CertPool
	certs         []tls.Certificate
	before        float64 // memory before anybody waits, in bytes
}

func startWatched(t *testing.T, n int) *watchFleet {
	t.Helper()
	t.Setenv("GOGC", "10") // of the child: little garbage is counted as memory of the services
	f := serveWatched(t, "1d")
	f.enrol(t, n)
	f.before = f.memory(t)
	return f
}

// serveWatched starts a serve without limits for each address and service. Its certificates are
// valid for life.
func serveWatched(t *testing.T, life string) *watchFleet {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	w := &killFixture{dir: t.TempDir()}
	w.program = filepath.Join(w.dir, "artstore-pki")
	must(t, os.Symlink(self, w.program))
	w.ok(t, "init", "--plain-keys", "--dir", "ca", "--lifetime", life)
	config, err := os.OpenFile(filepath.Join(w.dir, "ca", "pki.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = io.WriteString(config, "\nlimits: {per_address: {per_second: 0}, per_service: {per_second: 0}}\n")
	must(t, err)
	must(t, config.Close())
	f := &watchFleet{w: w, metrics: freeAddress(t)}
	f.pid = w.start(t, "serve", "--dir", "ca", "--listen", "127.0.0.1:0", "--ready-file", "url", "--metrics", f.metrics, "--log-level", "error").cmd.Process.Pid
	f.addr = strings.TrimPrefix(w.url(t, "url"), "https://")
	root, err := os.ReadFile(filepath.Join(w.dir, "ca/certs/root_ca.crt"))
	must(t, err)
	f.roots = x509.NewCertPool()
	f.roots.AppendCertsFromPEM(root)
	return f
}

// enrol gets n certificates, each of a lineage of its own.
func (f *watchFleet) enrol(t *testing.T, n int) {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: f.tls(nil), MaxIdleConnsPerHost: 8}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}
	f.certs = make([]tls.Certificate, n)
	var group sync.WaitGroup
	next := make(chan int)
	for range 8 {
		group.Go(func() {
			for i := range next {
				cert, err := f.enrolOne(t.Context(), client)
				if err != nil {
					t.Error(err)
				}
				f.certs[i] = cert
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

func (f *watchFleet) enrolOne(ctx context.Context, client *http.Client) (cert tls.Certificate, err error) {
	token, err := ca.StateDir(filepath.Join(f.w.dir, "ca")).NewToken(ctx, ca.TokenOptions{Service: "ingester", Names: []string{"ingester"}})
	if err != nil {
		return cert, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return cert, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "ingester"}, DNSNames: []string{"ingester"}}, key)
	if err != nil {
		return cert, err
	}
	body, err := json.Marshal(stepapi.SignRequest{CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), OTT: token.Expose()})
	if err != nil {
		return cert, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+f.addr+"/sign", bytes.NewReader(body))
	if err != nil {
		return cert, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return cert, err
	}
	defer func() { _ = resp.Body.Close() }()
	var signed stepapi.SignResponse
	if err := json.NewDecoder(resp.Body).Decode(&signed); err != nil || resp.StatusCode != http.StatusCreated {
		return cert, fmt.Errorf("sign: %s %w", resp.Status, err)
	}
	chain, err := pemfile.Certificates([]byte(strings.Join(signed.Chain, "")))
	if err != nil {
		return cert, err
	}
	cert.PrivateKey = key
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}

func (f *watchFleet) tls(cert *tls.Certificate) *tls.Config {
	conf := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: f.roots, ServerName: "localhost"}
	if cert != nil {
		conf.Certificates = []tls.Certificate{*cert}
	}
	return conf
}

// measure lets all services wait, and changes something.
func (f *watchFleet) measure(t *testing.T) {
	t.Helper()
	n := len(f.certs)
	query := f.current(t)
	conns := make([]*tls.Conn, n)
	f.each(t, func(i int) error {
		c, err := f.open(t.Context(), i, query)
		conns[i] = c
		return err
	})
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	f.await(t, n)
	each := (f.memory(t) - f.before) / float64(n)
	t.Logf("%d services wait: %.1f KiB each, and %.1f MiB without them", n, each/1024, f.before/(1<<20))
	if each > watcherBytes {
		t.Errorf("%.0f bytes for each service that waits, want %d at most", each, watcherBytes)
	}
	f.idle(t)
	began := time.Now()
	f.change(t)
	f.each(t, func(i int) error { return readAnswer(conns[i], began) })
	took := time.Since(began)
	t.Logf("one revocation has reached all of %d after %s", n, took.Round(time.Millisecond))
	if took > toldWithin {
		t.Errorf("one change took %s, want %s at most", took, toldWithin)
	}
}

// notOverHTTP2 expects that the same requests over HTTP/2 are answered at once.
func (f *watchFleet) notOverHTTP2(t *testing.T) {
	t.Helper()
	query := f.current(t)
	for i := range min(len(f.certs), 20) {
		tr := &http.Transport{TLSClientConfig: f.tls(&f.certs[i]), ForceAttemptHTTP2: true}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+f.addr+query, nil)
		must(t, err)
		resp, err := (&http.Client{Transport: tr}).Do(req)
		must(t, err)
		defer tr.CloseIdleConnections()
		_ = resp.Body.Close()
		if resp.ProtoMajor != 2 || resp.StatusCode != http.StatusHTTPVersionNotSupported {
			t.Errorf("over %s: %s", resp.Proto, resp.Status)
		}
	}
	f.await(t, 0) // the test has closed those of before
}

// await waits until so many services wait at serve.
func (f *watchFleet) await(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); int(f.metric(t, "artstore_ca_watchers")) != n; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%v services wait, want %d", f.metric(t, "artstore_ca_watchers"), n)
		}
	}
}

// idle measures the CPU of serve while nothing changes, with many services only.
func (f *watchFleet) idle(t *testing.T) {
	t.Helper()
	span := 10 * time.Second
	if len(f.certs) <= fewWatchers {
		return
	}
	cpu := f.metric(t, "process_cpu_seconds_total")
	time.Sleep(span) // another process is measured: there is nothing to wait on
	share := (f.metric(t, "process_cpu_seconds_total") - cpu) / span.Seconds()
	t.Logf("%.1f %% of a core while nothing changes", 100*share)
	if share > watcherCPU {
		t.Errorf("%.3f of a core, want %.2f at most", share, watcherCPU)
	}
}

// each calls fn for all services, some at once.
func (f *watchFleet) each(t *testing.T, fn func(i int) error) {
	t.Helper()
	var group sync.WaitGroup
	next := make(chan int)
	for range 4 * runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for i := range next {
				if err := fn(i); err != nil {
					t.Errorf("service %d: %v", i, err)
				}
			}
		})
	}
	for i := range f.certs {
		next <- i
	}
	close(next)
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// current returns the query of a service that lacks nothing.
func (f *watchFleet) current(t *testing.T) string {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: f.tls(&f.certs[0])}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+f.addr+"/watch?wait=0", nil)
	must(t, err)
	resp, err := (&http.Client{Transport: tr}).Do(req)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	var have stepapi.WatchResponse
	must(t, json.NewDecoder(resp.Body).Decode(&have))
	return "/watch?trust=" + have.Trust + "&lists=" + have.Lists
}

// open connects as one service and sends its request.
func (f *watchFleet) open(ctx context.Context, i int, path string) (*tls.Conn, error) {
	d := tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%200))}}, Config: f.tls(&f.certs[i])}
	raw, err := d.DialContext(ctx, "tcp", f.addr)
	if err != nil {
		return nil, err
	}
	c := raw.(*tls.Conn)
	_, err = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path)
	return c, err
}

// readAnswer reads the answer of a request that open has sent.
func readAnswer(c *tls.Conn, began time.Time) error {
	if err := c.SetReadDeadline(began.Add(time.Minute)); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("answer: %s", resp.Status)
	}
	return nil
}

// change revokes a certificate by the command of an operator. Its holder waits no more: it
// is cut and not answered.
func (f *watchFleet) change(t *testing.T) {
	t.Helper()
	leaf, err := x509.ParseCertificate(f.certs[len(f.certs)-1].Certificate[0])
	must(t, err)
	f.w.ok(t, "revoke", "--dir", "ca", leaf.SerialNumber.String())
	f.certs = f.certs[:len(f.certs)-1]
}

// memory is heap and stacks of serve, in bytes.
func (f *watchFleet) memory(t *testing.T) float64 {
	t.Helper()
	return f.metric(t, "go_memstats_heap_alloc_bytes") + f.metric(t, "go_memstats_stack_inuse_bytes")
}

// metric reads one value of serve.
func (f *watchFleet) metric(t *testing.T, name string) float64 {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+f.metrics+"/metrics", nil)
	must(t, err)
	resp, err := (&http.Client{Timeout: scriptWait}).Do(req)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			v, err := strconv.ParseFloat(value, 64)
			must(t, err)
			return v
		}
	}
	t.Fatalf("serve has no metric %s", name)
	return 0
}
