package main

import (
	"io"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/bench/internal/frame"
)

// callbackTable measures what runs inside the handshake to find configuration
// or certificate, alone. Rows without a callback do it in other places: a
// static configuration nowhere, advancedtls by a clone before the handshake.
func callbackTable(w io.Writer, all []variant, quick bool) error {
	t := newTable(w)
	t.line("\nThe callback alone: GetConfigForClient or GetCertificate")
	t.line("server\torigin\tns\tallocs")
	rounds := 9
	if quick {
		rounds = 3
	}
	for _, v := range all {
		if v.callback == nil {
			t.line("%s\t%s\tno callback\t", v.name, v.origin)
			continue
		}
		if err := v.callback(); err != nil { // the first call may build what later ones share
			return err
		}
		allocs := testing.AllocsPerRun(200, func() { _ = v.callback() }) // it worked a moment ago
		t.line("%s\t%s\t%.1f\t%.0f", v.name, v.origin, perCall(v.callback, rounds), allocs)
	}
	return t.flush()
}

// perCall is the median of several loops, each long enough for the clock.
func perCall(f func() error, rounds int) float64 {
	const slice = 5 * time.Millisecond
	n := 1
	for loop(f, n) < slice {
		n *= 2
	}
	values := make([]float64, rounds)
	for i := range values {
		values[i] = float64(loop(f, n).Nanoseconds()) / float64(n)
	}
	return median(values)
}

func loop(f func() error, n int) time.Duration {
	began := frame.OwnCPU()
	for range n {
		_ = f() // it worked before, and is measured either way
	}
	return frame.OwnCPU() - began
}
