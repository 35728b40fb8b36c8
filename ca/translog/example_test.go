package translog_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/artstore/artstore-pki/ca/translog"
)

// Entries go into the tree, and its root is signed. Whoever has the head and the
// verifier can tell whether a record still has these entries.
func Example() {
	_, private, _ := ed25519.GenerateKey(nil) // of the system's randomness; does not fail
	key, err := translog.NewKey(private)
	if err != nil {
		log.Fatal(err)
	}
	var tree translog.Tree
	for _, serial := range []string{"7", "8"} {
		tree.Append(translog.Entry{At: time.Now(), Kind: "issued", Serial: serial}.Leaf(), nil)
	}
	text, err := key.Sign(translog.Head{Size: tree.Size(), Root: tree.Root(), Time: time.Now()})
	if err != nil {
		log.Fatal(err)
	}

	head, err := key.Verifier().Open(text)
	fmt.Println("entries:", head.Size, err)
	fmt.Println("the same root:", head.Root == tree.Root())

	_, other, _ := ed25519.GenerateKey(nil)
	stranger, err := translog.NewKey(other)
	if err != nil {
		log.Fatal(err)
	}
	_, err = stranger.Verifier().Open(text)
	fmt.Println("of another log:", errors.Is(err, translog.ErrForeign))
	// Output:
	// entries: 2 <nil>
	// the same root: true
	// of another log: true
}
