package spool_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
	"github.com/artstore/artstore-pki/ingestclient/spool"
)

// A drop box: what is written into dir is stored and removed. A program passes
// its *ingestclient.Client as Uploader, Finder and Prober.
func ExampleOpen() {
	withClient(func(client *ingestclient.Client) {
		dir, err := os.MkdirTemp("", "drop-box")
		if err != nil {
			log.Fatal(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		if err := os.WriteFile(filepath.Join(dir, "report.txt"), []byte("all is well\n"), 0o600); err != nil {
			log.Fatal(err)
		}

		s, err := spool.Open(spool.Config{
			Dir: dir, Uploader: client, Finder: client, Prober: client,
			OnSuccess: spool.DeleteSource,
			Settle:    -1,   // writers rename whole files in; the default waits until a file stands still
			Once:      true, // end when the directory is empty; without it Run goes on until ctx ends
			Logger:    slog.New(slog.DiscardHandler),
			Observer:  func(e spool.Event) { fmt.Println(e.Kind, e.Name, e.Size) },
		})
		if err != nil {
			log.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Run(ctx); err != nil {
			log.Fatal(err)
		}
		_, err = os.Stat(filepath.Join(dir, "report.txt"))
		fmt.Println("the source is gone:", errors.Is(err, os.ErrNotExist))
	})
	// Output:
	// stored report.txt 12
	// the source is gone: true
}

// withClient gives an example a client of both reference services. An example has
// no testing.T, which they want.
func withClient(example func(*ingestclient.Client)) {
	testing.Benchmark(func(b *testing.B) {
		if b.N > 1 {
			return
		}
		stack := ingesttest.Start(b, ingesttest.Options{})
		client, err := ingestclient.New(stack.Config(), stack.Identity)
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = client.Close() }()
		example(client)
	})
}
