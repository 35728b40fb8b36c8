package secret_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/artstore/artstore-pki/secret"
)

func ExampleString() {
	s := secret.New("correct horse battery staple")
	fmt.Println(s)
	fmt.Printf("%q %x %+v\n", s, s, struct{ Password secret.String }{s})
	fmt.Println(len(s.Expose()))
	// Output:
	// [redacted]
	// [redacted] [redacted] {Password:[redacted]}
	// 28
}

func ExampleReadFile() {
	dir, err := os.MkdirTemp("", "secret")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "token")
	if err := os.WriteFile(path, []byte("eyJhbGciOiJFUzI1NiJ9.e30.c2ln\n"), 0o644); err != nil {
		fmt.Println(err)
		return
	}
	token, err := secret.ReadFile(path)
	fmt.Println(token, len(token.Expose()), err)
	fmt.Println("others can read it:", errors.Is(secret.CheckFile(path), secret.ErrExposed))
	// Output:
	// [redacted] 29 <nil>
	// others can read it: true
}
