package rotation_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/rotation"
)

// TestHandshakeTimeoutIsNotTheCallers expects that a handshake that takes too long is a
// timeout that differs from the deadline of the caller.
func TestHandshakeTimeoutIsNotTheCallers(t *testing.T) {
	for name, patience := range map[string]time.Duration{"ours": time.Hour, "the caller's": time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := newCA(t, "root")
				id := open(t, newPushed(ca.leaf(t, "client", nil)), 0)
				rt := transport(t, id, rotation.TransportOptions{DialContext: func(context.Context, string, string) (net.Conn, error) {
					ours, theirs := net.Pipe()
					go func() { _, _ = io.Copy(io.Discard, theirs) }() // reads, and says nothing
					return ours, nil
				}})
				defer func() { _ = rt.Close() }()
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				begun := time.Now()
				_, err := rt.DialTLSContext(ctx, "tcp", "server:1")
				if took := time.Since(begun); err == nil || took != min(patience, 10*time.Second) {
					t.Errorf("%v after %v", err, took)
				}
				timeout, ok := errors.AsType[net.Error](err)
				if mine := errors.Is(err, context.DeadlineExceeded); !ok || !timeout.Timeout() || mine != (patience == time.Second) {
					t.Errorf("%v: a timeout %v, a deadline of the caller's %v", err, ok, mine)
				}
			})
		})
	}
}
