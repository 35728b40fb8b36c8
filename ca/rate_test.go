package ca_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"database/sql"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

func TestAddresses(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:99": "192.0.2.1/32", "[::ffff:192.0.2.1]:1": "192.0.2.1/32", "[2001:db8:1:2:3:4:5:6]:1": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1": "fe80::/64", "@": "invalid Prefix", "": "invalid Prefix",
	} {
		if got := ca.Addressed(remote); got != want {
			t.Errorf("%q: %s, want %s", remote, got, want)
		}
	}
}

// from returns a client with another address of this machine.
func from(t testing.TB, c *catest.CA, address string) *client {
	t.Helper()
	cl := newClient(t, c, nil)
	cl.http.Transport.(*http.Transport).DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext
	return cl
}

// forged returns a request with a token that an unknown key has signed.
func forged(t testing.TB, c *catest.CA) stepapi.SignRequest {
	t.Helper()
	req := signRequest(t, c.Token(t, "storage"), newKey(t), "storage", "storage", "localhost", "127.0.0.1")
	at, other := strings.LastIndexByte(req.OTT, '.')+10, "A" // not all zero, which would be refused without arithmetic
	if req.OTT[at] == 'A' {
		other = "B"
	}
	req.OTT = req.OTT[:at] + other + req.OTT[at+1:]
	return req
}

