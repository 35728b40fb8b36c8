package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

// copyUntil returns at an interrupt although standard input does not end.
func TestCopyUntil(t *testing.T) {
	from, feed := io.Pipe()
	defer func() { _ = feed.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = io.WriteString(feed, "the begin of something")
		cancel()
	}()
	if _, err := copyUntil(ctx, io.Discard, from); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the end of the context", err)
	}
	if n, err := copyUntil(t.Context(), io.Discard, strings.NewReader("all of it")); n != 9 || err != nil {
		t.Errorf("%d bytes, %v; want all 9", n, err)
	}
}
