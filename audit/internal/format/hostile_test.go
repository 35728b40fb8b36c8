//go:build unix

package format_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
)

// Programs that read certificates have hung, filled the memory or crashed on each of these
// files. Here each is a row.
func TestHostileFiles(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	var many []string
	for i := range 10_000 {
		many = append(many, fmt.Sprintf("host-%d.example", i))
	}
	begin := []byte("-----BEGIN CERTIFICATE-----\n")
	dir := certtest.Write(t, map[string][]byte{
		"ca.crt":         certtest.Encode(root),
		"begins.pem":     bytes.Repeat(begin, 200_000), // 5.6 MB
		"headers.pem":    append(bytes.Clone(begin), bytes.Repeat([]byte("a: b\n"), 400_000)...),
		"between.pem":    bytes.Join([][]byte{certtest.Encode(leaf), certtest.Block("CERTIFICATE", []byte("0\x80")), begin, certtest.Encode(intermediate)}, nil),
		"names.crt":      certtest.Encode(certtest.New(t, intermediate, "many", certtest.Named(many...)), intermediate),
		"caf\xe9.crt":    certtest.Encode(leaf, intermediate),
		"a\x1b[2J\n.crt": certtest.Encode(leaf, intermediate),
		"sparse.pem":     nil,
	})
	at := func(name string) string { return filepath.Join(dir, name) }
	certtest.Must(t, os.Truncate(at("sparse.pem"), 8<<30))
	certtest.Must(t, syscall.Mkfifo(at("fifo.pem"), 0o600))
	for link, to := range map[string]string{"zero.crt": "/dev/zero", "loop.crt": "pool.crt", "pool.crt": "loop.crt", "up": "."} {
		certtest.Must(t, os.Symlink(to, at(link)))
	}
	var r *audittest.Report
	audittest.Within(t, "the audit", func() { r = audittest.Run(t, audittest.Paths(dir)) })
	got := audittest.States(t, r, dir)
	if p := "between.pem#2"; !strings.HasPrefix(got[p], "ERROR parsing the certificate: ") {
		t.Errorf("%s: %s", p, got[p])
	}
	delete(got, "between.pem#2")
	audittest.Want(t, got, map[string]string{
		"ca.crt":         "OK",
		"begins.pem":     "ERROR block 1 is damaged or cut off",
		"headers.pem":    "ERROR block 1 is damaged or cut off",
		"between.pem":    "OK",
		"between.pem#3":  "ERROR block 3 is damaged or cut off",
		"names.crt":      "OK",
		"caf\xe9.crt":    "OK",
		"a\x1b[2J\n.crt": "OK",
		// The intermediate is one row, at the first place that has it.
		"a\x1b[2J\n.crt#2": "OK",
		"sparse.pem":       "ERROR it is larger than 32 MiB",
		"fifo.pem":         "ERROR it is no regular file",
		"zero.crt":         "ERROR it is no regular file",
		"loop.crt":         "ERROR too many levels of symbolic links",
		"pool.crt":         "ERROR too many levels of symbolic links",
	})
}
