package pkcs12

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des" //nolint:gosec // G502: to read what others encrypted with it
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // G505: as above
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"hash"
	"unicode/utf16"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/artstore/artstore-pki/audit/internal/ber"
	"github.com/artstore/artstore-pki/audit/internal/rc2"
	"github.com/artstore/artstore-pki/secret"
)

// maxIterations bounds the hash iterations that one file may cost, over all passwords
// that are tried and everything that is encrypted in it. That is about a second of one
// processor. For each derivation OpenSSL and Windows write 2 000 iterations, Java
// 10 000, NSS and GnuTLS up to 600 000 (for the MAC, for the certificates and for the
// key).
const maxIterations = 4_000_000

// kdfBudget counts down the hash iterations that a file may still cost. There is one
// for each file, so that trying more passwords does not raise the limit.
type kdfBudget struct {
	// left is a number of iterations.
	left int
	// over is the error of the first derivation that was refused. It stays set, so that
	// a file that exceeded its budget costs nothing more.
	over error
}

// spend takes a derivation off the budget before it is done. Each of the blocks of
// output costs all iterations again. The division cannot overflow, as the product of
// two numbers from a file could.
func (a *kdfBudget) spend(iterations, blocks int) error {
	if iterations < 1 {
		return errBadStore
	}
	if a.over == nil && iterations > a.left/blocks {
		a.over = fmt.Errorf("a password is hashed %d times over: more than %d times for one file is not done", iterations, maxIterations)
	}
	if a.over != nil {
		return a.over
	}
	a.left -= iterations * blocks
	return nil
}

// password is one way to write a password. RFC 7292 appendix B.1 wants UTF-16 with two
// zero bytes behind it. For the empty password some programs write these two zero
// bytes and others write nothing at all, so both are tried.
type password struct {
	text    string
	nothing bool
}

// passwords returns the passwords to try, in order: the given ones first. The empty
// password costs as many iterations as any other and is seldom the right one where
// others are known.
func passwords(given []secret.String) (out []password) {
	for _, p := range given {
		out = append(out, password{text: p.Expose()})
	}
	return append(out, password{}, password{nothing: true})
}

// utf16 returns the password as a BMPString with a terminator (RFC 7292 appendix B.1).
func (p password) utf16() (out []byte) {
	if p.nothing {
		return nil
	}
	for _, unit := range utf16.Encode([]rune(p.text)) {
		out = binary.BigEndian.AppendUint16(out, unit)
	}
	return append(out, 0, 0)
}

// algorithm is an AlgorithmIdentifier, its parameters not read yet.
type algorithm struct {
	id     string
	params cryptobyte.String
}

func readAlgorithm(s *cryptobyte.String) (a algorithm, ok bool) {
	var id asn1.ObjectIdentifier
	var body cryptobyte.String
	if !s.ReadASN1(&body, der.SEQUENCE) || !body.ReadASN1ObjectIdentifier(&id) {
		return a, false
	}
	return algorithm{id.String(), body}, true
}

// Object identifiers of RFC 7292 appendix C and RFC 8018 appendices A to C.
const (
	oidPBE3DES  = "1.2.840.113549.1.12.1.3"
	oidPBERC2   = "1.2.840.113549.1.12.1.5"
	oidPBERC240 = "1.2.840.113549.1.12.1.6"
	oidPBKDF2   = "1.2.840.113549.1.5.12"
	oidPBES2    = "1.2.840.113549.1.5.13"
	oidPBMAC1   = "1.2.840.113549.1.5.14"
	oid3DES     = "1.2.840.113549.3.7"
)

// hashes has each hash under two identifiers: its own (a MAC of RFC 7292 names that) and
// the one of HMAC with it (PBKDF2 and PBMAC1 name that: RFC 8018 appendix B.1).
var hashes = map[string]func() hash.Hash{
	"1.3.14.3.2.26": sha1.New, "1.2.840.113549.2.7": sha1.New,
	"2.16.840.1.101.3.4.2.4": sha256.New224, "1.2.840.113549.2.8": sha256.New224,
	"2.16.840.1.101.3.4.2.1": sha256.New, "1.2.840.113549.2.9": sha256.New,
	"2.16.840.1.101.3.4.2.2": sha512.New384, "1.2.840.113549.2.10": sha512.New384,
	"2.16.840.1.101.3.4.2.3": sha512.New, "1.2.840.113549.2.11": sha512.New,
}

func newRC2(key []byte) (cipher.Block, error) { return rc2.New(key) }

