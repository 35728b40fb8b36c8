package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// floodEnv makes TestServeUnderFlood use the numbers of the bar; it then takes some
// five minutes. `make soak` sets it.
const floodEnv = "ARTSTORE_FLOOD"

// flooded is a real serve, an attacker at 127.0.0.66 and an honest client at
// 127.0.0.1 that asks all the time.
type flooded struct {
	t       *testing.T
	addr    string
	metrics string
	pid     int
	conf    *tls.Config
	asked   atomic.Int64
	worst   atomic.Int64 // nanoseconds an honest request took
	wg      sync.WaitGroup
}

const (
	honestAddress   = "127.0.0.1"
	attackerAddress = "127.0.0.66"
)

// TestServeUnderFlood holds all connections and requests that one address can hold, while another
// address is served. Its small numbers show the cap; the full ones show times and memory.
func TestServeUnderFlood(t *testing.T) {
	long(t, "it holds hundreds of connections")
	if os.Getenv(floodEnv) == "" {
		t.Parallel()
		f := startFlooded(t)
		f.idle(300)
		f.servedAgain()
		f.report("300 idle connections")
		return
	}
	f := startFlooded(t)
	before := f.quiet()
	f.idle(1100)
	f.report("1 100 idle connections")
	f.stalled(10_000)
	f.report("10 000 stalled streams")
	f.parked(3000)
	f.report("3 000 parked requests")
	t.Logf("resident memory: %d KiB before, %d KiB at the end of the attack", before, f.memory())
	f.servedAgain()
	f.calm(before)
}

func startFlooded(t *testing.T) *flooded {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	w := &killFixture{dir: t.TempDir()}
	w.program = filepath.Join(w.dir, "artstore-pki")
	must(t, os.Symlink(self, w.program))
	w.ok(t, "init", "--plain-keys", "--dir", "ca")
	metrics := freeAddress(t)
	server := w.start(t, "serve", "--dir", "ca", "--listen", "127.0.0.1:0", "--ready-file", "url", "--metrics", metrics)
	ctx, stop := context.WithCancel(t.Context())
	f := &flooded{t: t, addr: strings.TrimPrefix(w.url(t, "url"), "https://"), pid: server.cmd.Process.Pid, metrics: metrics}
	root, err := os.ReadFile(filepath.Join(w.dir, "ca/certs/root_ca.crt"))
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	f.conf = &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: "localhost"}
	f.wg.Go(func() { f.honest(ctx) })
	t.Cleanup(func() {
		stop()
		f.wg.Wait()
	})
	return f
}

// dial does the handshake; proto is "h2" or none.
func (f *flooded) dial(from string, proto ...string) (*tls.Conn, error) {
	conf := f.conf.Clone()
	conf.NextProtos = proto
	d := tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 30 * time.Second}, Config: conf}
	c, err := d.DialContext(f.t.Context(), "tcp", f.addr)
	if err != nil {
		return nil, err
	}
	return c.(*tls.Conn), nil
}

// get asks over a new connection, which is returned open.
func (f *flooded) get(from string) (*tls.Conn, error) {
	c, err := f.dial(from)
	if err != nil {
		return nil, err
	}
	if err = c.SetDeadline(time.Now().Add(30 * time.Second)); err == nil {
		_, err = io.WriteString(c, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(errors.New(resp.Status), c.Close())
	}
	return c, c.SetDeadline(time.Time{})
}

// honest asks all the time, each time over a new connection; no request may fail.
func (f *flooded) honest(ctx context.Context) {
	for ctx.Err() == nil {
		start := time.Now()
		c, err := f.get(honestAddress)
		if err != nil {
			if ctx.Err() == nil {
				f.t.Errorf("the honest client was not served: %v", err)
			}
			return
		}
		_ = c.Close()
		f.asked.Add(1)
		took := int64(time.Since(start))
		for {
			if w := f.worst.Load(); took <= w || f.worst.CompareAndSwap(w, took) {
				break
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (f *flooded) report(phase string) {
	f.t.Helper()
	f.t.Logf("%s: %d honest requests so far, the slowest took %s; resident memory %d KiB",
		phase, f.asked.Load(), time.Duration(f.worst.Load()).Round(time.Millisecond), f.memory())
}

// idle opens n connections with one request each, and then closes them.
func (f *flooded) idle(n int) {
	f.t.Helper()
	var mu sync.Mutex
	var held []*tls.Conn
	f.crowd(n, func() {
		if c, err := f.get(attackerAddress); err == nil {
			mu.Lock()
			held = append(held, c)
			mu.Unlock()
		}
	})
	asked := f.asked.Load()
	for deadline := time.Now().Add(time.Minute); f.asked.Load() < asked+10 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond) // the other client is another goroutine
	}
	if f.asked.Load() < asked+10 {
		f.t.Error("the honest client does not get on while the attacker is at its cap")
	}
	if len(held) < 100 || len(held) > 256 {
		f.t.Errorf("%d of %d connections of one address are open, want up to 256", len(held), n)
	}
	for _, c := range held {
		_ = c.Close()
	}
}

// crowd calls fn n times, 50 at once.
func (f *flooded) crowd(n int, fn func()) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, 50)
	for range n {
		slots <- struct{}{}
		wg.Go(func() { fn(); <-slots })
	}
	wg.Wait()
}

// stream is one request of an HTTP/2 connection.
type stream struct {
	opened, ended time.Time
	how           string
}

// hold opens n streams, 32 on a connection, and returns how they ended; complete
// requests take nothing of their answer, others never send their body.
func (f *flooded) hold(n int, complete bool) []*stream {
	f.t.Helper()
	var mu sync.Mutex
	var all []*stream
	var wg sync.WaitGroup
	left := n
	f.crowd((n+31)/32, func() {
		mu.Lock()
		mine := min(32, left)
		left -= mine
		mu.Unlock()
		c, err := f.dial(attackerAddress, "h2")
		if err != nil { // above the cap
			return
		}
		streams := f.open(c, mine, complete)
		mu.Lock()
		for _, s := range streams {
			all = append(all, s)
		}
		mu.Unlock()
		wg.Go(func() {
			f.watch(c, streams)
			_ = c.Close()
		})
	})
	wg.Wait()
	return all
}

func (f *flooded) open(c *tls.Conn, n int, complete bool) map[uint32]*stream {
	var out bytes.Buffer // all of it in one write
	framer := http2.NewFramer(&out, nil)
	out.WriteString(http2.ClientPreface)
	must(f.t, framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
	streams := make(map[uint32]*stream)
	for i := range n {
		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		method, path := http.MethodGet, "/roots"
		if !complete {
			method, path = http.MethodPost, "/sign"
		}
		for _, kv := range [][2]string{{":method", method}, {":path", path}, {":scheme", "https"}, {":authority", "localhost"}} {
			must(f.t, enc.WriteField(hpack.HeaderField{Name: kv[0], Value: kv[1]}))
		}
		id := uint32(2*i + 1)
		must(f.t, framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: complete}))
		streams[id] = &stream{opened: time.Now()}
	}
	_, _ = c.Write(out.Bytes()) // a connection that was reset shows below
	return streams
}

