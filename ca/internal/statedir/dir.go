package statedir

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/secret"
)

// The state directory.
//
//	pki.yaml                   configuration
//	pki.db                     the record, unless pki.yaml names a database
//	certs/current.json         which roots and intermediates are in use; it decides
//	certs/<fingerprint>.crt    each of them
//	certs/<fingerprint>.crl    list of a root, which names its revoked intermediates
//	certs/root_ca.crt          copy: bundle of current roots, for people and scripts
//	certs/intermediate_ca.crt  copy: the issuing intermediate
//	secrets/<fingerprint>.key  their keys, PKCS#8, encrypted with the password
//	certs/<fingerprint>.uri    where the key is, if it is in a key store
//	secrets/<name>.jwe         private key of a provisioner, encrypted with the password
//	secrets/log.key            key of the log, PKCS#8, encrypted with the password
//	certs/log.pub              its public half, as signed notes have it
//	certs/log.head             the marker: newest signed head of the record that is known here
//	secrets/password           only if init generated it
//
// A change of trust writes keys, then certificates, then the next version of the trust into
// the record, which is the commit, and then current.json by one rename. A crash before the
// commit leaves files that nothing refers to. After the commit each process of the authority,
// and each start, brings its directory up to the record. The two copies follow.
const (
	currentFile      = "certs/current.json"
	rootsFile        = "certs/root_ca.crt"
	intermediateFile = "certs/intermediate_ca.crt"
)

// Errors of reading keys, for callers that know where the password comes from.
var (
	ErrWrongPassword = errors.New("wrong password")
	ErrNoPassword    = errors.New("no key password was given")
)

// Dir reads and writes a state directory.
type Dir struct {
	Path         string
	Password     secret.String // decrypts the keys
	PasswordFile string        // read if Password is empty; "" means secrets/password
	// RootPassword decrypts the keys of roots. If it is empty, RootPasswordFile is read,
	// and if that is empty too, the password of the other keys is used.
	RootPassword     secret.String
	RootPasswordFile string
	Plain            bool // keys are written without encryption
}

var fingerprintForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// File returns the path of a file in the directory, which is named with slashes.
func (f Dir) File(name string) string { return Path(f.Path, name) }

// Authorities returns all certificates in the directory: the roots of the trust bundle, and
// all others. The others are intermediates, and roots that a rotation has taken out of use.
func (f Dir) Authorities() (roots, others []*x509.Certificate, err error) {
	if roots, _, err = f.ReadTrust(); err != nil {
		return nil, nil, err
	}
	entries, err := os.ReadDir(f.File("certs"))
	if err != nil {
		return nil, nil, fmt.Errorf("reading the certificates of the authority: %w", err)
	}
	for _, e := range entries {
		fp, isCert := strings.CutSuffix(e.Name(), ".crt")
		if !isCert || !fingerprintForm.MatchString(fp) {
			continue
		}
		c, err := f.readCert(fp)
		if err != nil {
			return nil, nil, err
		}
		if !slices.ContainsFunc(roots, c.Equal) {
			others = append(others, c)
		}
	}
	return roots, others, nil
}

func (f Dir) readCert(fp string) (*x509.Certificate, error) {
	if !fingerprintForm.MatchString(fp) { // it becomes part of a path
		return nil, fmt.Errorf("reading trust %s: %.80q is not a fingerprint", f.File(currentFile), fp)
	}
	path := f.File("certs/" + fp + ".crt")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading certificate: %w", err)
	}
	all, err := pemfile.Certificates(data)
	if err != nil {
		return nil, fmt.Errorf("reading certificate %s: %w", path, err)
	}
	if len(all) != 1 || certs.Fingerprint(all[0]) != fp {
		return nil, fmt.Errorf("reading certificate %s: not the one certificate that its name says", path)
	}
	return all[0], nil
}

// WriteCopies brings the two convenience files in line with current.json. They
// are for people and other programs, and the authority does not read them. A caller must
// not report their failure as a failure of the change, which is committed already.
func (f Dir) WriteCopies(roots, intermediates []*x509.Certificate) error {
	for name, certs := range map[string][]*x509.Certificate{rootsFile: roots, intermediateFile: intermediates[:1]} {
		data := pemfile.EncodeCertificates(certs)
		if old, err := os.ReadFile(f.File(name)); err == nil && bytes.Equal(old, data) {
			continue
		}
		if err := durable.WriteFile(f.File(name), data, durable.Public); err != nil {
			return fmt.Errorf("writing a copy of trust: %w", err)
		}
	}
	return nil
}