// ciphers has the block ciphers, each in CBC mode, with the length of its key in bytes.
// The schemes of RFC 7292 appendix C are listed by the identifier of the whole scheme.
var ciphers = map[string]struct {
	key  int
	make func([]byte) (cipher.Block, error)
}{
	oidPBE3DES: {24, des.NewTripleDESCipher}, oidPBERC2: {16, newRC2}, oidPBERC240: {5, newRC2},
	oid3DES:                  {24, des.NewTripleDESCipher},
	"2.16.840.1.101.3.4.1.2": {16, aes.NewCipher}, "2.16.840.1.101.3.4.1.22": {24, aes.NewCipher}, "2.16.840.1.101.3.4.1.42": {32, aes.NewCipher},
}

func unsupported(id string) error { return fmt.Errorf("the algorithm %s is not supported", id) }

// decrypt returns the SEQUENCE that was encrypted with a password. The padding (RFC 8018
// §6.1.1) does not prove that the password is right: with a wrong one it fits in one
// case of 256. Therefore the plaintext must also be exactly one SEQUENCE.
func (a algorithm) decrypt(text []byte, p password, on *kdfBudget) ([]byte, error) {
	key, iv, id, err := a.deriveKey(p, on)
	if err != nil {
		return nil, err
	}
	c, known := ciphers[id]
	if !known {
		return nil, unsupported(id)
	}
	block, err := c.make(key)
	if err != nil {
		return nil, err
	}
	size := block.BlockSize()
	if len(iv) != size || len(text) == 0 || len(text)%size != 0 {
		return nil, errBadStore
	}
	plain := make([]byte, len(text))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, text)
	last := plain[len(plain)-1:]
	pad := int(last[0])
	if pad == 0 || pad > size || !bytes.Equal(plain[len(plain)-pad:], bytes.Repeat(last, pad)) {
		// The store may be damaged instead. Without a MAC both look the same.
		return nil, errPassword
	}
	plain = plain[:len(plain)-pad]
	if plain, err = ber.Definite(plain); err != nil {
		return nil, errPassword
	}
	whole := cryptobyte.String(plain)
	if !whole.SkipASN1(der.SEQUENCE) || !whole.Empty() {
		return nil, errPassword
	}
	return plain, nil
}

// deriveKey derives key and initialization vector for the cipher id. With the old schemes
// both come from the password (RFC 7292 appendix C); PBES2 states its vector.
func (a algorithm) deriveKey(p password, on *kdfBudget) (key, iv []byte, id string, err error) {
	if a.id == oidPBES2 {
		return a.pbes2(p, on)
	}
	c, known := ciphers[a.id]
	if !known {
		return nil, nil, "", unsupported(a.id)
	}
	var params, salt cryptobyte.String
	var iterations int
	if !a.params.ReadASN1(&params, der.SEQUENCE) || !params.ReadASN1(&salt, der.OCTET_STRING) || !params.ReadASN1Integer(&iterations) {
		return nil, nil, "", errBadStore
	}
	d := derivation{sha1.New, p.utf16(), salt, iterations}
	if key, err = d.bytes(forKey, c.key, on); err == nil {
		iv, err = d.bytes(forIV, des.BlockSize, on)
	}
	return key, iv, a.id, err
}

// pbes2 reads the parameters of PBES2 and derives the key (RFC 8018 §6.2).
func (a algorithm) pbes2(p password, on *kdfBudget) (key, iv []byte, id string, err error) {
	var params, vector cryptobyte.String
	ok := a.params.ReadASN1(&params, der.SEQUENCE)
	kdf, okKDF := readAlgorithm(&params)
	scheme, okScheme := readAlgorithm(&params)
	if !ok || !okKDF || !okScheme || !scheme.params.ReadASN1(&vector, der.OCTET_STRING) {
		return nil, nil, "", errBadStore
	}
	c, known := ciphers[scheme.id]
	if !known {
		return nil, nil, "", unsupported(scheme.id)
	}
	key, err = kdf.pbkdf2(p, c.key, on)
	return key, vector, scheme.id, err
}

// pbkdf2 derives a key of length bytes (RFC 8018 §5.2). A length of 0 means the keyLength
// of the parameters: a MAC has no length of its own. The hash is HMAC with SHA-1 if none
// is named (RFC 8018 appendix A.2).
func (a algorithm) pbkdf2(p password, length int, on *kdfBudget) ([]byte, error) {
	if a.id != oidPBKDF2 {
		return nil, unsupported(a.id)
	}
	var params, salt cryptobyte.String
	var iterations, stated int
	if !a.params.ReadASN1(&params, der.SEQUENCE) || !params.ReadASN1(&salt, der.OCTET_STRING) || !params.ReadASN1Integer(&iterations) ||
		params.PeekASN1Tag(der.INTEGER) && !params.ReadASN1Integer(&stated) {
		return nil, errBadStore
	}
	if length == 0 {
		length = stated
	}
	h := sha1.New
	if !params.Empty() {
		prf, ok := readAlgorithm(&params)
		if h = hashes[prf.id]; !ok || h == nil {
			return nil, unsupported(prf.id)
		}
	}
	size := h().Size()
	// 64 bytes are the longest hash; ciphers need 32 at most.
	if length < 1 || length > 64 {
		return nil, errBadStore
	}
	if err := on.spend(iterations, (length+size-1)/size); err != nil {
		return nil, err
	}
	return pbkdf2.Key(h, p.text, salt, iterations, length)
}