// watch notes how the streams end; the end of the connection ends all of them.
func (f *flooded) watch(c *tls.Conn, streams map[uint32]*stream) {
	framer := http2.NewFramer(io.Discard, c)
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			for _, s := range streams {
				if s.how == "" {
					s.ended, s.how = time.Now(), "connection closed"
				}
			}
			return
		}
		how := ""
		switch frame := frame.(type) {
		case *http2.RSTStreamFrame:
			how = "reset " + frame.ErrCode.String()
		case *http2.HeadersFrame:
			if frame.StreamEnded() {
				how = "answered"
			}
		}
		if s := streams[frame.Header().StreamID]; s != nil && how != "" && s.how == "" {
			s.ended, s.how = time.Now(), how
		}
	}
}

func (f *flooded) stalled(n int) { f.judge("stalled", f.hold(n, true)) }
func (f *flooded) parked(n int)  { f.judge("parked", f.hold(n, false)) }

func (f *flooded) judge(what string, streams []*stream) {
	f.t.Helper()
	ends, longest := make(map[string]int), time.Duration(0)
	for _, s := range streams {
		ends[s.how]++
		longest = max(longest, s.ended.Sub(s.opened))
	}
	f.t.Logf("%s: %d streams got in, they ended %v, the last after %s", what, len(streams), ends, longest.Round(time.Millisecond))
	if longest > time.Minute || len(streams) == 0 {
		f.t.Errorf("%s streams: %d, the last ended after %s; want a minute at most", what, len(streams), longest)
	}
}

// servedAgain waits until the attacker's address is served.
func (f *flooded) servedAgain() {
	f.t.Helper()
	start := time.Now()
	for {
		c, err := f.get(attackerAddress)
		if err == nil {
			_ = c.Close()
			f.t.Logf("the attacker's address is served again %s after the end", time.Since(start).Round(time.Millisecond))
			return
		}
		if time.Since(start) > time.Minute {
			f.t.Fatalf("the attacker's address is not served a minute after the end: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// quiet returns the memory of the process under the honest load alone. The heap grows to the goal of
// the collector under any load.
func (f *flooded) quiet() (most int) {
	f.t.Helper()
	for range 120 {
		time.Sleep(time.Second)
		most = max(most, f.memory())
	}
	return most
}

// memory is what the process has in RAM, in KiB.
func (f *flooded) memory() int {
	f.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.pid))
	must(f.t, err)
	_, rest, _ := strings.Cut(string(data), "VmRSS:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	must(f.t, err)
	return n
}

// calm waits until memory is back, which takes the runtime some minutes.
func (f *flooded) calm(before int) {
	f.t.Helper()
	start := time.Now()
	for now := f.memory(); ; now = f.memory() {
		if now <= before+before/5 {
			f.t.Logf("resident memory: %d KiB, %.2f of what it was, %s after the end", now, float64(now)/float64(before), time.Since(start).Round(time.Second))
			return
		}
		if time.Since(start) > 10*time.Minute {
			f.t.Fatalf("resident memory: %d KiB, it was %d", now, before)
		}
		time.Sleep(time.Second)
	}
}
