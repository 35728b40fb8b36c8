// Package pkcs12 reads stores of PKCS #12 (RFC 7292). The cost of a hostile file is bounded: the
// work of each key derivation is taken from a budget before it is done.
//
// Libraries derive a key with as many iterations as the file says, 2^31 in a file of 77
// bytes. They refuse a store with two keys, and a certificate that crypto/x509 refuses.
// Such stores exist, and an audit shows them as rows.
package pkcs12

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/artstore/artstore-pki/audit/internal/ber"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/secret"
)

const (
	// maxStore bounds a file that has to be held twice, encrypted and not.
	maxStore = 8 << 20
	// maxKeys bounds the keys of one store; parsing one can take milliseconds.
	maxKeys = 100
	// maxDepth bounds bags in bags.
	maxDepth = 4
)

var (
	errBadStore   = errors.New("the PKCS #12 store is damaged")
	errLargeStore = fmt.Errorf("it is larger than %d MiB, too much for a PKCS #12 store", maxStore>>20)
	errManyKeys   = fmt.Errorf("it has more than %d private keys", maxKeys)
	errPassword   = errors.New("the password is wrong")

	// ErrBadKey reports a key, in a store or in any other file, that cannot be parsed.
	ErrBadKey = errors.New("the private key is damaged or of an unsupported kind")
	// ErrLongKey reports a key that is not parsed, because of its length.
	ErrLongKey = fmt.Errorf("the private key has more than the %d bytes of any key in use", pemfile.MaxKey)
)

// Object identifiers, as their dotted text: RFC 7292 §4 and appendix D, RFC 2315 §14.
const (
	oidData          = "1.2.840.113549.1.7.1"
	oidEncryptedData = "1.2.840.113549.1.7.6"
	oidKeyBag        = "1.2.840.113549.1.12.10.1.1"
	oidShroudedBag   = "1.2.840.113549.1.12.10.1.2"
	oidCertBag       = "1.2.840.113549.1.12.10.1.3"
	oidSafeBag       = "1.2.840.113549.1.12.10.1.6"
	oidX509Bag       = "1.2.840.113549.1.9.22.1"
)

var explicit0 = der.Tag(0).Constructed().ContextSpecific()

// Is reports whether head begins as a PFX does: a SEQUENCE whose first member is the
// version, which is 3 (RFC 7292 §4).
func Is(head []byte) bool { return bytes.HasPrefix(ber.InSequence(head), []byte{2, 1, 3, 0x30}) }

// Item is what one bag of a store holds: a certificate, a private key, or neither.
type Item struct {
	// Certificate is in DER. It may be one that crypto/x509 refuses.
	Certificate []byte
	// IsKey is true for a private key, also for one that could not be opened.
	IsKey bool
	// Key is the public half of a private key, or nil if it is unknown. The private key
	// itself is not kept.
	Key crypto.PublicKey
	// Locked is true for a key for which a password had to be given.
	Locked bool
	// Opened is true if a password had to be given for the bag that holds the item.
	Opened bool
	// Err says why the item could not be read.
	Err error
}

// Open reads a store with the first password that opens it; the empty one is always
// tried. A bag that cannot be read is an item with an error: one damaged bag does not
// hide the others.
func Open(data []byte, given []secret.String) ([]Item, error) {
	if len(data) > maxStore {
		return nil, errLargeStore
	}
	data, err := ber.Definite(data)
	if err != nil {
		return nil, err
	}
	s, err := readStore(data)
	if err != nil {
		return nil, err
	}
	tried, best := 0, []Item(nil)
	for _, p := range passwords(given) {
		if p.text != "" {
			tried++
		}
		items, err := s.open(p)
		if errors.Is(err, errPassword) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if s.mac != nil || !s.keyLocked || s.account.over != nil {
			return items, nil //nolint:nilerr // the items say what the end of the account left closed
		}
		// Without a MAC only the padding of each bag tells whether a password fits. This one
		// opened the certificates and not the key; another one may open both.
		best = items
	}
	if best == nil {
		return nil, notOpened(tried)
	}
	return best, nil
}

