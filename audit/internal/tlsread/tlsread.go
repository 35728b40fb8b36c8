// Package tlsread reads the certificates that a TLS server sends, also if the handshake fails
// with crypto/tls: with old versions, with a key exchange by RSA, and with keys and
// certificates that crypto/tls refuses.
//
//	answer, err := tlsread.Ask(conn, tlsread.Offer{ServerName: "storage", Newest: tls.VersionTLS12})
//
// A certificate is public: up to TLS 1.2 a server sends it in plaintext, and in TLS 1.3 it is
// encrypted with keys that any client agrees on with the server (RFC 9846 §4.5.1).
// Therefore the package completes no handshake and proves nothing, and the caller must not
// trust the certificates.
//
// Invariants:
//
//   - Each version, suite and group of crypto/tls is read (TestAsk, TestSuites), and the
//     certificate of each family of keys can be asked for (TestFamilies).
//   - Bytes that crypto/tls has read give the same certificates (TestReplay).
//   - Whatever a server sends, the result is certificates or an error, and no panic
//     (FuzzAsk, FuzzReplay). 512 KiB of a server are read at most, and 256 KiB of one
//     message (TestHostileServers).
package tlsread

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// Answer is the answer of a server. After an error it has what was read before.
type Answer struct {
	Version      uint16   // chosen by the server; 0 if there was no ServerHello
	Suite        uint16   // the cipher suite, by its number at IANA
	Certificates [][]byte // in the order in which they were sent; they are not parsed
}

var (
	// ErrNotTLS says that the bytes are those of another protocol.
	ErrNotTLS = errors.New("it does not speak TLS")
	// ErrNoCertificate says that the server went on without a certificate.
	ErrNoCertificate = errors.New("it showed no certificate")

	errMalformed = errors.New("a message of the handshake is malformed")
	errTooMuch   = fmt.Errorf("it sends more than %d KiB in place of its certificates", maxAnswer>>10)
)

// Alert is an alert that a server sent in place of its certificates (RFC 9846 §6).
type Alert uint8

// Error returns the text that crypto/tls has for the alert.
func (a Alert) Error() string { return "remote error: " + tls.AlertError(a).Error() }

// Ask sends a ClientHello with the offer, and reads the answer up to the certificates. The
// caller must bound the time, and close the connection afterwards.
func Ask(conn io.ReadWriter, offer Offer) (Answer, error) {
	hello, err := newHello(offer)
	if err != nil {
		return Answer{}, err
	}
	if _, err := conn.Write(hello.record()); err != nil {
		return Answer{}, err
	}
	return read(conn, hello.secret)
}

// Replay reads bytes that a server has sent to crypto/tls. keyLog is what crypto/tls wrote to
// tls.Config.KeyLogWriter; before TLS 1.3 it may be empty.
func Replay(sent, keyLog []byte) (Answer, error) {
	return read(bytes.NewReader(sent), func(*serverHello, []byte) ([]byte, error) { return logged(keyLog) })
}

// logged returns the secret that protects the handshake messages of the server (RFC 9846
// §7.1) from a key log in the format of NSS.
func logged(keyLog []byte) ([]byte, error) {
	for line := range bytes.Lines(keyLog) {
		fields := bytes.Fields(line)
		if len(fields) == 3 && string(fields[0]) == "SERVER_HANDSHAKE_TRAFFIC_SECRET" {
			return hex.DecodeString(string(fields[2]))
		}
	}
	return nil, errors.New("the secret of the handshake is not known")
}

// Types of handshake messages (RFC 9846 §4, RFC 5246 §7.4).
const (
	typeServerHello         = 2
	typeEncryptedExtensions = 8
	typeCertificate         = 11
	typeCertificateRequest  = 13
)

// read reads an answer up to the certificates. secret returns the secret of a TLS 1.3
// handshake for a ServerHello, which it gets parsed and as a whole message.
func read(from io.Reader, secret func(hello *serverHello, message []byte) ([]byte, error)) (a Answer, err error) {
	s := &stream{from: io.LimitReader(from, maxAnswer)}
	for {
		message, err := s.message()
		if err != nil {
			return a, err
		}
		kind, body := message[0], message[headerSize:]
		switch {
		case kind == typeServerHello && a.Version == 0:
			hello, ok := parseServerHello(body)
			if !ok {
				return a, errMalformed
			}
			if hello.version < tls.VersionTLS13 {
				a.Version, a.Suite = hello.version, hello.suite
				continue
			}
			key, err := secret(hello, message)
			if err != nil {
				return a, err
			}
			if hello.retry { // in a replay: crypto/tls has sent a second hello
				continue
			}
			a.Version, a.Suite = hello.version, hello.suite
			if err := s.protect(a.Suite, key); err != nil {
				return a, err
			}
		case a.Version == 0:
			return a, errMalformed
		case kind == typeCertificate:
			var ok bool
			if a.Certificates, ok = parseCertificates(body, a.Version); !ok {
				return a, errMalformed
			}
			if len(a.Certificates) == 0 {
				return a, ErrNoCertificate
			}
			return a, nil
		case a.Version >= tls.VersionTLS13 && (kind == typeEncryptedExtensions || kind == typeCertificateRequest):
		default: // a key exchange without a certificate, or the end of a resumed handshake
			return a, ErrNoCertificate
		}
	}
}
