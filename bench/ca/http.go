package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/artstore/artstore-pki/bench/internal/frame"
)

// sign measures POST /sign: a token and a new key for each request.
func (b *bench) sign(ctx context.Context) error {
	return b.compare(ctx, "POST /sign", func(_ context.Context, s *server) (work, error) {
		w := work{url: s.url + "/1.0/sign"}
		for range b.clients {
			w.clients = append(w.clients, s.client(nil, ""))
		}
		for range b.requests {
			_, csr, err := request()
			if err != nil {
				return w, err
			}
			body, err := s.signBody(csr)
			if err != nil {
				return w, err
			}
			w.bodies = append(w.bodies, body)
		}
		return w, nil
	})
}

// renew measures POST /renew over mutual TLS.
func (b *bench) renew(ctx context.Context) error {
	return b.compare(ctx, "POST /renew over mutual TLS", func(ctx context.Context, s *server) (work, error) {
		w := work{url: s.url + "/1.0/renew", bodies: make([][]byte, b.requests), most: renewals}
		var all []*http.Client
		for range b.clients + b.requests/renewals {
			c, err := s.enrolled(ctx)
			if err != nil {
				return work{}, err
			}
			all = append(all, c)
		}
		w.clients, w.spare = all[:b.clients], all[b.clients:]
		return w, nil
	})
}

// compare gives every server the same work in each round, in random order, and
// prints the best of each figure and the median of ratios paired by round.
func (b *bench) compare(ctx context.Context, what string, prepare func(context.Context, *server) (work, error)) (err error) {
	servers, stop, err := b.startAll(ctx)
	if err != nil {
		return err
	}
	defer func() { err = joined(err, stop) }()
	all, err := frame.Rounds(b.order, b.rounds, len(servers), func(i int) (measurement, error) {
		t, err := once(ctx, servers[i], prepare)
		if err != nil {
			err = fmt.Errorf("%s: %w", servers[i].name, err)
		}
		return t, err
	})
	if err != nil {
		return err
	}
	base := len(servers) - 1 // ours, if there is nobody else
	for i, s := range servers {
		if s.name == laneBefore || s.name == laneStepCA+"badgerv2" && b.before == "" {
			base = i
		}
	}
	b.Print("\n%s, %d keep-alive clients, TLS 1.3, HTTP/1.1, durable; %d requests a turn, %d rounds; ratios by %s, paired by round\n", what, b.clients, b.requests, b.rounds, servers[base].name)
	b.Print("  %-36s %8s %8s %10s %8s %10s\n", "", "req/s", "×", "CPU µs", "×", "median ms")
	for i, s := range servers {
		rate, cpu, median := []float64{}, []float64{}, []float64{}
		for _, t := range all[i] {
			rate, cpu, median = append(rate, t.rate()), append(cpu, t.micros()), append(median, t.median*1e3)
		}
		b.Print("  %-36s %8.0f %8.2f %10.0f %8.2f %10.2f\n", s.name, slices.Max(rate), frame.Paired(all[i], all[base], measurement.rate),
			slices.Min(cpu), frame.Paired(all[i], all[base], measurement.micros), slices.Min(median))
	}
	return nil
}

func once(ctx context.Context, s *server, prepare func(context.Context, *server) (work, error)) (measurement, error) {
	w, err := prepare(ctx, s)
	if err != nil {
		return measurement{}, err
	}
	defer func() {
		for _, c := range w.all() {
			c.CloseIdleConnections()
		}
	}()
	// The first request of each connection has a handshake in it; that is not what is measured.
	for _, c := range w.all() {
		if err := greet(ctx, s, c); err != nil {
			return measurement{}, err
		}
	}
	return s.run(ctx, w)
}

func greet(ctx context.Context, s *server, c *http.Client) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/health", nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	return drain(resp)
}
