// Package endpoint parses the addresses of servers and upgrades a connection to TLS with
// the plaintext protocol of the server (STARTTLS and the like).
//
// What a server sends before TLS is not authenticated. It is bounded (64 KiB), and nothing
// that was sent early is kept as if it had come over TLS.
package endpoint

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// scheme is a protocol that a target can name. HOST:PORT without a scheme means TLS from
// the first byte. A new protocol is a row in schemes, and a function if its TLS begins
// after a plaintext exchange.
type scheme struct {
	// port is used if the target names none. If it is empty, the target must name one.
	port string
	// upgrade asks the server to begin TLS. It must not read beyond the answer: what
	// follows belongs to TLS. nil means TLS from the first byte.
	upgrade func(net.Conn) error
}

var schemes = map[string]scheme{
	"tls": {}, "https": {port: "443"}, "wss": {port: "443"}, "ldaps": {port: "636"}, "smtps": {port: "465"}, "imaps": {port: "993"},
	"pop3s": {port: "995"}, "ftps": {port: "990"}, "amqps": {port: "5671"}, "mqtts": {port: "8883"}, "rediss": {port: "6379"},
	"nntps": {port: "563"}, "ircs": {port: "6697"}, "sips": {port: "5061"},

	"postgres": {"5432", upgradePostgres}, "postgresql": {"5432", upgradePostgres},
	"mysql": {"3306", upgradeMySQL}, "mariadb": {"3306", upgradeMySQL},
	"smtp": {"25", upgradeSMTP}, "submission": {"587", upgradeSMTP},
	"imap": {"143", upgradeIMAP}, "pop3": {"110", upgradePOP3}, "ldap": {"389", upgradeLDAP}, "ftp": {"21", upgradeFTP},
}

var endsInPort = regexp.MustCompile(`:[0-9]+$`)

// IsAddress reports whether a target that does not exist on disk is meant as an address,
// even if it is not a valid one.
func IsAddress(text string) bool {
	return strings.Contains(text, "://") || endsInPort.MatchString(text)
}

// Parse splits HOST:PORT or a URL with one of our schemes. The error does not quote the
// text: people copy addresses of databases with a password in them.
func Parse(text string) (host, port string, err error) {
	if strings.Contains(text, "://") {
		host, port, err = parseURL(text)
	} else if host, port, err = net.SplitHostPort(text); err != nil || host == "" || strings.ContainsRune(host, '/') {
		err = errors.New("an address is HOST:PORT or SCHEME://HOST[:PORT]")
	}
	if err != nil {
		return "", "", err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", "", fmt.Errorf("%q is no port: want a number from 1 to 65535", port)
	}
	return host, port, nil
}

// parseURL splits SCHEME://HOST[:PORT], and ignores the rest of the URL.
func parseURL(text string) (host, port string, err error) {
	name, _, _ := strings.Cut(text, "://")
	s, known := schemes[strings.ToLower(name)]
	if !known {
		return "", "", fmt.Errorf("%q is no scheme of an address: want one of %s", name, strings.Join(slices.Sorted(maps.Keys(schemes)), ", "))
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return "", "", errors.New("an address is SCHEME://HOST[:PORT]")
	}
	port = u.Port()
	if port == "" {
		port = s.port
	}
	if port == "" {
		return "", "", fmt.Errorf("want %s://HOST:PORT: there is no usual port", u.Scheme)
	}
	return u.Hostname(), port, nil
}

// UpgradeOf returns the exchange before TLS for an address, or nil if there is none.
func UpgradeOf(address string) func(net.Conn) error {
	name, _, _ := strings.Cut(address, "://")
	return schemes[strings.ToLower(name)].upgrade
}

// Hinted adds to err a scheme that may have been meant: the one of a protocol that begins
// without TLS, found by what the server sent or by its port. A cause that carries what
// the server sent has a method Sent. A failure to connect gets no hint.
func Hinted(address string, cause, err error) error {
	if op, ok := errors.AsType[*net.OpError](cause); ok && op.Op == "dial" || strings.Contains(address, "://") {
		return err
	}
	name := ""
	if unfinished, ok := errors.AsType[sentError](cause); ok {
		name = speaks(unfinished.Sent())
	}
	_, port, _ := net.SplitHostPort(address) // it was parsed before
	if name == "" {
		name = askedAt(port)
	}
	if name == "" {
		return err
	}
	return fmt.Errorf("%w; try %s://%s", err, name, address)
}

// sentError is the error of a handshake that knows what the server sent before it failed.
type sentError interface {
	error
	Sent() []byte
}

// askedAt returns the shortest name of the scheme that asks for TLS at a port, or "".
func askedAt(port string) (name string) {
	for known, s := range schemes {
		if s.upgrade != nil && s.port == port && (name == "" || len(known) < len(name)) {
			name = known
		}
	}
	return name
}

// speaks returns the scheme of a server that greets first, or "". 220 is the greeting of
// FTP and of SMTP (RFC 959 §5.4, RFC 5321 §4.2); a MySQL greeting is a message of less
// than 64 KiB with number 0 and protocol version 10.
func speaks(greeting []byte) string {
	text := string(greeting[:min(len(greeting), 512)])
	switch {
	case strings.HasPrefix(text, "220") && strings.Contains(text, "FTP"):
		return "ftp"
	case strings.HasPrefix(text, "220"):
		return "smtp"
	case strings.HasPrefix(text, "* OK"):
		return "imap"
	case strings.HasPrefix(text, "+OK"):
		return "pop3"
	case len(text) > 4 && text[2:5] == "\x00\x00\x0a":
		return "mysql"
	}
	return ""
}

// Place returns the address as a report may show it: without user, password, path and
// query. People copy the URLs of databases with the password in them.
func Place(address string) string {
	name, rest, found := strings.Cut(address, "://")
	if !found {
		return address
	}
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		return u.Scheme + "://" + u.Host
	}
	// No URL: a password that is not escaped makes one of these.
	rest = rest[strings.LastIndexByte(rest, '@')+1:]
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	return name + "://" + rest
}