// WriteIssuer stores a CA certificate and its key, or where the key is. The key is written first,
// because a crash after the certificate alone would leave an issuer that cannot sign. Files
// that are there already are replaced.
func (f Dir) WriteIssuer(i cacert.Issuer) error {
	fp := certs.Fingerprint(i.Cert)
	if i.KeyURI != "" {
		if err := durable.WriteFile(f.uriPath(fp), []byte(i.KeyURI+"\n"), durable.Public); err != nil {
			return fmt.Errorf("writing where the key is: %w", err)
		}
	} else {
		key, err := f.forKeyOf(i.Cert).encodeKey(i.Key)
		if err != nil {
			return err
		}
		if err := durable.WriteFile(f.KeyPath(fp), key, durable.Private); err != nil {
			return fmt.Errorf("writing key: %w", err)
		}
	}
	return f.WriteCert(i.Cert)
}

// WriteCert stores a CA certificate whose key is not in the directory, or is there already.
func (f Dir) WriteCert(c *x509.Certificate) error {
	if err := durable.WriteFile(f.File("certs/"+certs.Fingerprint(c)+".crt"), pemfile.EncodeCertificates([]*x509.Certificate{c}), durable.Public); err != nil {
		return fmt.Errorf("writing certificate: %w", err)
	}
	return nil
}

// JWEPath is where the private key of a provisioner is.
func (f Dir) JWEPath(provisioner string) string { return f.File("secrets/" + provisioner + ".jwe") }

// ReadJWK decrypts the private key of a provisioner. public is the key that pki.yaml has for
// it; another private key in the file is an error, since nobody would accept its tokens.
func (f Dir) ReadJWK(provisioner string, public *jose.JSONWebKey) (*jose.JSONWebKey, error) {
	path := f.JWEPath(provisioner)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the enrolment key: %w", err)
	}
	_, key, err := f.findJWK(data, public)
	if err != nil {
		return nil, fmt.Errorf("reading the enrolment key %s: %w", path, err)
	}
	return key, nil
}

// ReadJWE returns the encrypted private key of a provisioner in the compact form
// (RFC 7516 §7.1), which clients expect. A key that is not encrypted is an error. public is
// the key that pki.yaml has; it decides if the file has several, which takes the password.
func (f Dir) ReadJWE(provisioner string, public *jose.JSONWebKey) (string, error) {
	path := f.JWEPath(provisioner)
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	forms := jweForms(data)
	form := forms[0]
	if len(forms) > 1 {
		if form, _, err = f.findJWK(data, public); err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
	}
	if !isJWE(form) {
		return "", fmt.Errorf("%s is not encrypted", path)
	}
	jwe, err := jose.ParseEncrypted(string(form))
	if err != nil {
		return "", fmt.Errorf("%s is not an encrypted JWK", path)
	}
	return jwe.CompactSerialize()
}

func (f Dir) decryptJWE(text string) ([]byte, error) {
	jwe, err := jose.ParseEncrypted(text)
	if err != nil {
		return nil, errors.New("not an encrypted JWK")
	}
	pw, err := f.keyPassword()
	if err != nil {
		return nil, err
	}
	plain, err := jwe.Decrypt([]byte(pw.Expose()))
	if err != nil {
		return nil, ErrWrongPassword
	}
	return plain, nil
}

// keyPassword returns the password of the keys: the option, the file, or the password that
// init generated.
func (f Dir) keyPassword() (secret.String, error) {
	if !f.Password.IsZero() {
		return f.Password, nil
	}
	path := f.PasswordFile
	if path == "" {
		path = f.File(PasswordFile)
	}
	pw, err := secret.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) { // not wrapped: the state directory is there, hints about a missing one would mislead
		return pw, fmt.Errorf("%w, and there is no %s", ErrNoPassword, path)
	}
	if err != nil {
		return pw, fmt.Errorf("reading the key password: %w", err)
	}
	return pw, nil
}