// notOpened is the error of a store that none of the passwords opens: the empty one, and
// those that were given.
func notOpened(given int) error {
	switch given {
	case 0:
		return errors.New("the empty password does not open it, and no other was given: --password-file")
	case 1:
		return errors.New("neither the empty password nor the one that was given opens it")
	}
	return fmt.Errorf("neither the empty password nor one of the %d that were given opens it", given)
}

// reader is a file before it is opened.
type reader struct {
	// safes is the AuthenticatedSafe (RFC 7292 §4.1), over which the MAC goes.
	safes   cryptobyte.String
	mac     *storeMAC // nil if there is none
	account kdfBudget
	items   []Item
	opened  bool // the bags that are read now needed a password
	keys    int
	// keyLocked is set if the password did not open a key.
	keyLocked bool
}

func readStore(data []byte) (*reader, error) {
	var pfx, content, macData cryptobyte.String
	var version int
	var hasMAC bool
	s := &reader{account: kdfBudget{left: maxIterations}}
	input := cryptobyte.String(data)
	if !input.ReadASN1(&pfx, der.SEQUENCE) || !pfx.ReadASN1Integer(&version) || version != 3 ||
		!readContent(&pfx, oidData, &content) || !content.ReadASN1(&s.safes, der.OCTET_STRING) ||
		!pfx.ReadOptionalASN1(&macData, &hasMAC, der.SEQUENCE) {
		return nil, errBadStore
	}
	if hasMAC {
		if s.mac = readMAC(macData); s.mac == nil {
			return nil, errBadStore
		}
	}
	return s, nil
}

// readContent reads a ContentInfo of one kind (RFC 2315 §7).
func readContent(s *cryptobyte.String, kind string, content *cryptobyte.String) bool {
	var info cryptobyte.String
	var id asn1.ObjectIdentifier
	return s.ReadASN1(&info, der.SEQUENCE) && info.ReadASN1ObjectIdentifier(&id) && id.String() == kind &&
		info.ReadASN1(content, explicit0)
}

// open reads everything with one password. The error is errPassword, or says why the
// store could not be read to its end. What an earlier password yielded is dropped.
func (s *reader) open(p password) ([]Item, error) {
	s.items, s.keys, s.keyLocked = nil, 0, false
	if s.mac != nil {
		if err := s.mac.verify(s.safes, p, &s.account); err != nil {
			return nil, err
		}
	}
	var safes cryptobyte.String
	all, err := ber.Definite(s.safes)
	if whole := cryptobyte.String(all); err != nil || !whole.ReadASN1(&safes, der.SEQUENCE) {
		return nil, errBadStore
	}
	for !safes.Empty() {
		s.opened = false
		content, err := s.decrypt(&safes, p)
		if err == nil {
			content, err = ber.Definite(content)
		}
		if err == nil {
			err = s.bags(content, p, maxDepth)
		}
		if err != nil {
			return nil, err
		}
	}
	return s.items, nil
}

// decrypt reads the next safe: data or data encrypted with a password (RFC 7292 §4.1).
func (s *reader) decrypt(safes *cryptobyte.String, p password) (content cryptobyte.String, err error) {
	plain := *safes
	var bytes, encrypted, info, text cryptobyte.String
	if readContent(&plain, oidData, &bytes) && bytes.ReadASN1(&content, der.OCTET_STRING) {
		*safes = plain
		return content, nil
	}
	var version int
	var id asn1.ObjectIdentifier
	if !readContent(safes, oidEncryptedData, &bytes) || !bytes.ReadASN1(&encrypted, der.SEQUENCE) ||
		!encrypted.ReadASN1Integer(&version) || !encrypted.ReadASN1(&info, der.SEQUENCE) || !info.ReadASN1ObjectIdentifier(&id) {
		return nil, errBadStore // or encrypted with a public key, which no program writes
	}
	how, ok := readAlgorithm(&info)
	if !ok || !readPieces(&info, der.Tag(0).ContextSpecific(), &text) {
		return nil, errBadStore
	}
	s.opened = p.text != ""
	return how.decrypt(text, p, &s.account)
}

