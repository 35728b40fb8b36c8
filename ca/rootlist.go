package ca

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/durable"
)

// Programs that use OpenSSL check every certificate of a chain once they have a
// list, so that they refuse everybody without one of the root. It is made whenever
// the root's key is at hand, and lives as long as the root: it takes back nothing,
// for an intermediate that must go is removed with the root it is under.

func (f files) rootListPath(root *x509.Certificate) string {
	return f.path("certs/" + certs.Fingerprint(root) + ".crl")
}

// writeRootList makes the empty list of a root.
func (f files) writeRootList(root cacert.Issuer) error {
	now := time.Now()
	der, err := signCRL(root, crlHead{number: big.NewInt(now.UnixMicro()), thisUpdate: now, nextUpdate: root.Cert.NotAfter}, &crlEntries{})
	if err != nil {
		return err
	}
	if err := durable.WriteFile(f.rootListPath(root.Cert), pem.EncodeToMemory(&pem.Block{Type: typeCRL, Bytes: der}), durable.Public); err != nil {
		return fmt.Errorf("writing the root's list: %w", err)
	}
	return nil
}

// readRootLists reads the lists of roots by their subject key ids. A root made
// before there were any has none until its key is at hand again.
func (f files) readRootLists(roots []*x509.Certificate) (map[string]*List, error) {
	lists := make(map[string]*List, len(roots))
	for _, root := range roots {
		path := f.rootListPath(root)
		data, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading the root's list: %w", err)
		}
		block, _ := pem.Decode(data)
		if block == nil || block.Type != typeCRL {
			return nil, fmt.Errorf("reading the root's list %s: it is none", path)
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err == nil {
			err = list.CheckSignatureFrom(root)
		}
		if err != nil {
			return nil, fmt.Errorf("reading the root's list %s: it is not that of %q", path, root.Subject.CommonName)
		}
		lists[cacert.KeyID(root)] = &List{der: block.Bytes, sum: sha256.Sum256(block.Bytes)}
	}
	return lists, nil
}
