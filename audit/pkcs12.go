package audit

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/artstore/artstore-pki/internal/pemfile"
)

// PKCS #12 (RFC 7292) is read here, not with a library: those that exist derive
// keys as often as the file says, 2^31 times in 77 bytes, and take neither a store
// with two keys nor a certificate that crypto/x509 refuses. Whatever a file asks
// for is on account before it is done.

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
	errIndefinite = errors.New("it is PKCS #12 in BER; openssl pkcs12 -in FILE -nodes -out OUT and -export write it anew in DER")
	errManyKeys   = fmt.Errorf("it has more than %d private keys", maxKeys)
	errPassword   = errors.New("the password is wrong")
)

// Object identifiers, as their dotted text: RFC 7292 section 4 and appendix D, RFC 2315 section 14.
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

// isPKCS12 looks for a SEQUENCE that begins with the version, 3.
func isPKCS12(head []byte) bool { return bytes.HasPrefix(inSequence(head), []byte{2, 1, 3, 0x30}) }

// inSequence is what follows the header of a SEQUENCE, of which only the beginning need be there.
func inSequence(head []byte) []byte {
	if len(head) < 2 || head[0] != 0x30 {
		return nil
	}
	length := 0
	if head[1] > 0x80 {
		length = int(head[1] & 0x7f)
	}
	return head[min(len(head), 2+length):]
}

func parsePKCS12(data []byte, with *opening) []parsed {
	switch {
	case len(data) > maxStore:
		return []parsed{{err: errLargeStore}}
	case data[1] == 0x80:
		return []parsed{{err: errIndefinite}}
	}
	s, err := readStore(data)
	if err != nil {
		return []parsed{{err: err}}
	}
	s.with = with
	tried, best := 0, []parsed(nil)
	for _, p := range passwords(with.passwords) {
		if p.text != "" {
			tried++
		}
		parts, err := s.open(p)
		if errors.Is(err, errPassword) {
			continue
		}
		if err != nil {
			return []parsed{{err: err}}
		}
		if s.mac != nil || !s.shut || s.account.over != nil {
			return parts
		}
		best = parts // the certificates; without a MAC another password may open the key
	}
	if best != nil {
		return best
	}
	return []parsed{{err: fmt.Errorf("neither the empty password nor one of the %d that were given opens it", tried)}}
}

// store is a file before it is opened.
type store struct {
	with    *opening
	safes   cryptobyte.String // AuthenticatedSafe
	mac     *storeMAC         // nil if there is none
	account account
	parts   []parsed
	in      *within
	keys    int
	shut    bool // a key did not open
}

func readStore(data []byte) (*store, error) {
	var pfx, content, macData cryptobyte.String
	var version int
	var hasMAC bool
	s := &store{account: account{left: maxIterations}}
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

// readContent reads a ContentInfo of one kind (RFC 2315 section 7).
func readContent(s *cryptobyte.String, kind string, content *cryptobyte.String) bool {
	var info cryptobyte.String
	var id asn1.ObjectIdentifier
	return s.ReadASN1(&info, der.SEQUENCE) && info.ReadASN1ObjectIdentifier(&id) && id.String() == kind &&
		info.ReadASN1(content, explicit0)
}

// open reads everything with one password. The error is errPassword, or why the
// store could not be read to the end.
func (s *store) open(p password) ([]parsed, error) {
	s.parts, s.keys, s.shut, s.in = nil, 0, false, &within{loose: true, locked: p.text != ""}
	if s.mac != nil {
		if err := s.mac.verify(s.safes, p, &s.account); err != nil {
			return nil, err
		}
	}
	var safes cryptobyte.String
	all := s.safes
	if !all.ReadASN1(&safes, der.SEQUENCE) {
		return nil, errBadStore
	}
	for !safes.Empty() {
		content, err := s.decrypt(&safes, p)
		if err == nil {
			err = s.bags(content, p, maxDepth)
		}
		if err != nil {
			return nil, err
		}
	}
	for i := range s.parts {
		s.parts[i].block = i + 1
	}
	return s.parts, nil
}

// decrypt reads one of the safes, encrypted or not.
func (s *store) decrypt(safes *cryptobyte.String, p password) (content cryptobyte.String, err error) {
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
		return nil, errBadStore // or encrypted with a public key, which nobody does
	}
	how, ok := readAlgorithm(&info)
	if !ok || !info.ReadASN1(&text, der.Tag(0).ContextSpecific()) {
		return nil, errBadStore
	}
	return how.decrypt(text, p, &s.account)
}

// bags reads SafeContents (RFC 7292 section 4.2). What is neither certificate nor
// key is passed over.
func (s *store) bags(content cryptobyte.String, p password, depth int) error {
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
			s.key(value)
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

func (s *store) add(p parsed) {
	p.in = s.in
	s.parts = append(s.parts, p)
}

func (s *store) certificate(value cryptobyte.String) {
	var bag, wrapped, cert cryptobyte.String
	var id asn1.ObjectIdentifier
	if !value.ReadASN1(&bag, der.SEQUENCE) || !bag.ReadASN1ObjectIdentifier(&id) || id.String() != oidX509Bag ||
		!bag.ReadASN1(&wrapped, explicit0) || !wrapped.ReadASN1(&cert, der.OCTET_STRING) {
		s.add(parsed{err: errNeither})
		return
	}
	c, err := s.with.certificate(bytes.Clone(cert))
	s.add(parsed{cert: c, err: err})
}

// shrouded is a key under a password of its own, which is in practice the same.
func (s *store) shrouded(value cryptobyte.String, p password) {
	var info, text cryptobyte.String
	if !value.ReadASN1(&info, der.SEQUENCE) {
		s.add(parsed{isKey: true, err: errBadKey})
		return
	}
	how, ok := readAlgorithm(&info)
	if !ok || !info.ReadASN1(&text, der.OCTET_STRING) {
		s.add(parsed{isKey: true, err: errBadKey})
		return
	}
	if s.keys >= maxKeys || s.account.over != nil {
		s.key(nil)
		return
	}
	plain, err := how.decrypt(text, p, &s.account)
	switch {
	case errors.Is(err, errPassword):
		s.shut = true
		s.add(parsed{isKey: true}) // a key all the same; it just cannot be compared
	case err != nil:
		s.add(parsed{isKey: true, err: err})
	default:
		s.key(plain)
	}
}

// key keeps the public half.
func (s *store) key(pkcs8 []byte) {
	if s.account.over != nil { // and there is a row for that
		return
	}
	if s.keys++; s.keys > maxKeys {
		if s.keys == maxKeys+1 {
			s.add(parsed{err: errManyKeys})
		}
		return
	}
	if len(pkcs8) > pemfile.MaxKey {
		s.add(parsed{isKey: true, err: errLongKey})
		return
	}
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		s.add(parsed{isKey: true, err: errBadKey}) // what is wrong with it may quote it
		return
	}
	s.add(parsed{isKey: true, key: signer.Public()})
}
