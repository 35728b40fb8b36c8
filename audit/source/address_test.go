package source_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/source"
)

// The row of a wrong address says what is wrong, and not that there is no such file. A password
// in the address is not shown.
func TestWrongAddresses(t *testing.T) {
	t.Chdir(certtest.Write(t, map[string][]byte{"a:1": nil, "h:99999": nil}))
	for name, want := range map[string]string{
		"gopher://h:70":                          `gopher://h:70 ERROR "gopher" is no scheme of an address: want one of amqps, ftp, `,
		"host:99999":                             `host:99999 ERROR "99999" is no port: want a number from 1 to 65535`,
		"host:0":                                 `host:0 ERROR "0" is no port`,
		"ldaps://h:99999":                        `ldaps://h:99999 ERROR "99999" is no port`,
		":443":                                   `:443 ERROR an address is HOST:PORT or SCHEME://HOST[:PORT]`,
		"dir/name:12":                            `dir/name:12 ERROR an address is `,
		"https://":                               `https:// ERROR an address is SCHEME://HOST[:PORT]`,
		"tls://host":                             `tls://host ERROR want tls://HOST:PORT: there is no usual port`,
		"postgres://u:hunter2@h:99999/x":         `postgres://h:99999 ERROR "99999" is no port`,
		"postgres://u:hunter2%zz@h/x":            `postgres://h ERROR an address is SCHEME://HOST[:PORT]`,
		"postgres://u:hun/ter2@h:1/x":            `postgres://h:1 ERROR an address is SCHEME://HOST[:PORT]`,
		"gopher://u:hunter2@h/?password=hunter2": `gopher://h ERROR "gopher" is no scheme`,
		"h:99999":                                `h:99999 ERROR the file is empty`, // it exists
		"missing.pem":                            `missing.pem ERROR no such file or directory`,
	} {
		r := audittest.Run(t, source.Targets{Names: []string{name}, Timeout: audittest.Patience})
		if got := r.Rows[0].Place + " " + audittest.States(t, r, "")[r.Rows[0].Place]; len(r.Rows) != 1 || !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// The audit expands patterns that no shell has expanded.
func TestPatterns(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	dir := certtest.Write(t, map[string][]byte{
		"a/tls.crt": certtest.Encode(leaf, intermediate), "a/ca.crt": certtest.Encode(root), "b/deep/tls.crt": certtest.Encode(leaf, intermediate), "b/ca.crt": certtest.Encode(root),
		"[x].pem": certtest.Encode(root), "b/notes.txt": []byte("notes"),
	})
	for pattern, want := range map[string]map[string]string{
		"*/tls.crt":      {"a/tls.crt": "OK", "a/tls.crt#2": "OK"},
		"**/tls.crt":     {"a/tls.crt": "OK", "a/tls.crt#2": "OK", "b/deep/tls.crt": "OK"},
		"{a,b}":          {"a/tls.crt": "OK", "a/tls.crt#2": "OK", "b/deep/tls.crt": "OK", "a/ca.crt": "OK"},
		"b/*.txt":        {"b/notes.txt": "ERROR it is neither PEM nor a certificate in DER"},
		"[x].pem":        {"[x].pem": "OK"},
		"*.crt":          {"*.crt": "ERROR nothing matches this pattern"},
		"[a":             {"[a": "ERROR syntax error in pattern"},
		"none/*/tls.crt": {"none/*/tls.crt": "ERROR nothing matches this pattern"},
	} {
		r := audittest.Run(t, audittest.Paths(filepath.Join(dir, pattern)))
		got := audittest.States(t, r, dir)
		for place, state := range want {
			if got[place] != state {
				t.Errorf("%s: %s: %q, want %q", pattern, place, got[place], state)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %v", pattern, got)
		}
	}
}
