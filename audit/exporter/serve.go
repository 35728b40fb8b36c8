package exporter

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/report"
	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/internal/printable"
)

const (
	// waitFor bounds the wait for the answer to another client: each takes memory.
	waitFor = 10 * time.Second
	// takeWithin bounds the time in which a client takes 64 KiB of an answer.
	takeWithin = 30 * time.Second
)

// limiter lets one at a time through.
type limiter chan struct{}

// newLimiter returns one that nobody has entered.
func newLimiter() limiter { return make(limiter, 1) }

// enter waits for the turn, and returns false if it does not come.
func (l limiter) enter(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, waitFor)
	defer cancel()
	select {
	case l <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// leave lets the next one through.
func (l limiter) leave() { <-l }

// Handler answers /metrics, /, /report.json and /healthz. It has no other path and no method but
// GET and HEAD.
func (e *Exporter) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", e.answer(e.scrapes, string(expfmt.NewFormat(expfmt.TypeTextPlain)), e.metrics))
	mux.HandleFunc("GET /{$}", e.answer(e.pages, "text/html; charset=utf-8", e.rendered("html")))
	mux.HandleFunc("GET /report.json", e.answer(e.reports, "application/json", e.rendered("json")))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		harden(w)
		if err := e.Ready(r.Context()); err != nil {
			http.Error(w, printable.Clean(err.Error()), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n")) // the client may be gone
	})
	return mux
}

// harden tells browsers to do nothing with an answer but to show it. The page itself has a
// stricter policy.
func harden(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Security-Policy", "frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
}

// answer returns the handler of one path. A client that takes nothing for a while is cut off.
func (e *Exporter) answer(turn limiter, kind string, write func(context.Context, http.ResponseWriter) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		harden(w)
		if !turn.enter(r.Context()) {
			w.Header().Set("Retry-After", "10")
			http.Error(w, "others are being answered", http.StatusServiceUnavailable)
			return
		}
		defer turn.leave()
		w.Header().Set("Content-Type", kind)
		if r.Method == http.MethodHead {
			return
		}
		if err := write(r.Context(), httpserver.Paced(w, takeWithin)); err != nil {
			e.log.DebugContext(r.Context(), "an answer was not written to its end", slog.String("path", r.URL.Path), slog.Any("err", err))
			panic(http.ErrAbortHandler) // so that the client does not take a part for the whole
		}
	}
}

// rendered writes a report in a format of package report.
func (e *Exporter) rendered(format string) func(context.Context, http.ResponseWriter) error {
	return func(ctx context.Context, w http.ResponseWriter) error {
		out, err := report.New(format, w, report.Terminal{Program: e.opts.Program})
		if err != nil {
			return err
		}
		return e.current.Load().report(ctx, out)
	}
}

// metrics writes the metrics of the process and of the exporter, and then those of the audit. It is
// one text, because the latter are too many to be collected first.
func (e *Exporter) metrics(ctx context.Context, w http.ResponseWriter) error {
	gatherers := prometheus.Gatherers{e.own}
	if e.opts.Registry != nil {
		gatherers = append(gatherers, e.opts.Registry)
	}
	families, err := gatherers.Gather()
	if err != nil { // the families that could be gathered are there all the same
		e.log.WarnContext(ctx, "some metrics of the process are missing", slog.Any("err", err))
	}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(w, f); err != nil {
			return err
		}
	}
	s := e.current.Load()
	round := e.since.begin(time.Now())
	out := report.Metrics{Out: w, MaxSeries: s.cfg.maxSeries, Since: func(r *audit.Row, f *audit.Finding) time.Time { return e.since.of(round, r, f) }}
	if err := s.report(ctx, out.Renderer()); err != nil {
		return err
	}
	e.since.end(round)
	return nil
}
