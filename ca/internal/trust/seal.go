package trust

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/artstore/artstore-pki/ca/translog"
)

// The keys of intermediates are in the database, so that each replica has them without files
// that are copied by hand. They are encrypted with a secret that is derived from the key of
// the log, which is in the state directory of each replica and not in the database. So whoever
// reads the database alone is not the authority, and a change of the password does not touch
// the database.

// sealInfo separates the derived secret from others of the same key.
const sealInfo = "artstore-pki: keys of intermediates in the record"

// Seal encrypts the key of a certificate (AES-256-GCM over its PKCS #8).
func Seal(key *translog.Key, fingerprint string, private crypto.Signer) ([]byte, error) {
	plain, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("sealing the key of %.16s: %w", fingerprint, err)
	}
	return seal(key, fingerprint, plain)
}

// uriPrefix begins what SealURI encrypts. PKCS #8 begins with a SEQUENCE, 0x30.
const uriPrefix = "uri:"

// SealURI does the same with the URI of a key that is in a key store. It is no secret, but a
// URI can name a library that is loaded, so whoever writes to the database must not choose it.
func SealURI(key *translog.Key, fingerprint, uri string) ([]byte, error) {
	return seal(key, fingerprint, []byte(uriPrefix+uri))
}

func seal(key *translog.Key, fingerprint string, plain []byte) ([]byte, error) {
	box, err := box(key)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, box.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return box.Seal(nonce, nonce, plain, []byte(fingerprint)), nil
}

// Unseal decrypts what Seal or SealURI has made for the same certificate: the key, or its URI.
func Unseal(key *translog.Key, fingerprint string, sealed []byte) (private crypto.Signer, uri string, err error) {
	box, err := box(key)
	if err != nil {
		return nil, "", err
	}
	if len(sealed) < box.NonceSize() {
		return nil, "", fmt.Errorf("unsealing the key of %.16s: it is cut off", fingerprint)
	}
	plain, err := box.Open(nil, sealed[:box.NonceSize()], sealed[box.NonceSize():], []byte(fingerprint))
	if err != nil {
		return nil, "", fmt.Errorf("unsealing the key of %.16s: it was changed, or sealed by another authority", fingerprint)
	}
	if uri, found := strings.CutPrefix(string(plain), uriPrefix); found {
		return nil, uri, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(plain)
	if err != nil {
		return nil, "", fmt.Errorf("unsealing the key of %.16s: it is no PKCS #8 key", fingerprint)
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, "", errors.New("unsealing a key: it cannot sign")
	}
	return signer, "", nil
}

func box(key *translog.Key) (cipher.AEAD, error) {
	secret, err := key.Derive(sealInfo)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
