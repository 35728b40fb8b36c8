package main

import (
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/uploads"
	"github.com/artstore/artstore-pki/internal/tokensocket"
)

// The daemon counts the requests on its socket and those that it sends.
func TestTokenMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	m, client := newTokenMetrics(registry), uploads.NewMetrics(registry)
	for _, outcome := range []string{tokensocket.Served, tokensocket.Served, tokensocket.Failed} {
		m.asked(outcome)
	}
	client.Observer().Token(0, errors.New("x"))
	for what, got := range map[string]float64{
		"served":        testutil.ToFloat64(m.socket.WithLabelValues(tokensocket.Served)) - 2,
		"failed":        testutil.ToFloat64(m.socket.WithLabelValues(tokensocket.Failed)) - 1,
		"token request": counted(t, registry, "auth_token_requests_total", "failure") - 1,
	} {
		if got != 0 {
			t.Errorf("%s: %+g from what is right", what, got)
		}
	}
}

// counted is the value of a counter with one label, as a scrape has it.
func counted(t *testing.T, registry *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}
