package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

const (
	domain = "bench.test" // trust domain of the SPIFFE names, which go-spiffe needs and nobody else minds
	host   = "localhost"
)

// authority is a root with one intermediate, as most internal PKIs have it.
type authority struct {
	root, inter *x509.Certificate
	interKey    crypto.Signer
}

func newAuthority(name string) (*authority, error) {
	template := func(cn string, serial int64) *x509.Certificate {
		return &x509.Certificate{
			Subject: pkix.Name{CommonName: cn}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
			SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		}
	}
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	interKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	root := template(name+" root", 1)
	if root, err = signed(root, root, rootKey.Public(), rootKey); err != nil {
		return nil, err
	}
	inter, err := signed(template(name+" intermediate", 2), root, interKey.Public(), rootKey)
	if err != nil {
		return nil, err
	}
	return &authority{root: root, inter: inter, interKey: interKey}, nil
}

func signed(template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		return nil, fmt.Errorf("signing certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// identity is what one peer has: leaf, intermediate, key, and whom it trusts.
type identity struct {
	cert  tls.Certificate
	roots []*x509.Certificate
}

func (i identity) serial() string { return i.cert.Leaf.SerialNumber.String() }

func (i identity) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, r := range i.roots {
		pool.AddCert(r)
	}
	return pool
}

// issue makes an identity that trusts this authority. Serials tell rotations apart.
func (a *authority) issue(name string, serial int64) (identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return identity{}, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name, host}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		SerialNumber: big.NewInt(serial),
		URIs:         []*url.URL{{Scheme: "spiffe", Host: domain, Path: "/" + name}},
		KeyUsage:     x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
	}
	leaf, err := signed(template, a.inter, key.Public(), a.interKey)
	if err != nil {
		return identity{}, err
	}
	return identity{
		cert:  tls.Certificate{Certificate: [][]byte{leaf.Raw, a.inter.Raw}, PrivateKey: key, Leaf: leaf},
		roots: []*x509.Certificate{a.root},
	}, nil
}

func (i identity) files() (map[string][]byte, error) {
	chain := []*x509.Certificate{i.cert.Leaf}
	for _, der := range i.cert.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		chain = append(chain, c)
	}
	key, err := pemfile.EncodePrivateKey(i.cert.PrivateKey.(crypto.Signer))
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		"tls.crt": pemfile.EncodeCertificates(chain), "tls.key": key, "ca.crt": pemfile.EncodeCertificates(i.roots),
	}, nil
}

// folder lays an identity out as kubelet does with a mounted secret: names are
// links through ..data, which one rename swaps for all files at once.
type folder struct {
	dir   string
	swaps int
}

func newFolder(dir string, id identity) (*folder, error) {
	f := &folder{dir: dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := f.swap(id); err != nil {
		return nil, err
	}
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
		if err := os.Symlink(filepath.Join("..data", name), f.path(name)); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

func (f *folder) cert() string { return f.path("tls.crt") }
func (f *folder) key() string  { return f.path("tls.key") }
func (f *folder) ca() string   { return f.path("ca.crt") }

// clientConfig trusts the bundle of the folder and has no identity yet.
func (f *folder) clientConfig() (*tls.Config, error) {
	data, err := os.ReadFile(f.ca())
	if err != nil {
		return nil, err
	}
	roots, err := pemfile.Certificates(data)
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: identity{roots: roots}.pool()}, nil
}

func (f *folder) swap(id identity) error {
	old := ".." + strconv.Itoa(f.swaps)
	f.swaps++
	next := ".." + strconv.Itoa(f.swaps)
	if err := plain(f.path(next), id); err != nil {
		return err
	}
	link := f.path("..data_tmp")
	if err := os.Symlink(next, link); err != nil {
		return err
	}
	if err := os.Rename(link, f.path("..data")); err != nil {
		return err
	}
	return os.RemoveAll(f.path(old))
}

// plain writes an identity as three files into dir.
func plain(dir string, id identity) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	files, err := id.files()
	if err != nil {
		return err
	}
	for name, data := range files {
		if err := durable.WriteFile(filepath.Join(dir, name), data, durable.Private); err != nil {
			return err
		}
	}
	return nil
}
