// Package javastore reads the certificates of JKS and JCEKS, the key stores of Java before
// PKCS #12. The certificates are not encrypted: a password protects the integrity of the
// store and encrypts its keys, and this package reads neither. A library for JKS exists,
// but it needs the password, does not read JCEKS, and allocates as much as a length in the
// file says, four gigabytes for eight bytes. Here each length is compared with the input.
//
// The form is that of engineLoad in sun.security.provider.JavaKeyStore and
// com.sun.crypto.provider.JceKeyStore of OpenJDK; numbers are big-endian.
package javastore

import (
	"bytes"
	"errors"
	"strings"

	"golang.org/x/crypto/cryptobyte"
)

// Entry is one entry of a store.
type Entry struct {
	Alias string
	// Chain has certificates in DER, that of the key first. The entry of a trusted
	// certificate has one.
	Chain [][]byte
	// Key is set if the entry has a private or secret key. It is encrypted.
	Key bool
}

var (
	// ErrDamaged reports a store that ends early or has another form.
	ErrDamaged = errors.New("the key store of Java is damaged")
	// ErrSecret reports a JCEKS with a secret key of another form than OpenJDK writes. Its
	// end is unknown, so the rest of the store cannot be read.
	ErrSecret = errors.New("the key store of Java has a secret key, and what is behind it was not read; " +
		"keytool -importkeystore -srckeystore FILE -destkeystore OUT.p12 -deststoretype PKCS12 writes a store that is read in full")
)

const (
	magicJKS   = 0xfeedfeed
	magicJCEKS = 0xcececece

	entryKey     = 1
	entryTrusted = 2
	entrySecret  = 3

	sealBytes = 20 // SHA-1 over the store and its password, at the end
)

// Is reports whether a file that begins with head is a store.
func Is(head []byte) bool {
	s := cryptobyte.String(head)
	var magic, version uint32
	return s.ReadUint32(&magic) && (magic == magicJKS || magic == magicJCEKS) && s.ReadUint32(&version) && (version == 1 || version == 2)
}

// Read returns the entries up to the first one that cannot be read, and the error of that
// one. The entries are parts of data. The time is linear in the size of data.
func Read(data []byte) (entries []Entry, err error) {
	if !Is(data) {
		return nil, ErrDamaged
	}
	r := reader{version: data[7]}
	r.String = data[8:]
	var count uint32
	if !r.ReadUint32(&count) {
		return nil, ErrDamaged
	}
	for range count {
		e, err := r.entry()
		if err != nil {
			return entries, err
		}
		entries = append(entries, e)
	}
	if len(r.String) != sealBytes {
		return entries, ErrDamaged
	}
	return entries, nil
}

type reader struct {
	cryptobyte.String
	version byte
}

func (r *reader) entry() (e Entry, err error) {
	var tag uint32
	var alias cryptobyte.String
	if !r.ReadUint32(&tag) || !r.ReadUint16LengthPrefixed(&alias) || !r.Skip(8) { // the time at which it was made
		return e, ErrDamaged
	}
	e.Alias, e.Key = text(alias), tag != entryTrusted
	count, ok := uint32(1), true
	switch tag {
	case entryKey:
		var key []byte
		ok = r.long(&key) && r.ReadUint32(&count)
	case entryTrusted:
	case entrySecret:
		count = 0
		if !r.sealed() {
			return e, ErrSecret
		}
	default:
		return e, ErrDamaged
	}
	for range count {
		cert, fine := r.certificate()
		if !ok || !fine {
			return e, ErrDamaged
		}
		e.Chain = append(e.Chain, cert)
	}
	if !ok {
		return e, ErrDamaged
	}
	return e, nil
}

func (r *reader) certificate() (cert []byte, ok bool) {
	var kind cryptobyte.String // X.509; there has never been another one
	if r.version > 1 && !r.ReadUint16LengthPrefixed(&kind) {
		return nil, false
	}
	ok = r.long(&cert)
	return cert, ok
}

// long reads a length of four bytes, and that many bytes.
func (r *reader) long(out *[]byte) bool {
	var n uint32
	return r.ReadUint32(&n) && uint64(n) <= uint64(len(r.String)) && r.ReadBytes(out, int(n))
}

// text reads modified UTF-8 (JVM specification §4.4.7): a NUL has two bytes, and a character
// beyond 16 bits is a pair of surrogates, which UTF-8 does not allow.
func text(b []byte) string {
	return strings.ToValidUTF8(string(bytes.ReplaceAll(b, []byte("\xc0\x80"), []byte{0})), "\ufffd")
}
