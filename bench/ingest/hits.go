package main

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/auth"
	"golang.org/x/oauth2"
)

type fixed struct{}

func (fixed) Token(context.Context) (*auth.Token, error) {
	return &auth.Token{Value: "bench", Expiry: time.Now().Add(time.Hour)}, nil
}

// hits is what a cached token costs. Ours is measured by its package's own
// benchmark: nobody outside can take a token without sending it.
func (b *bench) hits(ctx context.Context) error {
	b.Print("\nA cached token, one caller; beside a request of 100 µs none of it matters\n")
	source := oauth2.ReuseTokenSource(nil, oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "bench", Expiry: time.Now().Add(time.Hour)}))
	cached := auth.NewCachedTokenProvider(fixed{}, nil)
	for _, one := range []struct {
		name string
		ask  func() error
	}{
		{"x/oauth2", func() error { _, err := source.Token(); return err }},
		{"google auth", func() error { _, err := cached.Token(ctx); return err }},
	} {
		var failed error
		r := testing.Benchmark(func(tb *testing.B) {
			for tb.Loop() {
				if err := one.ask(); err != nil {
					failed = err
				}
			}
		})
		if failed != nil {
			return failed
		}
		b.Print("  %-34s %s\n", one.name, r)
	}
	out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "TokenHit|Validate", "-benchmem", "github.com/artstore/artstore-pki/ingestclient", "github.com/artstore/artstore-pki/internal/devstack").CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if name, rest, ok := strings.Cut(line, "\t"); ok && strings.HasPrefix(name, "Benchmark") {
			b.Print("  %-34s %s", strings.TrimSpace(strings.TrimPrefix(name, "Benchmark")), rest)
		}
	}
	return err
}
