package ca

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	issued    *prometheus.CounterVec
	refused   *prometheus.CounterVec
	revoked   prometheus.Counter
	strangers prometheus.Counter
	latency   prometheus.Histogram
}

// newMetrics makes the instruments, and registers them if reg is not nil. Labels
// are closed sets (kinds, rules): a caller cannot make series grow.
func newMetrics(reg prometheus.Registerer, a *Authority) (*metrics, error) {
	const ns = "artstore_ca"
	m := &metrics{
		issued: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: ns, Name: "certificates_issued_total", Help: "Certificates issued, by kind: issued, renewed, rekeyed, own."}, []string{"kind"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: ns, Name: "requests_refused_total", Help: "Requests of authenticated callers that a rule refused."}, []string{"rule"}),
		revoked: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: ns, Name: "certificates_revoked_total", Help: "Certificates revoked through this process."}),
		strangers: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: ns, Name: "requests_unauthenticated_total", Help: "Requests that needed a credential and had no good one."}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: ns, Name: "issue_duration_seconds", Help: "Time to issue one certificate, from verified request to commit.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 12)}),
	}
	expiry := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: ns, Name: "issuer_not_after_seconds", Help: "When the issuing certificate expires, as Unix time."},
		func() float64 { return float64(a.state.Load().intermediates[0].NotAfter.Unix()) })
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.issued, m.refused, m.revoked, m.strangers, m.latency, expiry} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return m, nil
}
