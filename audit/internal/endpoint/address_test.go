package endpoint_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/endpoint"
	"github.com/artstore/artstore-pki/audit/source"
)

var errBroken = errors.New("broken")

// If a server was named without a scheme and speaks another protocol first, the error has the
// scheme for it.
func TestHints(t *testing.T) {
	for greeting, want := range map[string]string{
		"220 mail.example ESMTP\r\n":               "smtp",
		"220 ProFTPD Server\r\n":                   "ftp",
		"* OK IMAP4rev1\r\n":                       "imap",
		"+OK ready\r\n":                            "pop3",
		"\x4a\x00\x00\x00\x0a8.0.36\x00rest of it": "mysql",
	} {
		address := audittest.Accept(t, func(c net.Conn) { _, _ = io.WriteString(c, greeting); _, _ = io.Copy(io.Discard, c) })
		got := audittest.States(t, audittest.Run(t, source.Targets{Names: []string{address}, Timeout: audittest.Patience}), "")[address]
		if got != "ERROR it does not speak TLS; try "+want+"://"+address {
			t.Errorf("%s: %s", want, got)
		}
	}
	for address, want := range map[string]string{
		"h:5432": "broken; try postgres://h:5432", "[::1]:389": "broken; try ldap://[::1]:389", "h:3306": "broken; try mysql://h:3306",
		"h:587": "broken; try submission://h:587", "h:443": "broken", "https://h:25": "broken",
	} {
		if got := endpoint.Hinted(address, io.EOF, errBroken); got.Error() != want {
			t.Errorf("%s: %s", address, got)
		}
	}
	if got := endpoint.Hinted("h:5432", &net.OpError{Op: "dial", Err: io.EOF}, errBroken); got.Error() != "broken" {
		t.Error(got)
	}
}

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]string{
		"storage:8010": "storage 8010", "[::1]:443": "::1 443",
		"https://admin/x": "admin 443", "https://[::1]:8000": "::1 8000", "artstore_admin_module:8000": "artstore_admin_module 8000",
		"ldaps://directory": "directory 636", "IMAPS://mail": "mail 993", "tls://h:7": "h 7", "mysql://u:p@db/x": "db 3306",
	} {
		if host, port, err := endpoint.Parse(text); err != nil || host+" "+port != want {
			t.Errorf("%s: %q %q %v", text, host, port, err)
		}
	}
	for _, text := range []string{"", "storage", ":443", "a/b:443", "storage:nonsense", "storage:65536", "storage:0", "storage:-1", "https://", "http://x:1", "x:y:z"} {
		if host, port, err := endpoint.Parse(text); err == nil {
			t.Errorf("%q: %q %q", text, host, port)
		}
	}
}

// Contract: an address is refused, or has a host and a port without brackets and slashes.
func FuzzParseAddress(f *testing.F) {
	f.Add("https://[::1]:8000/x")
	f.Add("a:1")
	f.Fuzz(func(t *testing.T, text string) {
		host, _, err := endpoint.Parse(text)
		if err == nil && (host == "" || strings.ContainsAny(host, "/")) {
			t.Errorf("%q: %q", text, host)
		}
	})
}
