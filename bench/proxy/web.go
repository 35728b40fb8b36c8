package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"

	"github.com/artstore/artstore-pki/bench/internal/frame"
)

// workers is how many requests are under way at a time where many are sent.
const workers = 16

// startWeb starts the service of HTTP and returns its address. GET /N answers with N bytes, and
// POST reads its body; what an ingester and its Storage Element do is not more.
func (r *rig) startWeb() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // of loopback
	if err != nil {
		return "", err
	}
	r.web = &http.Server{ReadHeaderTimeout: startWait, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPost {
			_, _ = io.Copy(io.Discard, req.Body) // an error is one of the client too
			return
		}
		n, err := strconv.ParseInt(req.URL.Path[1:], 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", req.URL.Path[1:])
		_, _ = io.CopyN(w, zeros{}, n)
	})}
	go func() { _ = r.web.Serve(ln) }() // until it is closed
	return ln.Addr().String(), nil
}

// webClient returns a client of HTTP/1.1 or HTTP/2 that keeps its connections.
func (r *rig) webClient(http2 bool) *http.Client {
	conf := r.client.Clone()
	var protocols http.Protocols
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: conf, Protocols: &protocols, MaxIdleConnsPerHost: workers, DisableCompression: true}}
}

// ask sends one request, and reads the whole answer, which must be 200.
func ask(ctx context.Context, c *http.Client, l lane, method, path string, body io.Reader, size int64) error {
	req, err := http.NewRequestWithContext(ctx, method, "https://"+l.addr+path, body)
	if err != nil {
		return err
	}
	req.ContentLength = size
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

func (r *rig) uploads(ctx context.Context, size int64) func(lane) error {
	return func(l lane) error {
		c := r.webClient(false)
		defer c.CloseIdleConnections()
		return ask(ctx, c, l, http.MethodPost, "/", io.LimitReader(zeros{}, size), size)
	}
}

func (r *rig) downloads(ctx context.Context, size int64) func(lane) error {
	return func(l lane) error {
		c := r.webClient(false)
		defer c.CloseIdleConnections()
		return ask(ctx, c, l, http.MethodGet, "/"+strconv.FormatInt(size, 10), nil, 0)
	}
}

// firstRequests makes a connection with a full handshake for each request.
func (r *rig) firstRequests(ctx context.Context) func(lane) error {
	return func(l lane) error {
		c := r.webClient(false)
		defer c.CloseIdleConnections()
		return ask(ctx, c, l, http.MethodGet, "/1", nil, 0)
	}
}

// manyRequests prints how many requests for 1 KiB a proxy passes on.
func (r *rig) manyRequests(ctx context.Context, p *frame.Printer, http2 bool) error {
	all, err := r.rounds(r.http, func(l lane) error {
		c := r.webClient(http2)
		defer c.CloseIdleConnections()
		_, err := frame.Together(r.o.requests, workers, func() error { return ask(ctx, c, l, http.MethodGet, "/1024", nil, 0) })
		return err
	})
	if err != nil {
		return err
	}
	name := map[bool]string{false: "HTTP/1.1", true: "HTTP/2"}[http2]
	p.Print("\n%d requests over %s, %d at a time, with answers of 1 KiB: by the clock, and by the processor of the proxy\n", r.o.requests, name, workers)
	table(p, r.http, all, "", float64(r.o.requests))
	return nil
}
