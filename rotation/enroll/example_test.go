package enroll_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// A service that gets its first certificate by a token, and every further one by
// the certificate in use.
func ExampleNew() {
	withAuthority(func(authority *catest.CA, token func(context.Context) (secret.String, error)) {
		dir, err := os.MkdirTemp("", "identity")
		if err != nil {
			log.Fatal(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		src, err := enroll.New(enroll.Config{
			URL:    authority.URL,
			Token:  token, // enroll.TokenFile in a program
			Dir:    dir,   // a restart needs neither a token nor the authority
			Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			log.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // for an authority that is away
		defer cancel()
		id, err := rotation.Open(ctx, rotation.Config{Source: src, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			log.Fatal(err)
		}
		defer func() { _ = id.Close() }()
		fmt.Println(id.Current().Leaf().Subject.CommonName, id.Check())
	})
	// Output:
	// ingester <nil>
}

// withAuthority gives an example an authority and a token of it. An example has no
// testing.T, which catest wants.
func withAuthority(example func(*catest.CA, func(context.Context) (secret.String, error))) {
	testing.Benchmark(func(b *testing.B) {
		if b.N == 1 {
			authority := catest.Start(b, catest.Options{})
			example(authority, once(authority.Token(b, "ingester")))
		}
	})
}
