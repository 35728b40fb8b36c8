package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	workers     = 8
	interval    = 100 * time.Millisecond // between one rotation in effect and the next
	settling    = 500 * time.Millisecond // for connections that are being closed
	firstSerial = 1000
)

// rotationScenario is what every strategy goes through.
type rotationScenario struct {
	ca        *authority
	dir       string
	http2     bool
	rotations int
}

// loadRun is the load on one strategy. Serials count up from firstSerial, so that
// comparing them says which identity is older.
type loadRun struct {
	url       string
	client    *http.Client
	published atomic.Int64 // serial in effect
	stop      chan struct{}
	rotate    func(ctx context.Context, n int) error // returns when it is in effect

	requests, failed, stale atomic.Int64 // half of the requests cannot be repeated by net/http on its own
	firstError              atomic.Pointer[error]
}

// outcome is one line of the table.
type outcome struct {
	requests, failed, stale int64
	stream                  error // why the long stream broke
	left, old               int   // connections at the end
	reason                  error // first failure
}

func load(ctx context.Context, w io.Writer, dir string, o options) error {
	ca, err := newAuthority("load")
	if err != nil {
		return err
	}
	for _, http2 := range []bool{true, false} {
		var reasons []string
		t := newTable(w)
		t.line("\nRotation under load, %s: %d workers and a long stream, %d rotations", protocol(http2), workers, o.rotations)
		t.line("client\torigin\trequests\tfailed\ton the old identity\tlong stream\tconnections left (old)\tidle timeout")
		for i, s := range strategies() {
			if http2 && s.onlyHTTP1 {
				t.line("%s\t%s\tHTTP/1.1 only\t\t\t\t\t", s.name, s.origin)
				continue
			}
			at := filepath.Join(dir, fmt.Sprintf("load-%d-%t", i, http2))
			out, err := s.runScenario(ctx, rotationScenario{ca, at, http2, o.rotations})
			if err != nil {
				return fmt.Errorf("driving %s: %w", s.name, err)
			}
			t.line("%s\t%s\t%d\t%d\t%d\t%s\t%d (%d)\t%s", s.name, s.origin, out.requests, out.failed, out.stale,
				map[bool]string{true: "finished", false: "BROKEN"}[out.stream == nil], out.left, out.old, s.idle)
			if out.reason != nil {
				reasons = append(reasons, fmt.Sprintf("first failure of %s: %v", s.name, out.reason))
			}
		}
		for _, r := range reasons {
			t.line("%s", r)
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	return nil
}

func protocol(http2 bool) string {
	if http2 {
		return "HTTP/2"
	}
	return "HTTP/1.1"
}

// runScenario runs one strategy against a server of its own.
func (s strategy) runScenario(ctx context.Context, o rotationScenario) (outcome, error) {
	server, err := o.ca.issue("server", 1)
	if err != nil {
		return outcome{}, err
	}
	client, err := o.ca.issue("client", firstSerial)
	if err != nil {
		return outcome{}, err
	}
	files, err := newFolder(o.dir, client)
	if err != nil {
		return outcome{}, err
	}
	srv, err := newTarget(ctx, server)
	if err != nil {
		return outcome{}, err
	}
	defer srv.shutdown()
	sub, err := s.open(ctx, files, o.http2)
	if err != nil {
		return outcome{}, err
	}
	defer sub.close()
	d := &loadRun{url: "https://" + srv.addr, client: &http.Client{Transport: sub.http, Timeout: 5 * time.Minute}, stop: make(chan struct{})}
	d.published.Store(firstSerial)
	d.rotate = func(ctx context.Context, n int) error {
		next, err := o.ca.issue("client", int64(firstSerial+n))
		if err != nil {
			return err
		}
		if err := files.swap(next); err != nil {
			return err
		}
		return sub.applied(ctx, next.serial())
	}
	return d.run(ctx, srv, o)
}

func (d *loadRun) run(ctx context.Context, srv *target, o rotationScenario) (outcome, error) {
	stream, err := d.send(ctx, http.MethodGet, "/stream", "") //nolint:bodyclose // follow closes it
	if err != nil {
		return outcome{}, err
	}
	if (stream.ProtoMajor == 2) != o.http2 {
		_ = stream.Body.Close() // of no use
		return outcome{}, fmt.Errorf("the stream speaks %s", stream.Proto)
	}
	ended := make(chan error, 1)
	go func() { ended <- follow(stream.Body) }()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() { d.askUntil(ctx) })
	}
	var rotated error
	for n := 1; n <= o.rotations && rotated == nil && pause(ctx, interval); n++ {
		if rotated = d.rotate(ctx, n); rotated == nil {
			d.published.Add(1)
		}
	}
	pause(ctx, interval)
	close(d.stop)
	wg.Wait()
	close(srv.finish)
	out := outcome{stream: <-ended}
	pause(ctx, settling)
	out.requests, out.failed, out.stale = d.requests.Load(), d.failed.Load(), d.stale.Load()
	out.left, out.old = srv.left(strconv.FormatInt(d.published.Load(), 10))
	if e := d.firstError.Load(); e != nil {
		out.reason = *e
	}
	if rotated == nil {
		rotated = ctx.Err()
	}
	return out, rotated
}

func (d *loadRun) send(ctx context.Context, method, path, body string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, d.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	return d.client.Do(req)
}

func (d *loadRun) askUntil(ctx context.Context) {
	for {
		select {
		case <-d.stop:
			return
		case <-ctx.Done():
			return
		default:
		}
		method := http.MethodGet
		if d.requests.Add(1)%2 == 0 {
			method = http.MethodPost
		}
		since := d.published.Load() // before the request starts: later rotations are not its fault
		serial, err := d.ask(ctx, method)
		switch {
		case err != nil:
			d.failed.Add(1)
			d.firstError.CompareAndSwap(nil, &err)
		case serial < since:
			d.stale.Add(1)
		}
	}
}

// ask returns the serial that the server saw.
func (d *loadRun) ask(ctx context.Context, method string) (int64, error) {
	resp, err := d.send(ctx, method, "/work", "")
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close() // read to its end
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(resp.Header.Get(serialName), 10, 64)
}
