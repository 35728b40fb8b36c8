package uploads

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/artstore/artstore-pki/ingestclient"
)

// Metrics are those of a client. They have the names that ArtStore's own ingester has for them, so that
// dashboards fit both, and those of its labels that mean something here.
type Metrics struct {
	tokens, uploads, errors *prometheus.CounterVec
	bytes, retries          prometheus.Counter
	tokenTook, uploadTook   prometheus.Histogram
}

// NewMetrics returns metrics that registry shows. It panics if registry has them already.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	took := func(name, help string, buckets ...float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	}
	m := &Metrics{
		tokens:     counter("auth_token_requests_total", "Token requests, by outcome.", "status"),
		errors:     counter("auth_errors_total", "Token requests without a token, by cause.", "error_type"),
		uploads:    counter("ingester_upload_total", "Uploads that are over, retries included, by outcome.", "status"),
		bytes:      prometheus.NewCounter(prometheus.CounterOpts{Name: "ingester_upload_bytes_total", Help: "Bytes of content stored."}),
		retries:    prometheus.NewCounter(prometheus.CounterOpts{Name: "ingester_upload_retries_total", Help: "Attempts that were repeated."}),
		tokenTook:  took("auth_token_acquisition_duration_seconds", "How long token requests took.", .1, .25, .5, 1, 2.5, 5, 10, 30),
		uploadTook: took("ingester_upload_duration_seconds", "How long uploads took, all attempts together.", .01, .05, .1, .5, 1, 5, 10, 60, 600, 3600),
	}
	// Prometheus sees no increase in a counter that begins at 1.
	for _, status := range []string{outcome(nil), outcome(errOther)} {
		m.tokens.WithLabelValues(status)
		m.uploads.WithLabelValues(status)
	}
	for _, kind := range errorTypes {
		m.errors.WithLabelValues(kind.name)
	}
	registry.MustRegister(m.tokens, m.errors, m.uploads, m.bytes, m.retries, m.tokenTook, m.uploadTook)
	return m
}

// Observer returns the functions that a client calls with its outcomes, for
// ingestclient.Config.Observer.
func (m *Metrics) Observer() ingestclient.Observer {
	return ingestclient.Observer{
		Token: func(took time.Duration, err error) {
			m.tokens.WithLabelValues(outcome(err)).Inc()
			m.tokenTook.Observe(took.Seconds())
			if err != nil {
				m.errors.WithLabelValues(errorType(err)).Inc()
			}
		},
		Retry: func(int, int64, error) { m.retries.Inc() },
		Upload: func(took time.Duration, size int64, _ int, err error) {
			m.uploads.WithLabelValues(outcome(err)).Inc()
			m.uploadTook.Observe(took.Seconds())
			m.bytes.Add(float64(size))
		},
	}
}

// outcome returns the value of the label "status".
func outcome(err error) string {
	if err != nil {
		return "failure"
	}
	return "success"
}

// errOther is of no kind that errorTypes has.
var errOther = errors.New("other")

// errorTypes are the values of the label "error_type", the last one for every other error.
var errorTypes = []struct {
	is   error
	name string
}{
	{ingestclient.ErrCredentials, "credentials"}, {ingestclient.ErrTLSPeer, "tls"}, {ingestclient.ErrConnection, "connection"},
	{ingestclient.ErrTokenAnswer, "answer"}, {ingestclient.ErrTokenBinding, "binding"}, {ingestclient.ErrTokenEndpoint, "endpoint"},
	{errOther, "other"},
}

// errorType returns the value of the label "error_type". The kind of the error decides and never its
// text, so that there are few values.
func errorType(err error) string {
	for _, kind := range errorTypes {
		if errors.Is(err, kind.is) {
			return kind.name
		}
	}
	return errOther.Error()
}
