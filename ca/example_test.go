package ca_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/setup"
)

// This makes an authority and its first token. A program that serves puts Handler
// behind TLS 1.3, and runs Watch and KeepLog beside it.
func Example() {
	parent, err := os.MkdirTemp("", "authority")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(parent) }()
	dir, ctx := filepath.Join(parent, "ca"), context.Background()
	if _, err := setup.Init(ctx, setup.Options{
		Dir: dir, DNSNames: []string{"ca.internal"},
		PlainKeys: true, // an example has no time for the derivation of keys; never in production
		Profiles:  map[string]policy.Profile{"storage": {Names: []string{"storage.internal"}}},
	}); err != nil {
		log.Fatal(err)
	}
	authority, err := ca.Open(ctx, ca.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = authority.Close() }()

	token, err := ca.StateDir(dir).NewToken(ctx, ca.TokenOptions{Service: "storage"})
	fmt.Println(token, err)
	_, err = ca.StateDir(dir).NewToken(ctx, ca.TokenOptions{Service: "nobody"})
	fmt.Println("a service that pki.yaml does not name:", err != nil)
	// Output:
	// [redacted] <nil>
	// a service that pki.yaml does not name: true
}
