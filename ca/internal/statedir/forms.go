package statedir

import (
	"bytes"
	"crypto"
	"encoding/json"
	"encoding/pem"
	"errors"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/secret"
)

// A file with a key usually has one form of it: the key under the password. While a secret
// is being changed it has more than one, so that each state of the directory, also the one
// that a crash leaves, opens with a password that somebody has:
//
//   - a key under the old password and under the new one, in this order
//     ([Dir.ChangePassword]);
//   - two enrolment keys, of which pki.yaml names one ([Dir.AddJWK]).
//
// The forms of a .key are blocks of PEM, one behind the other. Those of a .jwe are lines,
// each with a JWE in the compact form (RFC 7516 §7.1) or a private JWK (RFC 7517).

// mostForms bounds the work that a file can cause. A change makes at most four forms: two
// enrolment keys under two passwords each.
const mostForms = 8

// keyForms returns the forms in a .key. Data without PEM is one form, which does not open.
func keyForms(data []byte) (forms [][]byte) {
	for rest := data; len(forms) < mostForms; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		forms = append(forms, pem.EncodeToMemory(block))
	}
	if len(forms) < 2 {
		return [][]byte{data} // as it is, with all that the parser may have to say of it
	}
	return forms
}

// jweForms returns the forms in a .jwe. A JSON document is one form, however many lines it
// has: step writes such files.
func jweForms(data []byte) (forms [][]byte) {
	data = bytes.TrimSpace(data)
	if json.Valid(data) {
		return [][]byte{data}
	}
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) > 0 && len(forms) < mostForms {
			forms = append(forms, line)
		}
	}
	if len(forms) == 0 {
		return [][]byte{data}
	}
	return forms
}

// decodeKey returns the key of the first form that opens. If none does, the error is that
// of the first form.
func (f Dir) decodeKey(data []byte) (signer crypto.Signer, err error) {
	for _, form := range keyForms(data) {
		opened, failed := f.openKey(form)
		if failed == nil {
			return opened, nil
		}
		if err == nil {
			err = failed
		}
	}
	return nil, err
}

// openJWK decrypts one form of a .jwe, if it is encrypted, and returns the private JWK.
func (f Dir) openJWK(form []byte) (*jose.JSONWebKey, error) {
	if isJWE(form) {
		var err error
		if form, err = f.decryptJWE(string(form)); err != nil {
			return nil, err
		}
	}
	key := new(jose.JSONWebKey)
	if err := key.UnmarshalJSON(form); err != nil || key.IsPublic() || !key.Valid() {
		return nil, errors.New("not a private JWK")
	}
	return key, nil
}

// encodeJWK returns a private JWK as one form of a .jwe: encrypted, unless the keys of the
// directory are plain. Errors of the library are not passed on, because nothing says that
// they do not quote the key.
func (f Dir) encodeJWK(key *jose.JSONWebKey) ([]byte, error) {
	if f.Plain {
		text, err := key.MarshalJSON()
		if err != nil {
			return nil, errors.New("encoding an enrolment key: the library refused it")
		}
		return text, nil
	}
	pw, err := f.keyPassword()
	if err != nil {
		return nil, err
	}
	jwe, err := jose.EncryptJWK(key, []byte(pw.Expose()))
	if err != nil {
		return nil, errors.New("encrypting an enrolment key: the library refused it")
	}
	text, err := jwe.CompactSerialize()
	if err != nil {
		return nil, errors.New("encrypting an enrolment key: the library refused it")
	}
	return []byte(text), nil
}

// sameJWK reports whether two keys have the same public half, by their thumbprints
// (RFC 7638).
func sameJWK(a, b *jose.JSONWebKey) bool {
	x, errX := a.Thumbprint(crypto.SHA256)
	y, errY := b.Thumbprint(crypto.SHA256)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// errOtherJWK reports a file that opens, and has another key.
var errOtherJWK = errors.New("it is not the key that " + ConfigFile + " has")

// findJWK returns the form in data whose key is the private half of public, and that key.
// Errors do not quote the file.
func (f Dir) findJWK(data []byte, public *jose.JSONWebKey) (form []byte, key *jose.JSONWebKey, err error) {
	err = errOtherJWK
	for i, form := range jweForms(data) {
		key, failed := f.openJWK(form)
		switch {
		case failed == nil && sameJWK(key, public):
			return form, key, nil
		case failed != nil && i == 0:
			err = failed
		}
	}
	return nil, nil, err
}

// with returns the directory with another password. The zero password reads the files of the
// directory, as always.
func (f Dir) with(password secret.String) Dir {
	f.Password, f.Plain = password, false
	return f
}
