package serving

import (
	"context"
	"net"
	"net/http"
	"time"

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

// requestTimeout bounds the reading of one request, which has no body, and answerTimeout a request
// with its answer.
const (
	requestTimeout = 30 * time.Second
	answerTimeout  = 40 * time.Second
)

// MetricsName is the flag for the address of the metrics.
const MetricsName = "metrics"

// MetricsFlag returns that flag; note ends its explanation.
func MetricsFlag(note string) cli.Flag {
	return &cli.StringFlag{Name: MetricsName, Usage: "`HOST:PORT` for /metrics, /livez and /readyz in cleartext" + note}
}

// Metrics answers /metrics, /livez and /readyz, and the names that ArtStore has
// for the last two, in cleartext and without asking who calls: the address is
// meant to be one of loopback.
type Metrics struct {
	Address  string // HOST:PORT; "" means nowhere
	Registry *prometheus.Registry
	Ready    func(context.Context) error // the reason why the service is not ready, or nil
}

// NewRegistry returns a registry with the figures of the process and of Go.
func NewRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// Start serves in group until ctx ends; without an address it does nothing. It listens before it
// returns, so that a busy port stops a service before the service announces itself.
func (m Metrics) Start(ctx context.Context, c *cli.Context, group *errgroup.Group) error {
	if m.Address == "" {
		return nil
	}
	ln, err := Listen(c, MetricsName, m.Address)
	if err != nil {
		return err
	}
	group.Go(func() error { return m.Serve(ctx, ln) })
	return nil
}

// IdentityMetrics returns the server for the metrics of a service with an identity. The metrics of
// the identity have the name of the command as their label.
func IdentityMetrics(c *cli.Context, id *rotation.Identity, ready func(context.Context) error) Metrics {
	registry := NewRegistry()
	registry.MustRegister(prom.NewCollector(map[string]*rotation.Identity{c.Command.Name: id}))
	return Metrics{Address: c.String(MetricsName), Registry: registry, Ready: ready}
}

// Serve answers on ln until ctx ends, whatever Address is. Readiness is asked for at each request, and its reason is
// the body of a 503.
func (m Metrics) Serve(ctx context.Context, ln net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{}))
	for _, path := range []string{"GET /livez", "GET /health/live"} { // Kubernetes' names, and ArtStore's
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	}
	for _, path := range []string{"GET /readyz", "GET /health/ready"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if err := m.Ready(r.Context()); err != nil {
				http.Error(w, printable.Clean(err.Error()), http.StatusServiceUnavailable)
				return
			}
			_, _ = w.Write([]byte("ok\n"))
		})
	}
	return httpserver.Serve(ctx, ln, httpserver.Config{Handler: mux, BodyTimeout: requestTimeout, WriteTimeout: answerTimeout})
}

// ClientMetrics returns the server for the metrics of a client. The metrics of its identity, if it
// is not nil, have name as their label. The caller sets Ready before it starts the server.
func ClientMetrics(c *cli.Context, name string, id *rotation.Identity) Metrics {
	served := Metrics{Address: c.String(MetricsName), Registry: NewRegistry()}
	if id != nil {
		served.Registry.MustRegister(prom.NewCollector(map[string]*rotation.Identity{name: id}))
	}
	return served
}
