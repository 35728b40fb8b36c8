package ca

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/watch"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

const namespace = "artstore_ca"

type metrics struct {
	issued          *prometheus.CounterVec
	refused         *prometheus.CounterVec
	revoked         prometheus.Counter
	tokens          prometheus.Counter
	unauthenticated prometheus.Counter
	limited         *prometheus.CounterVec
	auditFailures   prometheus.Counter
	latency         prometheus.Histogram
	requests        *prometheus.HistogramVec
	watched         *prometheus.CounterVec
}

// newMetrics makes the metrics, and registers them if reg is not nil. The values of
// labels are closed sets (kinds, rules, routes, services of pki.yaml), so a client cannot
// make the number of series grow.
func newMetrics(reg prometheus.Registerer, a *Authority) (*metrics, error) {
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}
	}
	m := &metrics{
		issued: prometheus.NewCounterVec(counter("certificates_issued_total",
			"Certificates issued, by kind: issued, renewed, rekeyed, own."), []string{"kind"}),
		refused: prometheus.NewCounterVec(counter("requests_refused_total",
			"Requests of authenticated callers that a rule refused."), []string{"rule"}),
		revoked: prometheus.NewCounter(counter("certificates_revoked_total",
			"Certificates revoked through this process.")),
		tokens: prometheus.NewCounter(counter("tokens_made_total",
			"Enrolment tokens made for enrollers.")),
		unauthenticated: prometheus.NewCounter(counter("requests_unauthenticated_total",
			"Requests that needed a credential and had no good one.")),
		limited: prometheus.NewCounterVec(counter("requests_limited_total",
			"Requests refused because too many came before, by what is limited: address, service, enroller."), []string{"by"}),
		auditFailures: prometheus.NewCounter(counter("audit_log_failures_total",
			"Lines that could not be written to the audit log; the record has what they would have told.")),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "issue_duration_seconds", Help: "Time to issue one certificate, from verified request to commit.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 12)}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "request_duration_seconds", Help: "Time to answer a request, by route and first digit of the status; without those that were limited.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8)}, []string{"route", "class"}),
	}
	m.watched = prometheus.NewCounterVec(counter("watch_answers_total",
		"Answers of GET /watch, by reason: trust, lists, renewal, wait (nothing has changed), replaced, full, closed, gone."), []string{"reason"})
	m.beginAtZero()
	if reg == nil {
		return m, nil
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, value)
	}
	for _, c := range []prometheus.Collector{
		m.issued, m.refused, m.revoked, m.tokens, m.unauthenticated, m.limited, m.auditFailures, m.latency, m.requests, m.watched,
		gauge("watchers", "Requests of GET /watch that wait for a change.",
			func() float64 { return float64(a.watchers.Waiting()) }),
		gauge("issuer_not_after_seconds", "When the issuing certificate expires, as Unix time.",
			func() float64 { return float64(a.state.Load().intermediates[0].NotAfter.Unix()) }),
		gauge("earliest_not_after_seconds", "When the first of all current roots and intermediates expires, as Unix time.",
			func() float64 { return float64(earliest(a.state.Load()).Unix()) }),
		gauge("crl_age_seconds", "Age of the oldest revocation list in use; they are made anew at half of their life of 24 h.",
			func() float64 { return a.lists.Age(time.Now()).Seconds() }),
		gauge("revoked_bytes", fmt.Sprintf("Length of the answer of GET /revoked; clients read at most %d.", stepapi.MaxRevoked),
			func() float64 { return float64(a.lists.Size()) }),
		gauge("log_entries", "Entries of the log that the newest signed head covers.",
			func() float64 { return float64(a.logSize()) }),
		gauge("log_failing", "1 while the log cannot be extended; the authority's log says why. Somebody must look.",
			func() float64 { return a.logFailing() }),
		gauge("ready", "1 while certificates can be issued: /readyz says why not.", newReadiness(a)),
		newOutstanding(a),
		newRunway(a),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return m, nil
}

// beginAtZero makes a series for each value of a label that is known. Prometheus sees no increase in a
// counter whose first value is 1, so an alert would miss the first refusal of each rule.
func (m *metrics) beginAtZero() {
	for _, reason := range watch.Reasons() {
		m.watched.WithLabelValues(string(reason))
	}
	for _, rule := range denial.Rules() {
		m.refused.WithLabelValues(string(rule))
	}
	for _, kind := range []string{kinds.Issued, kinds.Renewed, kinds.Rekeyed, kinds.SelfIssued} {
		m.issued.WithLabelValues(kind)
	}
	for _, by := range []string{limitAddress, limitService, limitTokens} {
		m.limited.WithLabelValues(by)
	}
}

// earliest returns when the first of all roots and intermediates expires.
func earliest(st *state) time.Time {
	first := st.roots[0].NotAfter
	for _, list := range [][]*x509.Certificate{st.roots, st.intermediates} {
		for _, c := range list {
			if c.NotAfter.Before(first) {
				first = c.NotAfter
			}
		}
	}
	return first
}

// sampled is a value that costs a query, for metrics: many scrapes share one query.
type sampled[T any] struct {
	every time.Duration // the shortest time between two queries
	query func(context.Context) (T, error)

	mu    sync.Mutex
	at    time.Time
	value T
	err   error
}

// sampleWait bounds the wait for the database.
const sampleWait = 5 * time.Second

// get returns the value of the last query if it is young enough, otherwise that of a new one.
func (s *sampled[T]) get(life context.Context) (T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.IsZero() || time.Since(s.at) >= s.every {
		ctx, cancel := context.WithTimeout(life, sampleWait)
		defer cancel()
		s.value, s.err = s.query(ctx)
		s.at = time.Now()
	}
	return s.value, s.err
}

