package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/exporter"
	"github.com/artstore/artstore-pki/ca/dashboard"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/records"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/internal/durable"
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

// startExporter audits all that the demo has written, its servers and its record, until it ends.
func (w *stack) startExporter(start, run context.Context) error {
	identity := filepath.Join(w.opt.Dir, nameIngester, "identity")
	config := exporterConfig{
		Targets: []string{w.opt.Dir}, TrustBundle: filepath.Join(identity, "ca.crt"), Record: filepath.Join(w.opt.Dir, "ca"),
		Client: map[string]string{"cert": filepath.Join(identity, "tls.crt"), "key": filepath.Join(identity, "tls.key")},
		Every:  map[string]string{"servers": exporterEvery, "record": exporterEvery},
	}
	for _, s := range w.services {
		if s.url != "" {
			config.Targets = append(config.Targets, s.url)
		}
	}
	text, err := yaml.Marshal(config)
	if err != nil {
		return err
	}
	file := filepath.Join(w.opt.Dir, "exporter.yaml")
	if err := durable.WriteFile(file, text, durable.Private); err != nil {
		return err
	}
	e, err := exporter.New(exporter.Options{
		ConfigFile: file, Registry: serving.NewRegistry(), Program: "artstore-pki demo", Logger: w.logger("exporter"),
		Record: func(ctx context.Context, cfg *exporter.Config) (audit.Record, func(), error) {
			return records.Local(ctx, cfg.Record, flags.Dir, time.Now())
		},
	})
	if err != nil {
		return err
	}
	ln, err := w.show(start, "exporter", "/")
	if err != nil {
		return err
	}
	w.running.Go(func() error {
		return httpserver.Serve(run, ln, httpserver.Config{Handler: e.Handler(), Logger: w.logger("exporter")})
	})
	w.running.Go(func() error { return e.Run(run) })
	return nil
}

// exporterEvery is how often the servers and the record are looked at. The certificates of a demo live a minute.
const exporterEvery = "2s"

// exporterConfig is a configuration of the exporter, see docs/exporter.md.
type exporterConfig struct {
	Targets     []string          `yaml:"targets"`
	TrustBundle string            `yaml:"trust_bundle"`
	Record      string            `yaml:"record"`
	Client      map[string]string `yaml:"client"`
	Every       map[string]string `yaml:"every"`
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
