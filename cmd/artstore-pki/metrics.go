package main

import (
	"context"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/prom"
)

const flagMetrics = "metrics"

func metricsFlag(note string) cli.Flag {
	return &cli.StringFlag{Name: flagMetrics, Usage: "`HOST:PORT` for /metrics, /livez and /readyz in cleartext" + note}
}

// metricsServer answers /metrics, /livez and /readyz in cleartext; meant for loopback.
type metricsServer struct {
	address  string // "" means nowhere
	registry *prometheus.Registry
	ready    func(context.Context) error
}

func newRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// start listens before it returns, so that a busy port stops a service before
// the service says that it answers.
func (m metricsServer) start(ctx context.Context, c *cli.Context, group *errgroup.Group) error {
	if m.address == "" {
		return nil
	}
	ln, err := listen(c, flagMetrics, m.address)
	if err != nil {
		return err
	}
	group.Go(func() error { return m.serve(ctx, ln) })
	return nil
}

// identityMetrics is the server of a service that has an identity; the figures
// go by the name of the command.
func identityMetrics(c *cli.Context, id *rotation.Identity, ready func(context.Context) error) metricsServer {
	registry := newRegistry()
	registry.MustRegister(prom.NewCollector(map[string]*rotation.Identity{c.Command.Name: id}))
	return metricsServer{address: c.String(flagMetrics), registry: registry, ready: ready}
}

func (m metricsServer) serve(ctx context.Context, ln net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	for _, path := range []string{"GET /livez", "GET /health/live"} { // Kubernetes' names, and ArtStore's
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	}
	for _, path := range []string{"GET /readyz", "GET /health/ready"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if err := m.ready(r.Context()); err != nil {
				http.Error(w, printable.Clean(err.Error()), http.StatusServiceUnavailable)
				return
			}
			_, _ = w.Write([]byte("ok\n"))
		})
	}
	return httpserver.Serve(ctx, ln, httpserver.Config{Handler: mux, BodyTimeout: requestTimeout, WriteTimeout: answerTimeout})
}

// clientMetrics are those of the identity, if there is one, under the name of the command.
func clientMetrics(c *cli.Context, name string, id *rotation.Identity) metricsServer {
	served := metricsServer{address: c.String(flagMetrics), registry: newRegistry()}
	if id != nil {
		served.registry.MustRegister(prom.NewCollector(map[string]*rotation.Identity{name: id}))
	}
	return served
}
