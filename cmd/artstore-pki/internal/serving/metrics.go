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

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
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

// scrapesAtOnce bounds the answers of /metrics that are made at the same time.
const scrapesAtOnce = 8

// Names of the flags of [MetricsFlags].
const (
	MetricsName      = "metrics"
	metricsTLSName   = "metrics-tls"
	metricsPeersName = "metrics-peers"
)

// MetricsFlags returns the flags for the addresses of the metrics; note ends the explanation of the first.
func MetricsFlags(note string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: MetricsName, Usage: "`HOST:PORT` for /metrics, /livez and /readyz in cleartext" + note},
		&cli.StringFlag{Name: metricsTLSName, Usage: "`HOST:PORT` for /metrics over mutual TLS with the certificate of this service; needs --" + metricsPeersName},
		&cli.StringSliceFlag{Name: metricsPeersName, Usage: "`NAME`s whose certificates may read --" + metricsTLSName + ", such as prometheus"},
	}
}

// Metrics answers /metrics, /livez and /readyz, and the names that ArtStore has
// for the last two, in cleartext and without asking who calls: the address is
// meant to be one of loopback. Over mutual TLS it answers /metrics to named peers.
type Metrics struct {
	Address  string // HOST:PORT; "" means nowhere
	Registry *prometheus.Registry
	Ready    func(context.Context) error // the reason why the service is not ready, or nil
	Identity *rotation.Identity          // for --metrics-tls; nil if the service has none
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
	if err := m.startTLS(ctx, c, group); err != nil || m.Address == "" {
		return err
	}
	ln, err := Listen(c, MetricsName, m.Address)
	if err != nil {
		return err
	}
	group.Go(func() error { return m.Serve(ctx, ln) })
	return nil
}

// startTLS serves /metrics to the peers of --metrics-peers. Their trust bundle, and this side's
// certificate, are those of the identity, and rotate with it.
func (m Metrics) startTLS(ctx context.Context, c *cli.Context, group *errgroup.Group) error {
	address, peers := c.String(metricsTLSName), c.StringSlice(metricsPeersName)
	switch {
	case address == "" && len(peers) == 0:
		return nil
	case address == "" || len(peers) == 0:
		return ui.UsageErrorf("--%s and --%s belong together", metricsTLSName, metricsPeersName)
	case m.Identity == nil:
		return ui.UsageErrorf("--%s needs a certificate, and this command was given none", metricsTLSName)
	}
	server, err := m.Identity.Server(rotation.ServerOptions{Authorize: rotation.AllowNames(peers...)})
	if err != nil {
		return err
	}
	ln, err := Listen(c, metricsTLSName, address)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.scraped())
	group.Go(func() error {
		return httpserver.Serve(ctx, ln, httpserver.Config{Handler: mux, Server: server, BodyTimeout: requestTimeout, WriteTimeout: answerTimeout})
	})
	return nil
}

// scraped answers with the metrics. A figure that cannot be had, such as one from a database that is
// away, does not hide the others; promhttp_metric_handler_errors_total counts it.
func (m Metrics) scraped() http.Handler {
	return promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, Registry: m.Registry, MaxRequestsInFlight: scrapesAtOnce,
	})
}

// IdentityMetrics returns the server for the metrics of a service with an identity. The metrics of
// the identity have the name of the command as their label.
func IdentityMetrics(c *cli.Context, id *rotation.Identity, ready func(context.Context) error) Metrics {
	registry := NewRegistry()
	registry.MustRegister(prom.NewCollector(map[string]*rotation.Identity{c.Command.Name: id}))
	return Metrics{Address: c.String(MetricsName), Registry: registry, Ready: ready, Identity: id}
}

// Serve answers on ln until ctx ends, whatever Address is. Readiness is asked for at each request, and its reason is
// the body of a 503.
func (m Metrics) Serve(ctx context.Context, ln net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.scraped())
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
	served := Metrics{Address: c.String(MetricsName), Registry: NewRegistry(), Identity: id}
	if id != nil {
		served.Registry.MustRegister(prom.NewCollector(map[string]*rotation.Identity{name: id}))
	}
	return served
}
