package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/artstore/artstore-pki/bench/internal/frame"
	"github.com/artstore/artstore-pki/rotation"
)

// requestsPerTurn are sent over one open connection, many enough for the clock.
const requestsPerTurn = 50

// requestLane is one server and an open connection to it.
type requestLane struct {
	name   string
	client *http.Client
	url    string
	alone  func() error // what is asked for each request, nil: nothing
	close  func()
}

// requests measures what it costs that Authorize is asked for each request: the
// same server, listener and answer, with Server.Handler and without it.
func requests(ctx context.Context, w io.Writer, dir string, o options) error {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(o.procs))
	r, err := newRig(dir + "/requests")
	if err != nil {
		return err
	}
	for _, http2 := range []bool{false, true} {
		if err := (requestBench{r, o, http2}).table(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// requestBench is what the rows of one table share.
type requestBench struct {
	rig   *rig
	opts  options
	http2 bool
}

func (b requestBench) table(ctx context.Context, w io.Writer) error {
	many := []string{"client"}
	for i := range 1000 {
		many = append(many, fmt.Sprintf("client-%d", i))
	}
	var lanes []*requestLane
	defer func() {
		for _, l := range lanes {
			l.close()
		}
	}()
	for _, v := range []struct {
		name  string
		asks  bool
		peers []string
	}{
		{"without Handler", false, many[:1]},
		{controlName, false, many[:1]},
		{"Handler, AllowNames of 1", true, many[:1]},
		{"Handler, AllowNames of 1001", true, many},
	} {
		l, err := b.lane(ctx, rotation.AllowNames(v.peers...), v.asks)
		if err != nil {
			return err
		}
		l.name = v.name
		lanes = append(lanes, l)
	}
	samples, err := frame.Rounds(frame.Order(b.opts.seed), b.opts.rounds, len(lanes), func(lane int) (float64, error) { return lanes[lane].turn(ctx) })
	if err != nil {
		return err
	}
	t := newTable(w)
	t.line("\nRequests over one connection, HTTP/2 %t: %d rounds of %d, both ends together", b.http2, b.opts.rounds, requestsPerTurn)
	t.line("server\tµs CPU\tratio\tquartiles\t95 %% of the median\tns of the question alone")
	for i, l := range lanes {
		s, alone := summarise(ratios(samples[i], samples[0]), frame.Order(b.opts.seed)), ""
		if l.alone != nil {
			alone = fmt.Sprintf("%.0f", perCall(l.alone, 9))
		}
		t.line("%s\t%.1f\t%.3f\t%.2f %.2f\t%.3f %.3f\t%s", l.name, median(samples[i]), s.median, s.q1, s.q3, s.low, s.high, alone)
	}
	return t.flush()
}

func (b requestBench) lane(ctx context.Context, authorize rotation.Authorizer, asks bool) (_ *requestLane, err error) {
	id, err := rotation.Open(ctx, rotation.Config{
		Source: rotation.Static(rotation.Material{Certificate: b.rig.server.cert, Roots: b.rig.server.roots}), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	server, err := id.Server(rotation.ServerOptions{Authorize: authorize})
	if err != nil {
		return nil, errors.Join(err, id.Close())
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, id.Close())
	}
	l := &requestLane{url: "https://" + ln.Addr().String()}
	var state tls.ConnectionState
	handler := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if l.alone == nil && asks {
			state = *r.TLS
			l.alone = func() error { return server.Authorize(state) }
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	if asks {
		handler = server.Handler(handler)
	}
	srv := &http.Server{Handler: handler, ConnContext: server.ConnContext, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go func() { _ = srv.Serve(server.Listener(ln)) }() // returns when closed
	transport := &http.Transport{TLSClientConfig: b.rig.clientConfig(nil), ForceAttemptHTTP2: b.http2, MaxConnsPerHost: 1}
	l.client = &http.Client{Transport: transport}
	l.close = func() {
		transport.CloseIdleConnections()
		_, _ = srv.Close(), id.Close() // nothing is under way
	}
	if err := l.ask(ctx); err != nil { // connects, and warms the code
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *requestLane) ask(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url, nil)
	if err != nil {
		return err
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // it is empty
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("asking %s: status %d", l.name, resp.StatusCode)
	}
	return nil
}

// turn returns µs of CPU for one request.
func (l *requestLane) turn(ctx context.Context) (float64, error) {
	runtime.GC()
	began := frame.OwnCPU()
	for range requestsPerTurn {
		if err := l.ask(ctx); err != nil {
			return 0, err
		}
	}
	return float64((frame.OwnCPU() - began).Nanoseconds()) / 1e3 / requestsPerTurn, nil
}
