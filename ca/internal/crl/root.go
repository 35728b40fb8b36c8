package crl

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
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/durable"
)

// Programs such as nginx make OpenSSL check every certificate of a chain once they have a
// list (X509_V_FLAG_CRL_CHECK_ALL), so without a list of the root they refuse all
// certificates. This list is made when the key of the root is available, and is valid as long
// as the root. It is empty: an intermediate that must not be trusted any more is removed
// together with its root.

func rootPath(dir string, root *x509.Certificate) string {
	return statedir.Path(dir, "certs/"+certs.Fingerprint(root)+".crl")
}

// WriteRoot writes the empty list of a root into a state directory.
func WriteRoot(dir string, root cacert.Issuer) error {
	now := time.Now()
	der, err := sign(root, head{number: big.NewInt(now.UnixMicro()), thisUpdate: now, nextUpdate: root.Cert.NotAfter}, &entries{})
	if err != nil {
		return err
	}
	if err := durable.WriteFile(rootPath(dir, root.Cert), pem.EncodeToMemory(&pem.Block{Type: typeCRL, Bytes: der}), durable.Public); err != nil {
		return fmt.Errorf("writing the root's list: %w", err)
	}
	return nil
}

// ReadRoots reads the lists of roots from a state directory, by the subject key ids
// of the roots. A root that was made before there were such lists has none until
// its key is at hand again. A list that is damaged is an error.
func ReadRoots(dir string, roots []*x509.Certificate) (map[string]*List, error) {
	lists := make(map[string]*List, len(roots))
	for _, root := range roots {
		path := rootPath(dir, root)
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
