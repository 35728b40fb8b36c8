package tlsread

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	_ "crypto/sha256" // for crypto.SHA256
	_ "crypto/sha512" // for crypto.SHA384
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/cryptobyte"
)

const (
	// maxAnswer bounds what is read of one server, in bytes.
	maxAnswer = 512 << 10
	// maxMessage bounds a handshake message, in bytes, as crypto/tls bounds a Certificate.
	maxMessage = 256 << 10
	// maxRecord is the longest fragment of any version (RFC 5246 §6.2.3).
	maxRecord = 16<<10 + 2048

	recordHeader = 5
	headerSize   = 4 // of a handshake message
)

// Types of records (RFC 9846 §5.1).
const (
	recordCCS       = 20
	recordAlert     = 21
	recordHandshake = 22
	recordData      = 23
)

// stream reads handshake messages from records.
type stream struct {
	from    io.Reader // ends after maxAnswer
	taken   int       // bytes that were read
	pending []byte    // of messages that were not returned yet

	aead cipher.AEAD // of TLS 1.3; nil while records are in plaintext
	iv   []byte
	seq  uint64 // of the next protected record (RFC 9846 §5.3)
}

// message returns the next handshake message with its header.
func (s *stream) message() ([]byte, error) {
	for {
		if len(s.pending) >= headerSize {
			size := int(binary.BigEndian.Uint32(s.pending) & 0xff_ffff)
			if size > maxMessage {
				return nil, fmt.Errorf("it sends a handshake message of %d bytes, and no more than %d KiB are read of one", size, maxMessage>>10)
			}
			if end := headerSize + size; len(s.pending) >= end {
				out := s.pending[:end:end]
				s.pending = s.pending[end:]
				return out, nil
			}
		}
		if err := s.record(); err != nil {
			return nil, err
		}
	}
}

// record reads the next record, and appends its handshake messages to pending. An alert is an
// error.
func (s *stream) record() error {
	var header [recordHeader]byte
	if err := s.full(header[:]); err != nil {
		return err
	}
	kind, size := header[0], int(binary.BigEndian.Uint16(header[3:]))
	if kind < recordCCS || kind > recordData || header[1] != 3 || size > maxRecord {
		return ErrNotTLS
	}
	body := make([]byte, size)
	if err := s.full(body); err != nil {
		return err
	}
	if kind == recordData && s.aead != nil {
		var err error
		if kind, body, err = s.open(header[:], body); err != nil {
			return err
		}
	} else if kind == recordHandshake && s.aead != nil {
		return errMalformed // RFC 9846 §5: handshake messages are protected from here on
	}
	switch kind {
	case recordHandshake:
		s.pending = append(s.pending, body...)
		return nil
	case recordCCS: // of the compatibility mode of TLS 1.3 (RFC 9846 §5)
		return nil
	case recordAlert:
		if len(body) != 2 {
			return errMalformed
		}
		const warning, unrecognizedName = 1, 112 // RFC 6066 §3: the server continues
		if body[0] == warning && body[1] == unrecognizedName {
			return nil
		}
		return Alert(body[1])
	}
	return errMalformed
}

// full fills b. It returns errTooMuch if maxAnswer is reached.
func (s *stream) full(b []byte) error {
	n, err := io.ReadFull(s.from, b)
	s.taken += n
	if err != nil && s.taken >= maxAnswer {
		return errTooMuch
	}
	return err
}

// protect decrypts all records from here on with the keys of a traffic secret
// (RFC 9846 §7.3). Suites that were not offered are an error.
func (s *stream) protect(suite uint16, secret []byte) error {
	if len(s.pending) > 0 {
		return errMalformed // RFC 9846 §5.1: a message must not span a change of keys
	}
	keySize := 32
	if suite == tls.TLS_AES_128_GCM_SHA256 {
		keySize = 16
	}
	traffic := keySecret{hashOf(suite), secret}
	key, err := traffic.expand("key", nil, keySize)
	if err != nil {
		return err
	}
	switch suite {
	case tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384:
		var block cipher.Block
		if block, err = aes.NewCipher(key); err == nil {
			s.aead, err = cipher.NewGCM(block)
		}
	case tls.TLS_CHACHA20_POLY1305_SHA256:
		s.aead, err = chacha20poly1305.New(key)
	default:
		err = fmt.Errorf("it chose the cipher suite %s, which was not offered", tls.CipherSuiteName(suite))
	}
	if err != nil {
		return err
	}
	s.iv, err = traffic.expand("iv", nil, s.aead.NonceSize())
	return err
}

// open decrypts a record, and returns its type and content without the padding (RFC 9846
// §5.2, §5.4).
func (s *stream) open(header, body []byte) (kind byte, plain []byte, err error) {
	nonce := make([]byte, len(s.iv))
	binary.BigEndian.PutUint64(nonce[len(nonce)-8:], s.seq)
	for i := range nonce {
		nonce[i] ^= s.iv[i]
	}
	s.seq++
	plain, err = s.aead.Open(body[:0], nonce, body, header)
	if err != nil {
		return 0, nil, errors.New("a record of the handshake cannot be decrypted")
	}
	for i := len(plain) - 1; i >= 0; i-- { // zeros behind the type are padding
		if plain[i] != 0 {
			return plain[i], plain[:i], nil
		}
	}
	return 0, nil, errMalformed
}

// hashOf returns the hash of a TLS 1.3 suite (RFC 9846 appendix B.4).
func hashOf(suite uint16) crypto.Hash {
	if suite == tls.TLS_AES_256_GCM_SHA384 {
		return crypto.SHA384
	}
	return crypto.SHA256
}

// keySecret is a secret of the key schedule of TLS 1.3, with the hash of the cipher suite.
type keySecret struct {
	hash  crypto.Hash
	value []byte
}

// expand is HKDF-Expand-Label (RFC 9846 §7.1). It returns size bytes.
func (k keySecret) expand(label string, context []byte, size int) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddUint16(uint16(size)) //nolint:gosec // G115: the length of a key or a hash
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte("tls13 " + label)) })
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(context) })
	info, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	return hkdf.Expand(k.hash.New, k.value, string(info), size)
}
