package backup_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/artstore/artstore-pki/ca/backup"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/secret"
)

// A state directory is saved, while the authority may run, and restored in another
// place. The keys are encrypted by a password, which is not in the backup.
func Example() {
	parent, err := os.MkdirTemp("", "backup")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(parent) }()
	dir, ctx := filepath.Join(parent, "ca"), context.Background()
	if _, err := setup.Init(ctx, setup.Options{Dir: dir, Password: secret.New("correct horse battery staple")}); err != nil {
		log.Fatal(err)
	}

	var tar bytes.Buffer // in a program a file, or a pipe to a program that encrypts
	n, err := backup.Write(ctx, &tar, backup.Options{Dir: dir})
	if err != nil {
		log.Fatal(err)
	}
	restored, err := backup.Restore(ctx, &tar, filepath.Join(parent, "restored"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("something was saved:", n > 0)
	fmt.Println("the password came along:", restored.Password)
	fmt.Println("it has the head of its log:", !restored.NoHead)
	// Output:
	// something was saved: true
	// the password came along: false
	// it has the head of its log: true
}