// Requests with bad credentials from one address leave nothing in the record and in
// memory, are refused at little cost, and do not slow down another address.
func TestFlood(t *testing.T) {
	requests := 4000
	if n, err := strconv.Atoi(os.Getenv("FLOOD")); err == nil {
		requests = n
	}
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	bad, rows := forged(t, c), recordRows(t, c)
	before, began := heap(), time.Now()
	done := make(chan map[int]int)
	go func() {
		statuses, cl := make(map[int]int), from(t, c, "127.0.0.2")
		for range requests {
			status, _ := cl.do("POST", "/sign", bad)
			statuses[status]++
		}
		done <- statuses
	}()
	honest, friend := 0, newClient(t, c, nil)
	var statuses map[int]int
	for statuses == nil {
		select {
		case statuses = <-done:
		default:
			if status, body := friend.do("GET", "/roots", nil); status != http.StatusCreated {
				t.Fatalf("an honest request: %d %s", status, body)
			}
			friend.http.CloseIdleConnections() // so that each has a handshake, like most requests of services
			honest++
		}
	}
	t.Logf("%d refused: %v; %d honest requests meanwhile", requests, statuses, honest)
	// The bucket of 2000 is empty after 20 of them, and each second fills it for 10 more.
	most := 25 + int(10*time.Since(began).Seconds())
	if n := statuses[http.StatusUnauthorized]; n < 20 || n > most || n+statuses[http.StatusTooManyRequests] != requests {
		t.Errorf("statuses %v, want 20 to %d of %d", statuses, most, http.StatusUnauthorized)
	}
	if now := recordRows(t, c); !maps.Equal(now, rows) {
		t.Errorf("the record grew from %v to %v", rows, now)
	}
	if grown := int64(heap()) - int64(before); grown > 8<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	enrol(t, c, "storage", "storage")
	c.Check(t)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// recordRows counts the rows of every table except those of the log and the tallies of it, which grow
// by themselves for earlier events.
func recordRows(t testing.TB, c *catest.CA) map[string]int {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(c.Dir, "pki.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(t.Context(), `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'log%'
		AND name NOT IN ('tally_state', 'tallies', 'holders', 'fingerprints')`)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		counts[name] = 0
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(counts) < 7 {
		t.Fatalf("%d tables, %v", len(counts), err)
	}
	for name := range counts {
		var n int
		if err := db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM "`+name+`"`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		counts[name] = n
	}
	return counts
}

func limitsOf(yaml string) func([]byte) []byte {
	return func(b []byte) []byte { return append(b, "limits: "+yaml+"\n"...) }
}

// A service is limited by its certificate, from every address. The answer says how
// long to wait, and a reload changes the limit.
func TestServiceLimit(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles(), Edit: limitsOf("{per_service: {per_second: 0.01, burst: 2}}")})
	cert := enrol(t, c, "storage", "storage")
	cl := newClient(t, c, cert)
	for i := range 3 {
		if status, _ := cl.do("GET", "/roots", nil); (status == http.StatusCreated) != (i < 2) {
			t.Errorf("request %d: %d", i, status)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.URL+"/renew", strings.NewReader("not parsed"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := cl.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var body stepapi.Error
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	wait, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if resp.StatusCode != http.StatusTooManyRequests || err != nil || wait < 50 || wait > 100 || body.Status != 429 || !strings.Contains(body.Message, "too many requests of this service") {
		t.Errorf("%d, Retry-After %d, %+v", resp.StatusCode, wait, body)
	}
	if status, _ := newClient(t, c, nil).do("GET", "/roots", nil); status != http.StatusCreated {
		t.Errorf("without a certificate: %d", status)
	}
	c.Rewrite(t, func(b []byte) []byte { return bytes.Replace(b, []byte("0.01"), []byte("0"), 1) })
	if err := c.Authority.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if status, _ := cl.do("GET", "/roots", nil); status != http.StatusCreated {
			t.Errorf("without a limit: %d", status)
		}
	}
	for _, bad := range []string{"{per_service: {per_second: -1}}", "{per_address: {burst: -1}}", "{per_address: {per_second: .nan}}"} {
		c.Rewrite(t, limitsOf(bad))
		if err := c.Authority.Reload(t.Context()); err == nil {
			t.Errorf("limits %s were accepted", bad)
		}
		c.Rewrite(t, func(b []byte) []byte { return b[:bytes.LastIndex(b, []byte("limits: "))] })
	}
}

// A service may have so many live certificates. A renewal does not count; a
// certificate that has expired or was revoked makes room.
func TestMaxLive(t *testing.T) {
	t.Parallel()
	p := profiles()
	storage := p["storage"]
	storage.MaxLive = 2
	p["storage"] = storage
	c := catest.Start(t, catest.Options{Profiles: p})
	expired(t, c, "storage", time.Minute, "storage")
	enrol(t, c, "storage", "storage")
	second := enrol(t, c, "storage", "storage")
	refused := func(want int) {
		t.Helper()
		status, body := newClient(t, c, nil).do("POST", "/sign", signRequest(t, c.Token(t, "storage", "storage"), newKey(t), "storage", "storage"))
		if status != want || status == http.StatusForbidden && !strings.Contains(message(t, body), "profiles.storage.max_live") {
			t.Errorf("%d %s, want %d", status, body, want)
		}
	}
	refused(http.StatusForbidden)
	if status, body := newClient(t, c, second).do("POST", "/renew", nil); status != http.StatusCreated {
		t.Errorf("renewal: %d %s", status, body)
	}
	c.Revoke(t, second.Leaf.SerialNumber.String())
	refused(http.StatusForbidden) // its renewal has taken its place
	all := listAll(t, c)
	for _, e := range all {
		if e.Service == "storage" && e.Previous != "" {
			c.Revoke(t, e.Serial)
		}
	}
	refused(http.StatusCreated)
	events, err := openRecord(t, c).Events(t.Context(), "refused", 0, 10)
	if err != nil || len(events) != 2 || events[0].Rule != "live certificates" {
		t.Errorf("events %+v, %v", events, err)
	}
	c.Check(t)
}

// A large limit is not counted each time, and holds all the same.
func TestLargeMaxLive(t *testing.T) {
	t.Parallel()
	p := profiles()
	p["many"] = policy.Profile{Names: []string{"many"}, MaxLive: 1500}
	c := catest.Start(t, catest.Options{Profiles: p})
	enrol(t, c, "many", "many")
	enrol(t, c, "many", "many")
	damage.Certificates(t, c.Dir, damage.Issued{Service: "many", Issuer: hexID(issuingCertificate(t, c)), First: 1_000_001, Count: 1498})
	c.Authority.ForgetLive() // as after ten seconds
	status, body := newClient(t, c, nil).do("POST", "/sign", signRequest(t, c.Token(t, "many"), newKey(t), "many", "many"))
	if status != http.StatusForbidden || !strings.Contains(message(t, body), "max_live") {
		t.Errorf("%d %s", status, body)
	}
}

// handlerRequest returns a request as the listener would pass it on.
func handlerRequest(ctx context.Context, b *testing.B, address string, body any) *http.Request {
	b.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/1.0/sign", bytes.NewReader(data))
	r.RemoteAddr, r.TLS = address, &tls.ConnectionState{}
	return r
}

// BenchmarkSign and the benchmarks after it compare the cost of a valid request with
// that of a refused one, without TLS.
func BenchmarkSign(b *testing.B) {
	c := catest.Start(b, catest.Options{Profiles: profiles(), Edit: limitsOf("{per_address: {per_second: 0}}")})
	h, key := c.Authority.Handler(), newKey(b)
	reqs := make([]*http.Request, b.N)
	for i := range reqs {
		reqs[i] = handlerRequest(b.Context(), b, "127.0.0.1:1", signRequest(b, c.Token(b, "storage", "storage"), key, "storage", "storage"))
	}
	serveAll(b, h, reqs, http.StatusCreated)
}

func BenchmarkBadSignature(b *testing.B) {
	benchmarkRefused(b, "{per_address: {per_second: 0}}", http.StatusUnauthorized)
}

func BenchmarkLimited(b *testing.B) {
	benchmarkRefused(b, "{per_address: {per_second: 0.001, burst: 1}}", http.StatusTooManyRequests)
}

func benchmarkRefused(b *testing.B, limits string, want int) {
	c := catest.Start(b, catest.Options{Profiles: profiles(), Edit: limitsOf(limits)})
	h, bad := c.Authority.Handler(), forged(b, c)
	h.ServeHTTP(httptest.NewRecorder(), handlerRequest(b.Context(), b, "127.0.0.2:1", bad))
	reqs := make([]*http.Request, b.N)
	for i := range reqs {
		reqs[i] = handlerRequest(b.Context(), b, "127.0.0.2:1", bad)
	}
	serveAll(b, h, reqs, want)
}

func serveAll(b *testing.B, h http.Handler, reqs []*http.Request, want int) {
	b.Helper()
	b.ResetTimer()
	before := cpuTime(b)
	for _, r := range reqs {
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != want {
			b.Fatalf("%d %s, want %d", w.Code, w.Body, want)
		}
	}
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(len(reqs)), "cpu-µs/op")
}

// cpuTime returns the processor time of this process: on a busy machine the wall clock
// says little.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
