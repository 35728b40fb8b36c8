package endpoint

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/artstore/artstore-pki/audit/internal/ber"
)

var errDataBeforeTLS = errors.New("it sends something between its consent and TLS, which somebody on the way may have put there")

// StartTLS runs an upgrade, which may be nil, under the deadline of ctx. The end of ctx
// closes the connection, because that is what ends a blocked read.
func StartTLS(ctx context.Context, conn net.Conn, upgrade func(net.Conn) error) error {
	if upgrade == nil {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends the reading
	defer stop()
	return upgrade(conn)
}

// sslRequest is the SSLRequest of PostgreSQL (documentation, "Message Formats"): the length
// of the message, and a code where other messages have a protocol version.
var sslRequest = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 8), 80877103)

// upgradePostgres reads exactly one byte of the answer. A second byte that came before TLS
// would be an injection (CVE-2021-23222), and TLS then fails on it.
func upgradePostgres(conn net.Conn) error {
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

// maxGreeting bounds what a server may send before TLS, in bytes. Those in
// use are far shorter.
const maxGreeting = 64 << 10

// talk is the exchange of lines before TLS. protocol is for errors.
type talk struct {
	*textproto.Reader
	buffered *bufio.Reader
	conn     net.Conn
	protocol string
}

func newTalk(conn net.Conn, protocol string) *talk {
	buffered := bufio.NewReader(io.LimitReader(conn, maxGreeting))
	return &talk{textproto.NewReader(buffered), buffered, conn, protocol}
}

func (t *talk) say(line string) error {
	_, err := io.WriteString(t.conn, line+"\r\n")
	return err
}

// end fails if the server has sent more than its consent to TLS. Bytes in the buffer were
// sent in plaintext and would be taken for something that came over TLS (CVE-2011-0411).
func (t *talk) end() error {
	if t.buffered.Buffered() > 0 {
		return errDataBeforeTLS
	}
	return nil
}

// failed returns the error for a failed read: the server refused, it speaks another
// protocol, or the connection failed.
func (t *talk) failed(what string, err error) error {
	if refused, ok := errors.AsType[*textproto.Error](err); ok {
		return fmt.Errorf("reading the %s: %d %s", what, refused.Code, refused.Msg)
	}
	if _, ok := errors.AsType[textproto.ProtocolError](err); ok {
		return t.foreign()
	}
	return fmt.Errorf("reading the %s: %w", what, err)
}

func (t *talk) foreign() error { return errors.New("it does not speak " + t.protocol) }

func (t *talk) withoutTLS(what string) error {
	return fmt.Errorf("it speaks %s, and does not offer %s", t.protocol, what)
}

// greeted reads the greeting of a server whose replies begin with a number. It looks at
// three bytes first: net/textproto would wait for the end of a greeting like "SSH-2.0".
func (t *talk) greeted() error {
	const digits = "0123456789"
	if first, err := t.buffered.Peek(3); err == nil && len(bytes.Trim(first, digits)) > 0 {
		return t.foreign()
	}
	if _, _, err := t.ReadResponse(220); err != nil {
		return t.failed("greeting", err)
	}
	return nil
}

// upgradeSMTP asks for TLS as in RFC 3207 §4.
func upgradeSMTP(conn net.Conn) error {
	t := newTalk(conn, "SMTP")
	if err := t.greeted(); err != nil {
		return err
	}
	for _, ask := range []struct {
		line string
		code int
	}{{"EHLO localhost", 250}, {"STARTTLS", 220}} {
		if err := t.say(ask.line); err != nil {
			return err
		}
		_, message, err := t.ReadResponse(ask.code)
		if err != nil {
			return t.failed("answer to "+ask.line, err)
		}
		if ask.code == 250 && !offersTLS(message) {
			return t.withoutTLS("STARTTLS")
		}
	}
	return t.end()
}

func offersTLS(message string) bool {
	for line := range strings.Lines(message) {
		if strings.EqualFold(strings.TrimSpace(line), "STARTTLS") {
			return true
		}
	}
	return false
}

// upgradeFTP asks for TLS as in RFC 4217 §4. Only the control connection is audited.
func upgradeFTP(conn net.Conn) error {
	t := newTalk(conn, "FTP")
	if err := t.greeted(); err != nil {
		return err
	}
	if err := t.say("AUTH TLS"); err != nil {
		return err
	}
	if _, _, err := t.ReadResponse(234); err != nil {
		return t.failed("answer to AUTH TLS", err)
	}
	return t.end()
}

// upgradeIMAP asks for TLS as in RFC 9051 §6.2.1. Untagged replies begin with "* ".
func upgradeIMAP(conn net.Conn) error {
	return byLine{greeting: "* OK", ask: "a STARTTLS", consent: "a OK", untagged: "* "}.run(newTalk(conn, "IMAP"))
}

// upgradePOP3 asks for TLS as in RFC 2595 §4.
func upgradePOP3(conn net.Conn) error {
	return byLine{greeting: "+OK", ask: "STLS", consent: "+OK"}.run(newTalk(conn, "POP3"))
}

// byLine is the exchange with a server that greets and consents in one line each.
type byLine struct {
	greeting string // the beginning of the first line of the server
	ask      string // the line that asks for TLS
	consent  string // the beginning of the line that consents
	untagged string // the beginning of lines that may come before the consent; "" for none
}

// run asks for TLS, and returns an error if the server does not consent.
func (l byLine) run(t *talk) error {
	line, err := t.ReadLine()
	switch {
	case err != nil:
		return t.failed("greeting", err)
	case !strings.HasPrefix(line, l.greeting):
		return t.foreign()
	}
	if err := t.say(l.ask); err != nil {
		return err
	}
	for {
		line, err := t.ReadLine()
		switch {
		case err != nil:
			return t.failed("answer to "+l.ask, err)
		case strings.HasPrefix(line, l.consent):
			return t.end()
		case l.untagged == "" || !strings.HasPrefix(line, l.untagged):
			return fmt.Errorf("reading the answer to %s: %s", l.ask, line)
		}
	}
}

// startTLS is the StartTLS request of LDAP (RFC 4511 §4.14.1) in BER: message 1, an
// ExtendedRequest [APPLICATION 23] with this requestName.
const startTLS = "\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037"

// upgradeLDAP asks for TLS as in RFC 4511 §4.14. Result code 0 is success.
func upgradeLDAP(conn net.Conn) error {
	if _, err := io.WriteString(conn, startTLS); err != nil {
		return err
	}
	message, err := readBER(conn)
	if err != nil {
		return fmt.Errorf("asking for TLS: %w", err)
	}
	var response, body cryptobyte.String
	var code int
	const extendedResponse = der.Tag(0x78) // [APPLICATION 24]
	whole, err := ber.ToDER(message)
	in := cryptobyte.String(whole)
	if err != nil || !in.ReadASN1(&response, der.SEQUENCE) || !response.SkipASN1(der.INTEGER) ||
		!response.ReadASN1(&body, extendedResponse) || !body.ReadASN1Enum(&code) {
		return errors.New("it does not speak LDAP")
	}
	if code != 0 {
		return fmt.Errorf("it speaks LDAP, and does not offer StartTLS: result code %d", code)
	}
	return nil
}

// readBER reads one SEQUENCE, and nothing behind it. Active Directory writes each length
// in four bytes, which BER allows and DER forbids (X.690 §10.1).
func readBER(conn net.Conn) ([]byte, error) {
	const sequence, longForm = 0x30, 0x80
	message := make([]byte, 2)
	if _, err := io.ReadFull(conn, message); err != nil {
		return nil, err
	}
	size := int(message[1])
	if message[0] != sequence || size > longForm+4 {
		return nil, errors.New("it does not speak LDAP")
	}
	if size >= longForm {
		length := make([]byte, 4)
		long := length[4-(size-longForm):]
		if _, err := io.ReadFull(conn, long); err != nil {
			return nil, err
		}
		message = append(message, long...)
		size = int(min(binary.BigEndian.Uint32(length), maxGreeting+1))
	}
	if size > maxGreeting {
		return nil, errLongGreeting
	}
	content := make([]byte, size)
	_, err := io.ReadFull(conn, content)
	return append(message, content...), err
}

// upgradeMySQL sends the SSLRequest of MySQL and MariaDB (MySQL Internals, "Connection
// Phase") if the greeting offers TLS. Lengths have three bytes, little-endian, and the
// fourth byte of a message is its number.
func upgradeMySQL(conn net.Conn) error {
	const (
		protocol, failure = 10, 0xff

		capableProtocol41, capableSSL, capableSecure = 0x200, 0x800, 0x8000
	)
	head := make([]byte, 4)
	if _, err := io.ReadFull(conn, head); err != nil {
		return fmt.Errorf("reading the greeting: %w", err)
	}
	size := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	if size > maxGreeting || size == 0 || head[3] != 0 {
		return errors.New("it does not speak MySQL")
	}
	greeting := make([]byte, size)
	if _, err := io.ReadFull(conn, greeting); err != nil {
		return fmt.Errorf("reading the greeting: %w", err)
	}
	if greeting[0] == failure && len(greeting) > 3 {
		return fmt.Errorf("reading the greeting: error %d: %s", binary.LittleEndian.Uint16(greeting[1:]), greeting[3:])
	}
	// The version of the server is text that ends with a zero byte. Behind it are the
	// thread id (4 bytes), salt (8), a filler (1) and the capabilities (2).
	_, behind, found := bytes.Cut(greeting[1:], []byte{0})
	if greeting[0] != protocol || !found || len(behind) < 15 {
		return errors.New("it does not speak MySQL")
	}
	if binary.LittleEndian.Uint16(behind[13:])&capableSSL == 0 {
		return errors.New("it speaks MySQL, and does not offer TLS")
	}
	request := make([]byte, 36)
	request[0], request[3] = 32, 1 // length, and the number of the message
	binary.LittleEndian.PutUint32(request[4:], capableProtocol41|capableSSL|capableSecure)
	binary.LittleEndian.PutUint32(request[8:], 1<<24) // the longest message
	request[12] = 45                                  // utf8mb4
	_, err := conn.Write(request)
	return err
}

var errLongGreeting = fmt.Errorf("it sends more than %d KiB before TLS", maxGreeting>>10)
