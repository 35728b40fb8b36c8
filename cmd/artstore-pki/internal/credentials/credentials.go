// Package credentials reads what a command shows to a server and what it trusts:
// a client certificate with its key, and a trust bundle. They are read once, for
// one connection or one audit; what a service rotates is in the package identity.
package credentials

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// Names of the three flags.
const (
	Cert   = "cert"
	Key    = "key"
	CACert = "ca-cert"
)

// Files are what a client certificate is read from, and the trust bundle that
// goes with it. Each may be "": the flag was not given.
type Files struct{ Cert, Key, Roots string }

// FilesOf reads the flags --cert, --key and --ca-cert. With a directory that issue
// wrote as --cert, the other two are in it.
func FilesOf(c *cli.Context) Files {
	id := Files{c.String(Cert), c.String(Key), c.String(CACert)}
	dir := id.Cert
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return id
	}
	id.Cert = filepath.Join(dir, "tls.crt")
	id.Key = cmp.Or(id.Key, filepath.Join(dir, "tls.key"))
	id.Roots = cmp.Or(id.Roots, filepath.Join(dir, "ca.crt"))
	return id
}

// Incomplete returns err, which says that a flag is missing beside --cert. If the path of --cert
// does not exist, it returns that error instead: the path may have been meant as a directory,
// which needs no other flag.
func (id Files) Incomplete(err error) error {
	if id.Cert != "" {
		if _, absent := os.Stat(id.Cert); absent != nil {
			return fmt.Errorf("reading the client certificate: %w", absent)
		}
	}
	return err
}

// Read reads all three. That one is missing is an error of the command line,
// unless the one of --cert is not there at all.
func (id Files) Read() (*tls.Certificate, []*x509.Certificate, error) {
	if id.Key == "" || id.Roots == "" {
		return nil, nil, id.Incomplete(ui.UsageErrorf("--%s is a file: want --%s and --%s with it", Cert, Key, CACert))
	}
	cert, err := Certificate(id.Cert, id.Key)
	if err != nil {
		return nil, nil, err
	}
	roots, err := ReadChain(id.Roots)
	return &cert, roots, err
}

// Certificate reads a chain and its key, and nothing else may be in the files. A
// key that is not the one of the leaf is an error here: TLS would report it as a
// failed handshake, without the names of the files.
func Certificate(certFile, keyFile string) (tls.Certificate, error) {
	chain, err := ReadChain(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	data, err := os.ReadFile(keyFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("reading a key: %w", err)
	}
	key, err := pemfile.PrivateKey(data)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("reading the key in %s: %w", keyFile, err)
	}
	if !certs.Fits(chain[0], key) {
		return tls.Certificate{}, ui.WithHint(fmt.Errorf("the key in %s does not fit the certificate in %s", keyFile, certFile),
			"put back the key and the certificate of one issue")
	}
	pair := tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, cert := range chain {
		pair.Certificate = append(pair.Certificate, cert.Raw)
	}
	return pair, nil
}

// ReadChain reads a chain or a bundle: at least one certificate in PEM, and nothing else.
func ReadChain(path string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading certificates: %w", err)
	}
	certs, err := pemfile.Certificates(data)
	if err != nil {
		return nil, fmt.Errorf("reading certificates in %s: %w", path, err)
	}
	return certs, nil
}