// newReadiness returns a function that says whether the authority is ready, see [Authority.Ready]. It
// writes to the database, so it asks at most once in five seconds.
func newReadiness(a *Authority) func() float64 {
	ready := &sampled[struct{}]{every: 5 * time.Second, query: func(ctx context.Context) (struct{}, error) {
		return struct{}{}, a.Ready(ctx)
	}}
	return func() float64 {
		if _, err := ready.get(a.life); err != nil {
			return 0
		}
		return 1
	}
}

// outstanding counts live certificates by service when the metrics are read, once a minute
// at most: with a million certificates the query takes about a second.
type outstanding struct {
	a      *Authority
	desc   *prometheus.Desc
	counts *sampled[map[string]int]
}

// otherServices are those that pki.yaml does not name any more.
const otherServices = "other"

func newOutstanding(a *Authority) *outstanding {
	return &outstanding{
		a: a,
		desc: prometheus.NewDesc(namespace+"_certificates_outstanding",
			"Certificates that have not expired, by service of pki.yaml; revoked ones count until they expire.", []string{"service"}, nil),
		counts: &sampled[map[string]int]{every: time.Minute, query: func(ctx context.Context) (map[string]int, error) {
			return a.record.LiveByService(ctx, time.Now())
		}},
	}
}

func (o *outstanding) Describe(ch chan<- *prometheus.Desc) { ch <- o.desc }

func (o *outstanding) Collect(ch chan<- prometheus.Metric) {
	counts, err := o.counts.get(o.a.life)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(o.desc, err)
		return
	}
	known := o.a.state.Load().rules.Services
	sums := map[string]int{policy.AuthorityService: 0}
	for service := range known {
		sums[service] = 0
	}
	for service, n := range counts {
		if _, ok := sums[service]; !ok {
			service = otherServices
		}
		sums[service] += n
	}
	for service, n := range sums {
		ch <- prometheus.MustNewConstMetric(o.desc, prometheus.GaugeValue, float64(n), service)
	}
}

// runway shows how long each root and intermediate still lives, at which stage each root is, and how
// many services would refuse certificates under it.
type runway struct {
	a                                                       *Authority
	begins, ends, since, without, trusting, holders, silent *prometheus.Desc
	status                                                  *sampled[TrustStatus]
}

func newRunway(a *Authority) *runway {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(namespace+"_"+name, help, labels, nil)
	}
	return &runway{
		a:        a,
		begins:   desc("issuer_not_before_timestamp_seconds", "Start of a root or an intermediate.", "role", "subject", "fingerprint"),
		ends:     desc("issuer_not_after_timestamp_seconds", "End of a root or an intermediate.", "role", "subject", "fingerprint"),
		since:    desc("root_stage_timestamp_seconds", "Since when a root is at its stage: staged, active, old.", "fingerprint", "stage"),
		without:  desc("root_services_without", "Services that hold a certificate and have not reported the root as trusted.", "fingerprint", "stage"),
		trusting: desc("root_services_trusting", "Services that hold a certificate and have reported the root as trusted.", "fingerprint", "stage"),
		holders:  desc("holders", "Services that hold a certificate, by lineage."),
		silent:   desc("holders_unreported", "Those of them that have not reported any trust bundle."),
		status:   &sampled[TrustStatus]{every: 5 * time.Second, query: a.TrustStatus},
	}
}

func (w *runway) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{w.begins, w.ends, w.since, w.without, w.trusting, w.holders, w.silent} {
		ch <- d
	}
}

func (w *runway) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	st := w.a.state.Load()
	for role, list := range map[string][]*x509.Certificate{"root": st.roots, "intermediate": st.intermediates} {
		for _, c := range list {
			subject, fp := printable.Line(c.Subject.CommonName, 128), certs.Fingerprint(c)
			gauge(w.begins, float64(c.NotBefore.Unix()), role, subject, fp)
			gauge(w.ends, float64(c.NotAfter.Unix()), role, subject, fp)
		}
	}
	status, err := w.status.get(w.a.life)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(w.without, err)
		return
	}
	for _, r := range status.Roots {
		if !r.Since.IsZero() {
			gauge(w.since, float64(r.Since.Unix()), r.Fingerprint, r.Stage)
		}
		gauge(w.without, float64(len(r.Without)), r.Fingerprint, r.Stage)
		gauge(w.trusting, float64(r.Trusting), r.Fingerprint, r.Stage)
	}
	gauge(w.holders, float64(status.Holders))
	gauge(w.silent, float64(status.Unreported))
}

// measure records how long a request took, by the pattern of its route. limitAndRecover
// runs before it, so refused requests are not measured: many fast refusals would hide
// that the other requests are slow.
func (a *Authority) measure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, seen := time.Now(), &statusRecorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(seen, r)
		route := "other"
		if rc := chi.RouteContext(r.Context()); rc != nil && seen.status != http.StatusNotFound {
			if pattern := strings.TrimPrefix(rc.RoutePattern(), stepapi.Prefix); pattern != "" {
				route = pattern
			}
		}
		a.metrics.requests.WithLabelValues(route, strconv.Itoa(seen.status/100)).Observe(time.Since(start).Seconds())
	})
}

// statusRecorder remembers the status of an answer, 200 if the handler sets none.
type statusRecorder struct {
	http.ResponseWriter
	status int
	sent   bool
}

// Unwrap lets an http.ResponseController reach the deadlines of the connection.
func (s *statusRecorder) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *statusRecorder) WriteHeader(status int) {
	if !s.sent {
		s.status, s.sent = status, true
	}
	s.ResponseWriter.WriteHeader(status)
}

func (s *statusRecorder) Write(b []byte) (int, error) {
	s.sent = true
	return s.ResponseWriter.Write(b)
}
