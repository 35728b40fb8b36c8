package devstack

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// version is what the real services report in their health answers.
const version = "dev"

// wait returns false if ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// answerTime bounds the time in which a client sends a small body and reads a small answer.
// A server with uploads cannot have one deadline for all requests, so handlers set theirs.
const answerTime = 30 * time.Second

// answerBy sets the write deadline. Without it, a client that grants no flow-control window
// (RFC 9113 §6.9) would keep its stream for ever.
func answerBy(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime)) // fails for the recorder of a test only
}

// writeJSON answers with v. The status is sent first, so an error cannot be answered any more.
func writeJSON(w http.ResponseWriter, status int, v any) {
	answerBy(w)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that left needs no answer
}

// peerThumbprint returns the x5t#S256 (RFC 8705 §3.1) of the caller's certificate, and whether
// there is one that was verified: in this connection, or by the proxy of [BehindProxy].
func peerThumbprint(r *http.Request) (string, bool) {
	if behind, ok := r.Context().Value(thumbprintKey{}).(string); ok {
		return behind, true
	}
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return "", false
	}
	sum := sha256.Sum256(r.TLS.PeerCertificates[0].Raw)
	return base64URL(sum[:]), true
}

// dated sets the Date of answers by a clock that is ahead by the given time, so that tests
// see what clients do about a wrong clock.
func dated(ahead time.Duration) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		if ahead == 0 { // net/http sets it
			return next
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
			next.ServeHTTP(w, r)
		})
	}
}

// adminMetrics are the metrics of an Admin Module, in a registry of their own.
type adminMetrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	latency  prometheus.Histogram
}

func newAdminMetrics() *adminMetrics {
	m := &adminMetrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "artstore_admin_token_requests_total", Help: "Token requests by dialect and result.",
		}, []string{"dialect", "result"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "artstore_admin_token_request_seconds", Help: "Time to answer a token request; the secret's hash is most of it.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
	}
	m.registry.MustRegister(m.requests, m.latency)
	return m
}

// token counts one token request, and observes how long it took since start.
func (m *adminMetrics) token(dialect, result string, start time.Time) {
	m.requests.WithLabelValues(dialect, result).Inc()
	m.latency.Observe(time.Since(start).Seconds())
}

func (m *adminMetrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// storageMetrics are the metrics of a Storage Element, in a registry of their own.
type storageMetrics struct {
	registry    *prometheus.Registry
	validations *prometheus.CounterVec
	latency     prometheus.Histogram
	requests    *prometheus.CounterVec
}

// newStorageMetrics takes functions for the gauges, so that no second copy of a number can
// disagree with the first.
func newStorageMetrics(used, files func() float64) *storageMetrics {
	m := &storageMetrics{
		registry: prometheus.NewRegistry(),
		validations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "artstore_storage_token_validations_total",
			Help: "Token validations by where the verdict came from (cache: hit or miss) and by result.",
		}, []string{"cache", "result"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "artstore_storage_token_validation_seconds", Help: "Time to judge a token.",
			Buckets: prometheus.ExponentialBuckets(1e-6, 4, 12),
		}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "artstore_storage_uploads_total", Help: "Uploads by status of the answer.",
		}, []string{"status"}),
	}
	m.registry.MustRegister(m.validations, m.latency, m.requests,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "artstore_storage_used_bytes", Help: "Bytes of stored content."}, used),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "artstore_storage_files", Help: "Stored files."}, files))
	return m
}

// validated counts one verification of a token, and observes how long it took since start.
func (m *storageMetrics) validated(cache, result string, start time.Time) {
	m.validations.WithLabelValues(cache, result).Inc()
	m.latency.Observe(time.Since(start).Seconds())
}

func (m *storageMetrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
