// Package javastore reads the certificates of JKS and JCEKS, the key stores of Java
// before PKCS #12. They lie there in the clear: a password seals the store and
// encrypts its keys, and neither is looked at. A library for JKS exists; it wants
// the password, knows no JCEKS, and allocates what the lengths in a file say, four
// gigabytes for eight bytes. Here lengths are compared with what there is.
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

// Entry is one of a store.
type Entry struct {
	Alias string
	// Chain has certificates in DER, the one of the key first; of a trusted
	// certificate it has one.
	Chain [][]byte
	// Key says that there is a private or secret key, encrypted with a password of its own.
	Key bool
}

var (
	// ErrDamaged is of a store that ends early or has another form.
	ErrDamaged = errors.New("the key store of Java is damaged")
	// ErrSecret is of a JCEKS with a secret key of another form than the one that
	// OpenJDK writes: where it ends is unknown.
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

// Is reports whether head begins a store.
func Is(head []byte) bool {
	s := cryptobyte.String(head)
	var magic, version uint32
	return s.ReadUint32(&magic) && (magic == magicJKS || magic == magicJCEKS) && s.ReadUint32(&version) && (version == 1 || version == 2)
}

// Read returns the entries, parts of data, up to the first that cannot be read, and
// then why. Its time is linear in the size of data.
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

// long reads bytes behind their length of four bytes.
func (r *reader) long(out *[]byte) bool {
	var n uint32
	return r.ReadUint32(&n) && uint64(n) <= uint64(len(r.String)) && r.ReadBytes(out, int(n))
}

// text is modified UTF-8 (JVM specification §4.4.7): a NUL has two bytes, and
// characters beyond 16 bits have two surrogates, which are none in UTF-8.
func text(b []byte) string {
	return strings.ToValidUTF8(string(bytes.ReplaceAll(b, []byte("\xc0\x80"), []byte{0})), "\ufffd")
}
