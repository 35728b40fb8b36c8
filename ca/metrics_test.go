package ca_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/setup"
)

// metricValue returns the value of a metric, or the count of a histogram, that has a
// label with this value. "" is any value.
func metricValue(t testing.TB, reg *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if label == "" || hasLabel(m, label) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return -1
}

func hasLabel(m *dto.Metric, value string) bool {
	for _, l := range m.GetLabel() {
		if l.GetValue() == value {
			return true
		}
	}
	return false
}

// The values of the metrics are true, and a client cannot choose the value of a label.
func TestMetrics(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pki")
	if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, PlainKeys: true, Profiles: profiles(), Root: setup.Certificate{Lifetime: 48 * time.Hour}}); err != nil {
		t.Fatal(err)
	}
	damage.Config(t, dir, "limits: {per_address: {per_second: 0.001, burst: 4}}\n")
	reg := prometheus.NewRegistry()
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir, Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	if err := a.IssueOwn(t.Context()); err != nil {
		t.Fatal(err)
	}
	h := a.Handler()
	ask := func(method, path string, want int) {
		t.Helper()
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), method, path, http.NoBody)
		if h.ServeHTTP(w, r); w.Code != want {
			t.Errorf("%s %s: %d, want %d", method, path, w.Code, want)
		}
	}
	ask("GET", "/1.0/crl", http.StatusOK)
	ask("GET", "/crl", http.StatusOK)
	ask("GET", "/nowhere/at/all", http.StatusNotFound)
	ask("POST", "/sign", http.StatusBadRequest)
	ask("POST", "/sign", http.StatusTooManyRequests)
	for name, want := range map[[2]string]float64{
		{"artstore_ca_certificates_issued_total", "own"}:            1,
		{"artstore_ca_requests_limited_total", "address"}:           1,
		{"artstore_ca_requests_limited_total", "service"}:           0,
		{"artstore_ca_requests_refused_total", "token used once"}:   0,
		{"artstore_ca_request_duration_seconds", "/crl"}:            2,
		{"artstore_ca_request_duration_seconds", "other"}:           1,
		{"artstore_ca_request_duration_seconds", "/nowhere"}:        -1,
		{"artstore_ca_certificates_outstanding", "ca"}:              1,
		{"artstore_ca_certificates_outstanding", "storage"}:         0,
		{"artstore_ca_certificates_outstanding", "other"}:           -1,
		{"artstore_ca_audit_log_failures_total", ""}:                0,
		{"artstore_ca_earliest_not_after_seconds", ""}:              float64(a.Roots()[0].NotAfter.Unix()),
		{"artstore_ca_certificates_revoked_total", ""}:              0,
		{"artstore_ca_ready", ""}:                                   1,
		{"artstore_ca_holders", ""}:                                 0, // the authority is none of them
		{"artstore_ca_root_services_without", "active"}:             0,
		{"artstore_ca_root_services_trusting", "active"}:            0,
		{"artstore_ca_issuer_not_after_timestamp_seconds", "root"}:  float64(a.Roots()[0].NotAfter.Unix()),
		{"artstore_ca_issuer_not_before_timestamp_seconds", "root"}: float64(a.Roots()[0].NotBefore.Unix()),
	} {
		if got := metricValue(t, reg, name[0], name[1]); got != want {
			t.Errorf("%s %s: %v, want %v", name[0], name[1], got, want)
		}
	}
	if age := metricValue(t, reg, "artstore_ca_crl_age_seconds", ""); age <= 0 || age > 60 {
		t.Errorf("age of the list: %v", age)
	}
	if err := a.CloseRecord(); err != nil {
		t.Fatal(err)
	}
	if err := a.Ready(t.Context()); err == nil {
		t.Error("ready without a record")
	}
}

// The listener in cleartext serves the list and nothing else.
func TestCRLHandler(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pki")
	if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, PlainKeys: true}); err != nil {
		t.Fatal(err)
	}
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	for path, want := range map[string]int{"/crl": 200, "/crl?issuer=00": 404, "/roots": 404, "/sign": 404, "/1.0/revoked": 404} {
		w := httptest.NewRecorder()
		if a.CRLHandler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)); w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
}
