// Package tlsread reads which certificates a TLS server sends, also where
// crypto/tls ends the handshake before it hands them out: old versions, key
// exchange by RSA, keys and certificates that it does not take.
//
//	answer, err := tlsread.Ask(conn, tlsread.Offer{ServerName: "storage", Newest: tls.VersionTLS12})
//
// A certificate is public: up to TLS 1.2 a server sends it in the clear, and in
// TLS 1.3 under keys that anybody who asks agrees on with the server (RFC 9846
// §4.5.1). So the package completes no handshake, proves nothing, and the
// caller must not trust what it returns.
//
// Work is bounded before anything is verified: a server is read for 512 KiB at
// most, a message may have 256 KiB, and a message is parsed once when it is whole.
package tlsread

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// Answer is what a server sent. After an error it holds what came before.
type Answer struct {
	Version      uint16   // that the server chose; 0 if it did not come to that
	Suite        uint16   // of ciphers, as IANA numbers them
	Certificates [][]byte // DER, in the order in which they were sent; none of them parsed
}

var (
	// ErrNotTLS says that the bytes are those of another protocol.
	ErrNotTLS = errors.New("it does not speak TLS")
	// ErrNoCertificate says that the server went on without a certificate.
	ErrNoCertificate = errors.New("it showed no certificate")

	errMalformed = errors.New("a message of the handshake is malformed")
	errTooMuch   = fmt.Errorf("it sends more than %d KiB in place of its certificates", maxAnswer>>10)
)

// Alert is the refusal of a server, or its farewell.
type Alert uint8

func (a Alert) Error() string { return "remote error: " + tls.AlertError(a).Error() }

// Ask sends a ClientHello with the offer and reads the answer up to the
// certificates. The caller bounds the time and closes the connection: nothing can
// follow on it.
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

// Replay reads what a server sent to crypto/tls. keyLog is what that wrote to
// tls.Config.KeyLogWriter meanwhile; for versions before TLS 1.3 it may be empty.
func Replay(sent, keyLog []byte) (Answer, error) {
	return read(bytes.NewReader(sent), func(*serverHello, []byte) ([]byte, error) { return logged(keyLog) })
}

// logged finds the secret that protects the handshake messages of the server
// (RFC 9846 §7.1) in the format that NSS began.
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

// read follows an answer as far as the certificates. secret gives the secret of
// a TLS 1.3 handshake from the ServerHello, whose whole message it also gets.
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
			if hello.retry { // crypto/tls has sent another hello
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
