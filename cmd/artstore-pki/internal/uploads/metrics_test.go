package uploads

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/artstore/artstore-pki/ingestclient"
)

func TestIngestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := NewMetrics(registry)
	refused := &ingestclient.AuthError{Err: fmt.Errorf("%w: %w", ingestclient.ErrTokenEndpoint, ingestclient.ErrTLSPeer)}
	if families, err := registry.Gather(); err != nil || len(families) != 7 {
		t.Errorf("%d metrics begin at zero, %v", len(families), err)
	}
	o := m.Observer()
	o.Token(time.Second, nil)
	o.Token(0, refused)
	o.Token(0, errors.New("x"))
	o.Upload(time.Second, 7, 1, nil)
	o.Upload(0, 0, 0, errors.New("x"))
	o.Retry(1, 0, refused)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, metric := range f.GetMetric() {
			got[f.GetName()+labelText(metric)] = metric.GetCounter().GetValue() + float64(metric.GetHistogram().GetSampleCount())
		}
	}
	for name, want := range map[string]float64{
		"auth_token_requests_total success": 1, "auth_token_requests_total failure": 2, "auth_errors_total tls": 1, "auth_errors_total other": 1,
		"ingester_upload_total success": 1, "ingester_upload_total failure": 1, "ingester_upload_bytes_total": 7, "ingester_upload_retries_total": 1,
		"auth_token_acquisition_duration_seconds": 3, "ingester_upload_duration_seconds": 2,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}

func labelText(m *dto.Metric) (out string) {
	for _, l := range m.GetLabel() {
		out += " " + l.GetValue()
	}
	return out
}
