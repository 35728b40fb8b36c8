package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"github.com/artstore/artstore-pki/ca/dashboard"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/prom"
)

// pages is what a person can open in a browser while the demo runs.
type pages struct{ name, url string }

// startDashboard serves the dashboard of the authority. It is for this machine, so it answers in cleartext.
func (w *stack) startDashboard(start, run context.Context) error {
	d, err := dashboard.Open(start, dashboard.Options{Dir: filepath.Join(w.opt.Dir, "ca"), Program: "artstore-pki demo", Logger: w.logger("dashboard")})
	if err != nil {
		return err
	}
	ln, err := w.show(start, "dashboard", "/")
	if err != nil {
		return errors.Join(err, d.Close())
	}
	w.running.Go(func() error {
		return errors.Join(httpserver.Serve(run, ln, httpserver.Config{Handler: d.Handler(), Logger: w.logger("dashboard")}), d.Close())
	})
	return nil
}

// startMetrics serves the metrics of all services, of the authority and of the ingester together.
func (w *stack) startMetrics(start, run context.Context) error {
	identities := map[string]*rotation.Identity{}
	for _, s := range w.services {
		identities[s.name] = s.identity
	}
	w.registry.MustRegister(prom.NewCollector(identities))
	ln, err := w.show(start, "metrics", "/metrics")
	if err != nil {
		return err
	}
	metrics := serving.Metrics{Registry: w.registry, Ready: w.authority.Ready}
	w.running.Go(func() error { return metrics.Serve(run, ln) })
	return nil
}

// show opens a listener on loopback for pages, and keeps their URL.
func (w *stack) show(ctx context.Context, name, path string) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", serving.Loopback)
	if err != nil {
		return nil, fmt.Errorf("listening for the %s: %w", name, err)
	}
	w.pages = append(w.pages, pages{name, "http://" + ln.Addr().String() + path})
	return ln, nil
}