// derivation is the key derivation of PKCS #12 itself (RFC 7292 appendix B.2).
type derivation struct {
	hash           func() hash.Hash
	password, salt []byte
	iterations     int
}

// What the bytes are for (appendix B.3).
const (
	forKey = 1
	forIV  = 2
	forMAC = 3
)

// bytes follows the steps of RFC 7292 appendix B.2 and uses its names: v is the block size
// of the hash, the diversifier is D, in is I = S || P, increase is B. After each block of
// output, each part of I is replaced by I + B + 1 (step 6C).
func (d derivation) bytes(purpose byte, size int, on *kdfBudget) (out []byte, err error) {
	h := d.hash()
	if err := on.spend(d.iterations, (size+h.Size()-1)/h.Size()); err != nil {
		return nil, err
	}
	v := h.BlockSize()
	diversifier := bytes.Repeat([]byte{purpose}, v)
	in := append(filled(d.salt, v), filled(d.password, v)...)
	for {
		_, _ = h.Write(diversifier) // a hash takes everything
		_, _ = h.Write(in)
		block := h.Sum(nil)
		for range d.iterations - 1 {
			h.Reset()
			_, _ = h.Write(block)
			block = h.Sum(block[:0])
		}
		if out = append(out, block...); len(out) >= size {
			return out[:size], nil
		}
		h.Reset()
		increase := filled(block, v)[:v]
		for part := range len(in) / v {
			addOne(in[part*v:(part+1)*v], increase)
		}
	}
}

// filled repeats s up to a multiple of v bytes.
func filled(s []byte, v int) []byte {
	out := make([]byte, 0, (len(s)+v-1)/v*v)
	for len(out) < cap(out) {
		out = append(out, s[:min(len(s), cap(out)-len(out))]...)
	}
	return out
}

// addOne adds b and 1 to a, both big-endian numbers of the same length.
func addOne(a, b []byte) {
	carry := uint16(1)
	for i := len(a) - 1; i >= 0; i-- {
		carry += uint16(a[i]) + uint16(b[i])
		a[i] = byte(carry & 0xff)
		carry >>= 8
	}
}

// storeMAC is MacData (RFC 7292 §4): it tells whether a password is the right one.
type storeMAC struct {
	how          algorithm
	digest, salt cryptobyte.String
	iterations   int
}

// readMAC reads a MacData (RFC 7292 §4), and returns nil if it is damaged. The iterations are 1
// if they are absent.
func readMAC(s cryptobyte.String) *storeMAC {
	m := &storeMAC{iterations: 1}
	var info cryptobyte.String
	var ok bool
	if !s.ReadASN1(&info, der.SEQUENCE) {
		return nil
	}
	if m.how, ok = readAlgorithm(&info); !ok || !info.ReadASN1(&m.digest, der.OCTET_STRING) || !s.ReadASN1(&m.salt, der.OCTET_STRING) ||
		!s.Empty() && !s.ReadASN1Integer(&m.iterations) {
		return nil
	}
	return m
}

// verify returns errPassword if p is not what the store was sealed with.
func (m *storeMAC) verify(content []byte, p password, on *kdfBudget) error {
	key, h, err := m.key(p, on)
	if err != nil {
		return err
	}
	mac := hmac.New(h, key)
	_, _ = mac.Write(content)
	if !hmac.Equal(mac.Sum(nil), m.digest) {
		return errPassword
	}
	return nil
}

// key derives the key of the MAC by RFC 7292 appendix B, or by PBMAC1.
func (m *storeMAC) key(p password, on *kdfBudget) (key []byte, h func() hash.Hash, err error) {
	if m.how.id != oidPBMAC1 {
		h = hashes[m.how.id]
		if h == nil {
			return nil, nil, unsupported(m.how.id)
		}
		key, err = derivation{h, p.utf16(), m.salt, m.iterations}.bytes(forMAC, h().Size(), on)
		return key, h, err
	}
	// RFC 9579: everything is in the parameters.
	var params cryptobyte.String
	all := m.how.params
	ok := all.ReadASN1(&params, der.SEQUENCE)
	kdf, okKDF := readAlgorithm(&params)
	scheme, okScheme := readAlgorithm(&params)
	if !ok || !okKDF || !okScheme {
		return nil, nil, errBadStore
	}
	if h = hashes[scheme.id]; h == nil {
		return nil, nil, unsupported(scheme.id)
	}
	key, err = kdf.pbkdf2(p, 0, on)
	return key, h, err
}
