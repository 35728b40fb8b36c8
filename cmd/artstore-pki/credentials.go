package main

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

const (
	flagCert   = "cert"
	flagKey    = "key"
	flagCACert = "ca-cert"
)

// clientFiles are what a client certificate is read from, and the trust bundle that
// goes with it. Each may be "".
type clientFiles struct{ cert, key, roots string }

// clientFilesOf reads the flags --cert, --key and --ca-cert. With a directory that issue
// wrote as --cert, the other two are in it.
func clientFilesOf(c *cli.Context) clientFiles {
	id := clientFiles{c.String(flagCert), c.String(flagKey), c.String(flagCACert)}
	dir := id.cert
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return id
	}
	id.cert = filepath.Join(dir, "tls.crt")
	id.key = cmp.Or(id.key, filepath.Join(dir, "tls.key"))
	id.roots = cmp.Or(id.roots, filepath.Join(dir, "ca.crt"))
	return id
}

// incomplete is err, unless what --cert names is not there: it may be a directory then.
func (id clientFiles) incomplete(err error) error {
	if id.cert != "" {
		if _, absent := os.Stat(id.cert); absent != nil {
			return fmt.Errorf("reading the client certificate: %w", absent)
		}
	}
	return err
}

// read reads all three.
func (id clientFiles) read() (*tls.Certificate, []*x509.Certificate, error) {
	if id.key == "" || id.roots == "" {
		return nil, nil, id.incomplete(ui.UsageErrorf("--%s is a file: want --%s and --%s with it", flagCert, flagKey, flagCACert))
	}
	cert, err := clientCertificate(id.cert, id.key)
	if err != nil {
		return nil, nil, err
	}
	roots, err := readCertificates(id.roots)
	return &cert, roots, err
}

// clientCertificate reads a chain and its key, strictly.
func clientCertificate(certFile, keyFile string) (tls.Certificate, error) {
	chain, err := readCertificates(certFile)
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

// readCertificates reads a chain or a bundle, strictly.
func readCertificates(path string) ([]*x509.Certificate, error) {
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
