package store

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/certificates/db"
	"golang.org/x/crypto/ssh"
)

// AuthDB shows the record to an embedded smallstep authority. Our own pipeline
// does not go through it; it is here so that whatever smallstep does on the side
// (a lookup of a provisioner, a future route) reads and writes the same truth.
//
// smallstep's interface has no contexts, so the adapter carries one: the life of
// the authority.
func (s *Store) AuthDB(ctx context.Context) db.AuthDB { return &authDB{ctx: ctx, s: s} }

// forever is how long a token that smallstep spends is remembered: its interface
// does not say when the token expires.
var forever = time.UnixMilli(math.MaxInt64)

// callerSmallstep is who asked, when smallstep does not say.
const callerSmallstep = "smallstep"

var errNoSSH = fmt.Errorf("ssh certificates: %w", db.ErrNotImplemented)

type authDB struct {
	ctx context.Context //nolint:containedctx // smallstep's interface has none
	s   *Store
}

func (a *authDB) IsRevoked(serial string) (bool, error) {
	c, err := a.s.Get(a.ctx, serial)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil && c.Revocation != nil, err
}

func (a *authDB) Revoke(info *db.RevokedCertificateInfo) error {
	err := a.s.Revoke(a.ctx, RevokeRequest{Revocation: Revocation{
		Serial: info.Serial, RevokedAt: info.RevokedAt, Reason: info.ReasonCode, Note: info.Reason, Caller: info.ProvisionerID,
	}})
	if errors.Is(err, ErrAlreadyRevoked) {
		return db.ErrAlreadyExists
	}
	return err
}

func (a *authDB) GetCertificate(serial string) (*x509.Certificate, error) {
	c, err := a.s.Get(a.ctx, serial)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(c.DER)
}

func (a *authDB) GetCertificateData(serial string) (*db.CertificateData, error) {
	c, err := a.s.Get(a.ctx, serial)
	if err != nil {
		return nil, err
	}
	return &db.CertificateData{Provisioner: &db.ProvisionerData{ID: c.Provisioner, Name: c.Provisioner, Type: "JWK"}}, nil
}

// UseToken keeps a hash of the id, never the token.
func (a *authDB) UseToken(id, _ string) (bool, error) {
	token := Token{Hash: sha256.Sum256([]byte(id)), Expires: forever}
	err := a.s.change(a.ctx, func(tx *txn) error { return spend(a.ctx, tx, token, "") })
	if errors.Is(err, errSpent) {
		return false, nil
	}
	return err == nil, err
}

func (a *authDB) StoreCertificateChain(p provisioner.Interface, chain ...*x509.Certificate) error {
	name := ""
	if p != nil {
		name = p.GetName()
	}
	return a.storeChain(name, nil, chain)
}

func (a *authDB) StoreRenewedCertificate(old *x509.Certificate, chain ...*x509.Certificate) error {
	return a.storeChain("", old, chain)
}

func (a *authDB) StoreCertificate(crt *x509.Certificate) error {
	return a.storeChain("", nil, []*x509.Certificate{crt})
}

func (a *authDB) storeChain(provisionerName string, old *x509.Certificate, chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return errors.New("storing a chain: it is empty")
	}
	c := NewCertificate(chain, time.Now())
	c.Service, c.Kind, c.Provisioner, c.Caller = chain[0].Subject.CommonName, Issued, provisionerName, callerSmallstep
	if old != nil {
		before, err := a.s.Get(a.ctx, old.SerialNumber.String())
		if err != nil {
			return err
		}
		c.Kind, c.Lineage, c.Previous, c.Provisioner = Renewed, before.Lineage, before.Serial, before.Provisioner
	}
	_, err := a.s.Commit(a.ctx, Issue{Certificate: c})
	return err
}

// Shutdown does nothing: the store belongs to who opened it, and outlives the
// authorities that are rebuilt over it.
func (a *authDB) Shutdown() error { return nil }

func (a *authDB) IsSSHRevoked(string) (bool, error)          { return false, nil }
func (a *authDB) RevokeSSH(*db.RevokedCertificateInfo) error { return errNoSSH }
func (a *authDB) StoreSSHCertificate(*ssh.Certificate) error { return errNoSSH }
func (a *authDB) IsSSHHost(string) (bool, error)             { return false, nil }
func (a *authDB) GetSSHHostPrincipals() ([]string, error)    { return nil, nil }
