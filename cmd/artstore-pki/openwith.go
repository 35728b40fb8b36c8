package main

import (
	"crypto/tls"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

const (
	flagServerName = "servername"
	flagCert       = "cert"
	flagKey        = "key"
)

// openWith reads what stores and servers are opened with: passwords, and a client certificate.
func (u *ui) openWith(c *cli.Context, t *audit.Targets) error {
	for _, path := range c.StringSlice(flagPasswordFile) {
		password, err := u.readSecret(path)
		if err != nil {
			return withHint(fmt.Errorf("reading a password: %w", err), "--%s names a file with one password; the empty one is tried without", flagPasswordFile)
		}
		t.Passwords = append(t.Passwords, password)
	}
	certFile, keyFile := c.String(flagCert), c.String(flagKey)
	switch {
	case certFile == "" && keyFile == "":
		return nil
	case certFile == "" || keyFile == "":
		return usagef("--%s and --%s go together", flagCert, flagKey)
	}
	pair, err := clientCertificate(certFile, keyFile)
	t.Certificates = append(t.Certificates, pair)
	return err
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
	if !pemfile.Fits(chain[0], key) {
		return tls.Certificate{}, withHint(fmt.Errorf("the key in %s does not fit the certificate in %s", keyFile, certFile),
			"put back the key and the certificate of one issue")
	}
	pair := tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, cert := range chain {
		pair.Certificate = append(pair.Certificate, cert.Raw)
	}
	return pair, nil
}
