//go:build unix

package audit_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Each of these has stopped, filled or killed an auditor. Here each costs a row.
func TestHostileFiles(t *testing.T) {
	root, intermediate, leaf := hierarchy(t)
	var many []string
	for i := range 10_000 {
		many = append(many, fmt.Sprintf("host-%d.example", i))
	}
	begin := []byte("-----BEGIN CERTIFICATE-----\n")
	dir := write(t, map[string][]byte{
		"ca.crt":         encode(root),
		"begins.pem":     bytes.Repeat(begin, 200_000), // 5.6 MB
		"headers.pem":    append(bytes.Clone(begin), bytes.Repeat([]byte("a: b\n"), 400_000)...),
		"between.pem":    bytes.Join([][]byte{encode(leaf), pemBlock("CERTIFICATE", []byte("0\x80")), begin, encode(intermediate)}, nil),
		"names.crt":      encode(newPair(t, intermediate, "many", named(many...)), intermediate),
		"caf\xe9.crt":    encode(leaf, intermediate),
		"a\x1b[2J\n.crt": encode(leaf, intermediate),
		"sparse.pem":     nil,
	})
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.Truncate(at("sparse.pem"), 8<<30))
	must(t, syscall.Mkfifo(at("fifo.pem"), 0o600))
	for link, to := range map[string]string{"zero.crt": "/dev/zero", "loop.crt": "pool.crt", "pool.crt": "loop.crt", "up": "."} {
		must(t, os.Symlink(to, at(link)))
	}
	start := time.Now()
	r := run(t, paths(dir))
	got := states(t, r, dir)
	if d := time.Since(start); d > patience {
		t.Errorf("it took %v", d)
	}
	if p := "between.pem#2"; !strings.HasPrefix(got[p], "ERROR parsing the certificate: ") {
		t.Errorf("%s: %s", p, got[p])
	}
	delete(got, "between.pem#2")
	want(t, got, map[string]string{
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