// readPieces reads an OCTET STRING behind an implicit tag, in one piece or in several.
// A store that was streamed has several; package ber cannot join them, because the tag
// hides the type.
func readPieces(s *cryptobyte.String, tag der.Tag, out *cryptobyte.String) bool {
	if !s.PeekASN1Tag(tag.Constructed()) {
		return s.ReadASN1(out, tag)
	}
	var all, piece cryptobyte.String
	ok := s.ReadASN1(&all, tag.Constructed())
	for ok && !all.Empty() {
		ok = all.ReadASN1(&piece, der.OCTET_STRING)
		*out = append(*out, piece...)
	}
	return ok
}

// bags reads SafeContents (RFC 7292 §4.2). It skips bags with neither a certificate nor a key.
func (s *reader) bags(content cryptobyte.String, p password, depth int) error {
	var bags cryptobyte.String
	if !content.ReadASN1(&bags, der.SEQUENCE) {
		return errPassword // decrypted to something else, or damaged without a MAC to tell
	}
	for !bags.Empty() {
		var bag, value cryptobyte.String
		var id asn1.ObjectIdentifier
		if !bags.ReadASN1(&bag, der.SEQUENCE) || !bag.ReadASN1ObjectIdentifier(&id) || !bag.ReadASN1(&value, explicit0) {
			return errBadStore
		}
		switch kind := id.String(); {
		case kind == oidCertBag:
			s.certificate(value)
		case kind == oidKeyBag:
			s.key(value, s.opened)
		case kind == oidShroudedBag:
			s.shrouded(value, p)
		case kind == oidSafeBag && depth > 0:
			if err := s.bags(value, p, depth-1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *reader) add(item Item) {
	item.Opened = item.Opened || s.opened
	s.items = append(s.items, item)
}

func (s *reader) certificate(value cryptobyte.String) {
	var bag, wrapped, cert cryptobyte.String
	var id asn1.ObjectIdentifier
	if !value.ReadASN1(&bag, der.SEQUENCE) || !bag.ReadASN1ObjectIdentifier(&id) || id.String() != oidX509Bag ||
		!bag.ReadASN1(&wrapped, explicit0) || !wrapped.ReadASN1(&cert, der.OCTET_STRING) {
		s.add(Item{})
		return
	}
	s.add(Item{Certificate: bytes.Clone(cert)})
}

// shrouded reads a PKCS8ShroudedKeyBag (RFC 7292 §4.2.2). Its password may differ from
// that of the store, but programs use one for both.
func (s *reader) shrouded(value cryptobyte.String, p password) {
	var info, text cryptobyte.String
	if !value.ReadASN1(&info, der.SEQUENCE) {
		s.add(Item{IsKey: true, Err: ErrBadKey})
		return
	}
	how, ok := readAlgorithm(&info)
	if !ok || !info.ReadASN1(&text, der.OCTET_STRING) {
		s.add(Item{IsKey: true, Err: ErrBadKey})
		return
	}
	if s.keys >= maxKeys || s.account.over != nil {
		s.key(nil, s.opened)
		return
	}
	plain, err := how.decrypt(text, p, &s.account)
	switch {
	case errors.Is(err, errPassword):
		s.keyLocked = true
		s.add(Item{IsKey: true, Locked: true}) // a key all the same; it just cannot be compared
	case err != nil:
		s.add(Item{IsKey: true, Err: err})
	default:
		s.key(plain, s.opened || p.text != "")
	}
}

// key adds the public half of a private key. The errors of crypto/x509 are not passed
// on, because they may quote the key.
func (s *reader) key(pkcs8 []byte, opened bool) {
	// The item that exceeded the budget has the error already.
	if s.account.over != nil {
		return
	}
	if s.keys++; s.keys > maxKeys {
		if s.keys == maxKeys+1 {
			s.add(Item{Err: errManyKeys})
		}
		return
	}
	if len(pkcs8) > pemfile.MaxKey {
		s.add(Item{IsKey: true, Err: ErrLongKey})
		return
	}
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		s.add(Item{IsKey: true, Err: ErrBadKey}) // the error of the parser may quote the key
		return
	}
	s.add(Item{IsKey: true, Key: signer.Public(), Locked: opened, Opened: opened})
}
