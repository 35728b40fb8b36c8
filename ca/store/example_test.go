package store_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
)

// A record is made, gets a certificate with the token that was spent on it, and
// is asked for what a service has.
func Example() {
	dir, err := os.MkdirTemp("", "record")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := store.Create(ctx, filepath.Join(dir, "pki.db"))
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	_, private, _ := ed25519.GenerateKey(nil) // of the system's randomness; does not fail
	key, err := translog.NewKey(private)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := s.Begin(ctx, key); err != nil {
		log.Fatal(err)
	}

	issue := store.Issuance{Certificate: storetest.Entry(1, "storage"), Token: store.Token{Hash: [32]byte{1}, Expires: time.Now().Add(time.Hour)}}
	if _, err := s.Commit(ctx, issue); err != nil {
		log.Fatal(err)
	}
	issue.Certificate = storetest.Entry(2, "storage") // another key: the token is spent
	_, err = s.Commit(ctx, issue)
	fmt.Println("a token is spent once:", err != nil)

	page, _, err := s.List(ctx, record.Query{Service: "storage"})
	if err != nil {
		log.Fatal(err)
	}
	for _, c := range page {
		fmt.Println(c.Service, c.Serial)
	}
	// Output:
	// a token is spent once: true
	// storage 1001
}
