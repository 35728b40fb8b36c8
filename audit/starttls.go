package audit

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"net/url"
	"strings"
)

// scheme is a protocol that a target can name: HOST:PORT without one is TLS from
// the first byte. A new one is a function and a row in schemes.
type scheme struct {
	port string // if the target names none
	// upgrade asks the server to go over to TLS. It reads nothing beyond the answer.
	upgrade func(net.Conn) error
}

var schemes = map[string]scheme{
	"https":      {"443", nil},
	"postgres":   {"5432", askPostgres},
	"postgresql": {"5432", askPostgres},
	"smtp":       {"25", askSMTP},
}

var errEarly = errors.New("it sends something between its consent and TLS, which somebody on the way may have put there")

// parseURL splits SCHEME://HOST[:PORT]; what else the URL has does not matter.
func parseURL(text string) (host, port string, err error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", "", fmt.Errorf("address %q: want SCHEME://HOST[:PORT]", text)
	}
	s, known := schemes[u.Scheme]
	if !known || u.Hostname() == "" {
		return "", "", fmt.Errorf("address %q: want https, postgres or smtp, then ://HOST[:PORT]", text)
	}
	port = u.Port()
	if port == "" {
		port = s.port
	}
	return u.Hostname(), port, nil
}

// endpointPlace is an address without what else a URL has: people copy those of
// databases with the password in them.
func endpointPlace(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || !strings.Contains(address, "://") {
		return address
	}
	return u.Scheme + "://" + u.Host
}

// upgradeOf is what a target asks before TLS; nil for one that speaks it at once.
func upgradeOf(address string) func(net.Conn) error {
	name, _, _ := strings.Cut(address, "://")
	return schemes[strings.ToLower(name)].upgrade
}

// starttls runs an upgrade under the deadline of ctx.
func starttls(ctx context.Context, conn net.Conn, upgrade func(net.Conn) error) error {
	if upgrade == nil {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends the reading
	defer stop()
	return upgrade(conn)
}

// sslRequest asks for TLS (PostgreSQL documentation, Message Formats): length and a code that no version has.
var sslRequest = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 8), 80877103)

func askPostgres(conn net.Conn) error {
	if _, err := conn.Write(sslRequest); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return fmt.Errorf("asking for TLS: %w", err)
	}
	switch answer[0] {
	case 'S':
		return nil
	case 'N':
		return errors.New("it speaks PostgreSQL, and does not offer TLS")
	}
	return errors.New("it does not speak PostgreSQL")
}

// maxGreeting bounds what a mail server may say before TLS.
const maxGreeting = 64 << 10

// askSMTP is RFC 3207.
func askSMTP(conn net.Conn) error {
	buffered := bufio.NewReader(io.LimitReader(conn, maxGreeting))
	r := textproto.NewReader(buffered)
	if _, _, err := r.ReadResponse(220); err != nil {
		return smtpError("greeting", err)
	}
	for _, say := range []struct {
		line string
		code int
	}{{"EHLO localhost", 250}, {"STARTTLS", 220}} {
		if _, err := io.WriteString(conn, say.line+"\r\n"); err != nil {
			return err
		}
		_, message, err := r.ReadResponse(say.code)
		if err != nil {
			return smtpError("answer to "+say.line, err)
		}
		if say.code == 250 && !offersTLS(message) {
			return errors.New("it speaks SMTP, and does not offer STARTTLS")
		}
	}
	if buffered.Buffered() > 0 { // CVE-2011-0411 and its kin
		return errEarly
	}
	return nil
}

func offersTLS(message string) bool {
	for line := range strings.Lines(message) {
		if strings.EqualFold(strings.TrimSpace(line), "STARTTLS") {
			return true
		}
	}
	return false
}

// smtpError tells a server that says no from one that says something else.
func smtpError(what string, err error) error {
	if refused, ok := errors.AsType[*textproto.Error](err); ok {
		return fmt.Errorf("reading the %s: %d %s", what, refused.Code, refused.Msg)
	}
	if _, ok := errors.AsType[textproto.ProtocolError](err); ok {
		return errors.New("it does not speak SMTP")
	}
	return fmt.Errorf("reading the %s: %w", what, err)
}
