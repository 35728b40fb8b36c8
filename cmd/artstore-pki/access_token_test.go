package main

import (
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/artstore/artstore-pki/internal/tokensocket"
)

// The daemon counts what is asked of it and what it asks.
func TestTokenMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := newTokenMetrics(registry)
	for _, outcome := range []string{tokensocket.Served, tokensocket.Served, tokensocket.Failed} {
		m.asked(outcome)
	}
	m.observer().Token(0, errors.New("x"))
	for what, got := range map[string]float64{
		"served":        testutil.ToFloat64(m.socket.WithLabelValues(tokensocket.Served)) - 2,
		"failed":        testutil.ToFloat64(m.socket.WithLabelValues(tokensocket.Failed)) - 1,
		"token request": testutil.ToFloat64(m.tokens.WithLabelValues("failure")) - 1,
	} {
		if got != 0 {
			t.Errorf("%s: %+g from what is right", what, got)
		}
	}
}

func TestGroupID(t *testing.T) {
	for name, want := range map[string]int{"": 0, "12": 12} {
		if got, err := groupID(name); got != want || err != nil {
			t.Errorf("%q: %d, %v; want %d", name, got, err, want)
		}
	}
	for _, name := range []string{"0", "-1", "root", "4294967296", "no such group", "\x1b[0m"} {
		if _, err := groupID(name); err == nil {
			t.Errorf("%q is a group", name)
		}
	}
}
