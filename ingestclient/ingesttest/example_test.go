package ingesttest_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
)

// A test of code that uploads: it has to survive a lost connection, a token
// endpoint that is busy, and a new certificate.
func Example() {
	// In your test: func TestIngest(t *testing.T) { … }
	test := func(t testing.TB) {
		stack := ingesttest.Start(t, ingesttest.Options{Dialect: "go", Mode: "edit"})
		client, err := ingestclient.New(stack.Config(), stack.Identity)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })

		stack.SetFaults(t, ingesttest.Fault{Kind: "reset", AfterBytes: 1000, Count: 1})
		stack.SetTokenFault(t, ingesttest.TokenFault{Status: http.StatusServiceUnavailable, Count: 1})
		file, err := client.Upload(t.Context(), ingestclient.ReaderContent("a.txt", bytes.NewReader(make([]byte, 32<<20)), 32<<20), ingestclient.Meta{}) // more than any socket buffer: a lost connection is noticed while writing
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("stored", file.Size, "bytes, token requests:", stack.TokenRequests())

		stack.RotateClient(t)
		if _, err := client.Metadata(t.Context(), file.FileID); err != nil {
			t.Fatal(err)
		}
		fmt.Println("files:", len(stack.Files()))
	}
	run(test)
	// Output:
	// stored 33554432 bytes, token requests: 2
	// files: 1
}

// run runs a test inside of an example, which has no testing.T of its own.
func run(test func(testing.TB)) {
	testing.Benchmark(func(b *testing.B) {
		if b.N == 1 {
			test(b)
		}
	})
}

func TestTokenFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	s := ingesttest.Start(t, ingesttest.Options{Unbound: true})
	upload := func(ctx context.Context) error {
		c := newClient(t, s)
		_, err := c.Upload(ctx, ingestclient.ReaderContent("f", strings.NewReader(""), 0), ingestclient.Meta{})
		return err
	}
	s.SetTokenFault(t, ingesttest.TokenFault{Status: -1, Count: 1})
	if err := upload(t.Context()); err != nil {
		t.Errorf("one dropped connection: %v", err)
	}
	s.SetTokenFault(t, ingesttest.TokenFault{Status: http.StatusTooManyRequests, RetryAfter: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := upload(ctx); err == nil {
		t.Error("a token was had of an endpoint that gives none")
	}
	s.SetTokenFault(t, ingesttest.TokenFault{Delay: time.Hour})
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if err := upload(short); err == nil {
		t.Error("an answer came an hour early")
	}
	s.SetTokenFault(t, ingesttest.TokenFault{})
	if err := upload(t.Context()); err != nil || s.TokenRequests() < 4 {
		t.Errorf("after all faults: %v", err)
	}
}
