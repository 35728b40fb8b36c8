package ca

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/record/reasons"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/certs"
)

// What an operator revokes by its PEM may be missing in the record: it was issued
// after the backup that the authority was restored from. The signature of an
// intermediate of ours says that it is ours all the same.

// ErrNotOurs reports a certificate that no intermediate of this authority signed.
var ErrNotOurs = errors.New("no intermediate of this authority signed it")

// Revocable returns a certificate as [Record.RevokeCertificate] would revoke it,
// and whether the record has it already. It reports what would be refused:
// [ErrNotOurs], [store.ErrSerialTaken], [store.ErrAlreadyRevoked].
func (r *Record) Revocable(ctx context.Context, cert *x509.Certificate) (c record.Certificate, known bool, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("revoking %s: %w", certs.HexSerial(cert.SerialNumber.String()), err)
		}
	}()
	c, err = r.store.Get(ctx, cert.SerialNumber.String())
	switch {
	case errors.Is(err, record.ErrNotFound):
		c, err = r.unknown(cert)
		return c, false, err
	case err != nil:
		return c, false, err
	case !bytes.Equal(c.DER, cert.Raw):
		return c, true, store.ErrSerialTaken
	case c.Revocation != nil:
		return c, true, store.ErrAlreadyRevoked
	}
	return c, true, nil
}

// unknown makes the row of a certificate that the record does not have.
func (r *Record) unknown(cert *x509.Certificate) (c record.Certificate, err error) {
	_, intermediates, err := statedir.Dir{Path: r.dir}.ReadTrust()
	if err != nil {
		return c, err
	}
	i := slices.IndexFunc(intermediates, func(issuer *x509.Certificate) bool { return cert.CheckSignatureFrom(issuer) == nil })
	if i < 0 || cert.IsCA {
		return c, ErrNotOurs
	}
	c = record.NewCertificate([]*x509.Certificate{cert, intermediates[i]}, time.Now())
	// Lists are made by issuer. A thief of its key may have left the identifier out.
	c.Issuer, c.Kind, c.Caller = cacert.KeyID(intermediates[i]), kinds.Entered, operator
	if c.Service = clip(cert.Subject.CommonName); c.Service == "" && len(c.Names) > 0 {
		c.Service = clip(c.Names[0])
	}
	return c, nil
}

// RevokeCertificate revokes a certificate in the name of the operator, by what it
// is and not by its serial alone. One that the record does not have is entered
// (kind [kinds.Entered]) in the same transaction, if an intermediate of this
// authority signed it. Errors are those of Revocable.
func (r *Record) RevokeCertificate(ctx context.Context, cert *x509.Certificate, reason int, note string) (c record.Certificate, err error) {
	if err := reasons.Check(reason); err != nil {
		return c, fmt.Errorf("revoking %s: %w", certs.HexSerial(cert.SerialNumber.String()), err)
	}
	if c, _, err = r.Revocable(ctx, cert); err != nil {
		return c, err
	}
	_, err = r.revokeAudited(auditLine{Serial: c.Serial, Service: c.Service}, func() (int, error) {
		return 1, r.store.RevokeCertificate(ctx, c, record.Revocation{RevokedAt: time.Now(), Reason: reason, Note: clip(note), Caller: operator})
	})
	return c, err
}
