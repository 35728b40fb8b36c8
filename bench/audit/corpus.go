package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// corpus is what the contenders look at: the same certificates as files and as one bundle.
type corpus struct {
	files, bundle, root string
	size                int
}

const (
	perDir   = 20
	rsaShare = 10 // of which 3 have an RSA key
)

func corpusIn(dir string, size int) corpus {
	return corpus{filepath.Join(dir, "files"), filepath.Join(dir, "bundle.pem"), filepath.Join(dir, "root.pem"), size}
}

// generate writes leaves of one authority: 70 % P-256 and 30 % RSA-2048 keys,
// four names and an address each, twenty in a directory. What a certificate
// holds decides what it costs to read. Nobody has the private halves of the RSA
// keys, and nobody needs them.
func (c corpus) generate() error {
	issuer, root, err := authority()
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.root, encode(root.Raw), 0o600); err != nil { //nolint:forbidigo // made anew by each run
		return err
	}
	keys, err := publicKeys(rsaShare)
	if err != nil {
		return err
	}
	var bundle bytes.Buffer
	for i := range c.size {
		der, err := leaf(i, root, keys[i%len(keys)], issuer)
		if err != nil {
			return err
		}
		sub := filepath.Join(c.files, fmt.Sprintf("host-%04d", i/perDir))
		if i%perDir == 0 {
			if err := os.MkdirAll(sub, 0o700); err != nil {
				return err
			}
		}
		text := encode(der)
		bundle.Write(text)
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("svc-%05d.crt", i)), text, 0o600); err != nil { //nolint:forbidigo // made anew by each run
			return err
		}
	}
	return os.WriteFile(c.bundle, bundle.Bytes(), 0o600) //nolint:forbidigo // made anew by each run
}

func encode(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func authority() (key *ecdsa.PrivateKey, root *x509.Certificate, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Bench Root"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	root, err = x509.ParseCertificate(der)
	return key, root, err
}

// publicKeys are for n leaves in turn, seven of ten on P-256. nil is made anew for
// each leaf; the others differ from leaf to leaf by a number that is added.
func publicKeys(n int) (keys []crypto.PublicKey, err error) {
	for i := range n {
		if i%10 < 7 {
			keys = append(keys, nil) // made for each
			continue
		}
		modulus, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 2047))
		if err != nil {
			return nil, err
		}
		keys = append(keys, &rsa.PublicKey{N: modulus.SetBit(modulus.SetBit(modulus, 2047, 1), 0, 1), E: 65537})
	}
	return keys, nil
}

func leaf(i int, issuer *x509.Certificate, public crypto.PublicKey, key *ecdsa.PrivateKey) ([]byte, error) {
	if public == nil {
		own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		public = own.Public()
	} else if r, ok := public.(*rsa.PublicKey); ok {
		public = &rsa.PublicKey{N: new(big.Int).Add(r.N, big.NewInt(int64(2*i))), E: r.E} // a key of its own
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("svc-%05d.prod.example.internal", i)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name, Organization: []string{"Example"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0).Add(time.Duration(i) * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{name, fmt.Sprintf("svc-%05d", i), fmt.Sprintf("svc-%05d.prod.svc.cluster.local", i), "localhost"},
		IPAddresses:           []net.IP{net.IPv4(10, 0, byte(i>>8), byte(i))}, SubjectKeyId: []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, byte(i)}, //nolint:gosec // G115: its low bytes are wanted
	}
	return x509.CreateCertificate(rand.Reader, template, issuer, public, key)
}
