package main

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"

	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation/files"
)

const host = "localhost"

// issue writes an identity as tls.crt, tls.key and ca.crt into dir. It replaces the certificate last,
// so that a watcher that looks in between sees a key that does not fit and waits.
func issue(ca *pkitest.CA, dir, name string) error {
	m := ca.Leaf(pkitest.Example(), name)
	key, err := pemfile.EncodePrivateKey(m.Certificate.PrivateKey.(crypto.Signer))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{"ca.crt", pemfile.EncodeCertificates(m.Roots)}, {"tls.key", key}, {"tls.crt", pemfile.EncodeCertificates([]*x509.Certificate{m.Certificate.Leaf})}} {
		if err := durable.WriteFile(filepath.Join(dir, f.name), f.data, durable.Private); err != nil {
			return err
		}
	}
	return nil
}

func fileSet(dir string) files.Set {
	return files.Set{Dir: dir, Cert: "tls.crt", Key: "tls.key", CA: "ca.crt"}
}

// plainTLS is what a program that does not rotate would load from dir.
func plainTLS(dir string) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading %s: no certificate", dir)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, RootCAs: pool, ServerName: host,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	}, nil
}
