package ca

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/certificates/db"
	"golang.org/x/crypto/ssh"

	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/internal/panics"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// errNoDatabase answers every call of smallstep's authority to its database.
var errNoDatabase = errors.New("smallstep's authority has no database here")

// noDatabase is the database of the embedded smallstep authority. Every method returns an
// error. Without a database the authority would make one of its own. Our routes never let
// it use one: the code here checks tokens and revocations, and records. If a route of
// smallstep is added by mistake, it fails, and records no certificate that no profile
// has allowed.
//
// The optional interfaces are here for the same reason: with a database that does not
// have them, smallstep skips the step and goes on.
type noDatabase struct{}

var _ interface {
	db.AuthDB
	db.CertificateStorer
} = noDatabase{}

func (noDatabase) IsRevoked(string) (bool, error)                         { return true, errNoDatabase }
func (noDatabase) IsSSHRevoked(string) (bool, error)                      { return true, errNoDatabase }
func (noDatabase) Revoke(*db.RevokedCertificateInfo) error                { return errNoDatabase }
func (noDatabase) RevokeSSH(*db.RevokedCertificateInfo) error             { return errNoDatabase }
func (noDatabase) GetCertificate(string) (*x509.Certificate, error)       { return nil, errNoDatabase }
func (noDatabase) GetCertificateData(string) (*db.CertificateData, error) { return nil, errNoDatabase }
func (noDatabase) UseToken(string, string) (bool, error)                  { return false, errNoDatabase }
func (noDatabase) IsSSHHost(string) (bool, error)                         { return false, errNoDatabase }
func (noDatabase) GetSSHHostPrincipals() ([]string, error)                { return nil, errNoDatabase }
func (noDatabase) StoreCertificate(*x509.Certificate) error               { return errNoDatabase }
func (noDatabase) StoreSSHCertificate(*ssh.Certificate) error             { return errNoDatabase }

func (noDatabase) StoreCertificateChain(provisioner.Interface, ...*x509.Certificate) error {
	return errNoDatabase
}

func (noDatabase) StoreRenewedCertificate(*x509.Certificate, ...*x509.Certificate) error {
	return errNoDatabase
}

// Shutdown has nothing to close, and fails like the others.
func (noDatabase) Shutdown() error { return errNoDatabase }

// embedSmallstep builds smallstep's authority for a state. It answers clients that ask for
// provisioners. Its provisioners cannot change later, therefore each state has its own.
func (a *Authority) embedSmallstep(st *state) (_ *authority.Authority, err error) {
	// v0.30.2 can panic in its policy engine. A configuration that makes it panic is an
	// error, and the old state stays.
	defer panics.Catch(panics.Into(&err, "the embedded authority"))
	auth := &config.AuthConfig{
		// smallstep would refuse tokens that were made before its start. Our record remembers
		// spent tokens over a restart, so they are accepted.
		DisableIssuedAtCheck: true,
	}
	if auth.Provisioners, err = a.smallstepProvisioners(st); err != nil {
		return nil, err
	}
	// smallstep appends to the lists that it is given, and these may have room that another state uses.
	roots, intermediates, chain := slices.Clone(st.roots), slices.Clone(st.intermediates), slices.Clone(st.intermediates[:1])
	return authority.NewEmbedded(
		authority.WithConfig(&config.Config{DNSNames: st.config.DNSNames, AuthorityConfig: auth, CommonName: st.config.Name}),
		authority.WithX509RootCerts(roots...),
		authority.WithX509IntermediateCerts(intermediates...),
		authority.WithX509SignerChain(chain, st.signer),
		authority.WithDatabase(noDatabase{}),
		authority.WithQuietInit(),
	)
}

// smallstepProvisioners returns the provisioners of the configuration in smallstep's form.
// It reads the roots of X5C provisioners, which it also puts into st.rules.
func (a *Authority) smallstepProvisioners(st *state) (list provisioner.List, err error) {
	for _, p := range st.rules.JWKs {
		j := &provisioner.JWK{Type: provisioner.TypeJWK.String(), Name: p.Name, Key: p.Key}
		if p.Publish {
			if j.EncryptedKey, err = a.files.ReadJWE(p.Name, p.Key); err != nil {
				return nil, fmt.Errorf("publishing the encrypted key: %w", err)
			}
		}
		list = append(list, j)
	}
	for i, p := range st.rules.X5Cs {
		if p.Roots, err = a.rootsOf(st, p); err != nil {
			return nil, err
		}
		st.rules.X5Cs[i] = p
		list = append(list, &provisioner.X5C{Type: provisioner.TypeX5C.String(), Name: p.Name, Roots: pemfile.EncodeCertificates(p.Roots)})
	}
	if p := st.rules.ACME; p != nil {
		out := &provisioner.ACME{Type: provisioner.TypeACME.String(), Name: p.Name}
		for _, c := range p.Challenges {
			out.Challenges = append(out.Challenges, provisioner.ACMEChallenge(c))
		}
		list = append(list, out)
	}
	return list, nil
}

// rootsOf returns the certificates to which the certificate of a token must chain: those
// of the file of the provisioner, or our own roots. A file that is empty or damaged is an
// error, because tokens would be refused without any hint at the cause.
func (a *Authority) rootsOf(st *state, p policy.X5C) ([]*x509.Certificate, error) {
	if p.File == "" {
		return st.roots, nil
	}
	path := p.File
	if !filepath.IsAbs(path) {
		path = a.files.File(path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the roots of provisioner %s: %w", p.Name, err)
	}
	roots, err := pemfile.Certificates(data)
	if err != nil {
		return nil, fmt.Errorf("reading the roots of provisioner %s: %s: %w", p.Name, path, err)
	}
	if len(roots) == 0 || slices.ContainsFunc(roots, func(c *x509.Certificate) bool { return !c.IsCA }) {
		return nil, fmt.Errorf("reading the roots of provisioner %s: %s: want certificates of authorities", p.Name, path)
	}
	return roots, nil
}
