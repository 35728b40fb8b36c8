package statedir

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/trust"
	"github.com/artstore/artstore-pki/ca/internal/truststore"
	"github.com/artstore/artstore-pki/ca/translog"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/durable"
)

// ReadDocument reads current.json, which decides what is in use. Errors name the file, and
// what is wrong with it.
func (f Dir) ReadDocument() (*trust.Document, error) {
	path := f.File(currentFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading trust: %w", err)
	}
	d := new(trust.Document)
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	switch err := dec.Decode(d); {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("reading trust %s: the file is empty", path)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("reading trust %s: the file was cut off", path)
	case err != nil:
		return nil, fmt.Errorf("reading trust %s: %w", path, err)
	}
	if err := d.Check(); err != nil {
		return nil, fmt.Errorf("reading trust %s: %w", path, err)
	}
	return d, nil
}

// Certificates reads the certificates that a document names, in its order.
func (f Dir) Certificates(d *trust.Document) (roots, intermediates []*x509.Certificate, err error) {
	for _, fp := range d.Roots {
		c, err := f.readCert(fp)
		if err != nil {
			return nil, nil, err
		}
		roots = append(roots, c)
	}
	for _, fp := range d.Intermediates {
		c, err := f.readCert(fp)
		if err != nil {
			return nil, nil, err
		}
		intermediates = append(intermediates, c)
	}
	return roots, intermediates, nil
}

// ReadTrust reads the certificates that are in use, the ones that sign first. It
// needs no password. Errors name the file, and what is wrong with it.
func (f Dir) ReadTrust() (roots, intermediates []*x509.Certificate, err error) {
	d, err := f.ReadDocument()
	if err != nil {
		return nil, nil, err
	}
	return f.Certificates(d)
}

// WriteDocument commits a change of trust to the directory, by one rename of current.json. The
// certificates and their keys must be on the disk already ([Dir.WriteIssuer], [Dir.Fetch]).
func (f Dir) WriteDocument(d *trust.Document) error {
	data, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(f.File(currentFile), append(data, '\n'), durable.Public); err != nil {
		return fmt.Errorf("writing trust: %w", err)
	}
	return nil
}

// WriteTrust is WriteDocument for the first document of a directory, which has no version: the
// authority numbers it when it puts it into the record.
func (f Dir) WriteTrust(roots, intermediates []*x509.Certificate) error {
	d := new(trust.Document)
	for _, c := range roots {
		d.Roots = append(d.Roots, certs.Fingerprint(c))
	}
	for _, c := range intermediates {
		d.Intermediates = append(d.Intermediates, certs.Fingerprint(c))
	}
	return f.WriteDocument(d)
}

// RootListPath is where the list of a root is, by the fingerprint of the root.
func (f Dir) RootListPath(fingerprint string) string { return f.File("certs/" + fingerprint + ".crl") }

// Row returns what replicas need of a CA certificate that is in the directory: the
// certificate, its key sealed if sealKey is set, or where the key is, and the list of a root.
func (f Dir) Row(c *x509.Certificate, key *translog.Key, sealKey bool) (row truststore.Row, err error) {
	row = truststore.Row{Fingerprint: certs.Fingerprint(c), Certificate: c.Raw}
	data, err := os.ReadFile(f.RootListPath(row.Fingerprint))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return row, fmt.Errorf("reading the root's list: %w", err)
	}
	if block, _ := pem.Decode(data); block != nil {
		row.CRL = block.Bytes
	}
	uri, err := f.keyURI(row.Fingerprint)
	if err != nil {
		return row, err
	}
	if uri != "" { // it is in a device, which every replica reaches
		row.SealedKey, err = trust.SealURI(key, row.Fingerprint, uri)
		return row, err
	}
	if !sealKey {
		return row, nil
	}
	private, err := f.ReadKey(c, "")
	if err != nil {
		return row, err
	}
	row.SealedKey, err = trust.Seal(key, row.Fingerprint, private)
	return row, err
}

// Fetch brings the certificates and keys that a document names from the record into the
// directory, and the lists of its roots. What is there already stays, but for the lists, which
// are replaced by newer ones. The document itself is not written.
//
// Nothing is written if the directory has everything, so a replica whose directory is read-only or
// full follows each step between certificates that it has (TestFollowsWithoutFile in ca). One that
// brings a new certificate is an error there, and the replica issues nothing until the
// directory can be written: a key that is in memory only would be in no backup of the directory, unknown to
// doctor, and left out by a change of the password.
func (f Dir) Fetch(ctx context.Context, d *trust.Document, from *truststore.Store, key *translog.Key) error {
	for _, fp := range d.Roots {
		row, err := from.Row(ctx, fp)
		if err == nil {
			err = f.install(row, key)
		}
		if err == nil && len(row.CRL) > 0 {
			err = f.installList(row)
		}
		if err != nil {
			return fmt.Errorf("fetching root %.16s: %w", fp, err)
		}
	}
	for _, fp := range d.Intermediates {
		row, err := from.Row(ctx, fp)
		if err == nil {
			err = f.install(row, key)
		}
		if err != nil {
			return fmt.Errorf("fetching intermediate %.16s: %w", fp, err)
		}
	}
	return nil
}

// install writes a certificate and its key, unless they are there. The certificate is compared
// with the fingerprint, which is signed, and the key with the certificate.
func (f Dir) install(row truststore.Row, key *translog.Key) error {
	c, err := x509.ParseCertificate(row.Certificate)
	if err != nil || certs.Fingerprint(c) != row.Fingerprint {
		return errors.New("the record has another certificate in its place")
	}
	if _, err := f.readCert(row.Fingerprint); err == nil {
		uri, err := f.keyURI(row.Fingerprint)
		if err != nil {
			return err
		}
		if _, err := os.Lstat(f.KeyPath(row.Fingerprint)); err == nil || uri != "" || len(row.SealedKey) == 0 {
			return nil
		}
	}
	if len(row.SealedKey) == 0 {
		return f.WriteCert(c)
	}
	private, uri, err := trust.Unseal(key, row.Fingerprint, row.SealedKey)
	if err != nil {
		return err
	}
	if uri != "" { // whether the key fits is found out by whoever opens it
		return f.WriteIssuer(cacert.Issuer{Cert: c, KeyURI: uri})
	}
	if !certs.Fits(c, private) {
		return errors.New("the record has a key that does not fit")
	}
	return f.WriteIssuer(cacert.Issuer{Cert: c, Key: private})
}

// installList writes the list of a root, if it is newer than the one in the directory.
func (f Dir) installList(row truststore.Row) error {
	root, err := x509.ParseCertificate(row.Certificate)
	if err != nil {
		return err
	}
	list, err := x509.ParseRevocationList(row.CRL)
	if err == nil {
		err = list.CheckSignatureFrom(root)
	}
	if err != nil {
		return errors.New("the record has no valid list of it")
	}
	path := f.RootListPath(row.Fingerprint)
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the root's list: %w", err)
	}
	if block, _ := pem.Decode(old); block != nil {
		if have, err := x509.ParseRevocationList(block.Bytes); err == nil && have.Number.Cmp(list.Number) >= 0 {
			return nil
		}
	}
	if err := durable.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: row.CRL}), durable.Public); err != nil {
		return fmt.Errorf("writing the root's list: %w", err)
	}
	return nil
}
