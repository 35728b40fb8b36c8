package browser

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/report"
)

const day = 24 * time.Hour

// hostile is a name that would be an element, end the script, close an attribute,
// colour a terminal or turn the text around it.
const hostile = "</script><img src=x onerror=alert(1)>\"' onload=\x1b[31m\u202e javascript:alert(1)"

// sample is a source of certificates that were made for a test.
type sample []audit.Subject

func (s sample) Collect(_ context.Context, yield func(audit.Subject)) {
	for _, one := range s {
		yield(one)
	}
}

// maker signs leaves.
type maker struct {
	t      testing.TB
	now    time.Time
	key    *ecdsa.PrivateKey
	issuer *x509.Certificate
	serial int64 // of the last leaf
}

func newMaker(t testing.TB) *maker {
	m := &maker{t: t, now: time.Now()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Sample Root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: m.now.Add(-time.Hour), NotAfter: m.now.Add(3650 * day), KeyUsage: x509.KeyUsageCertSign,
	}
	m.key = m.newKey()
	m.issuer = template
	m.issuer = m.sign(template, m.key)
	return m
}

func (m *maker) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(m.t, err)
	return key
}

func (m *maker) sign(template *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, m.issuer, &key.PublicKey, m.key)
	must(m.t, err)
	c, err := x509.ParseCertificate(der)
	must(m.t, err)
	return c
}

// leaf is valid between these distances from now.
func (m *maker) leaf(name string, from, to time.Duration) audit.Subject {
	m.serial++
	c := m.sign(&x509.Certificate{
		SerialNumber: big.NewInt(m.now.UnixNano() + m.serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"svc.internal", "localhost"},
		NotBefore: m.now.Add(from), NotAfter: m.now.Add(to), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, m.newKey())
	return m.subject("/etc/artstore/"+name+"/tls.crt", c)
}

func (m *maker) subject(place string, c *x509.Certificate) audit.Subject {
	parsed, err := cert.Parse(c.Raw)
	must(m.t, err)
	return audit.Subject{Kind: "file", Place: place, Cert: parsed}
}

// twelve rows of all states, one of them hostile.
func twelve(m *maker) sample {
	readable := m.leaf("gateway", -100*day, 200*day)
	readable.Key = &cert.KeyFile{Path: "/etc/artstore/gateway/tls.key", Mode: 0o644, Fits: true}
	return sample{
		m.leaf("legacy-ftp", -400*day, -35*day), m.leaf("billing", -2*day, -3*time.Hour),
		m.leaf("ingester", -20*time.Hour, 4*time.Hour), m.leaf("admin-module", -time.Hour, 23*time.Hour),
		m.leaf("query-module", -340*day, 5*day), m.leaf("storage-element-01", -340*day, 25*day), readable,
		m.leaf(hostile, -10*day, 300*day), m.leaf("storage-element-02", -2*time.Hour, 22*time.Hour), m.leaf("search", -10*day, 380*day),
		m.subject("/etc/artstore/ca.crt", m.issuer),
		{Kind: "endpoint", Place: "storage-element-03.artstore.internal:8010", Err: errors.New("no answer within 5s")},
	}
}

// many is a fleet with some of everything.
func many(m *maker, n int) sample {
	out := make(sample, 0, n)
	for i := range n {
		name := fmt.Sprintf("svc-%05d", i)
		switch {
		case i%2000 == 7:
			out = append(out, m.leaf(name, -90*day, -time.Duration(i)*time.Minute))
		case i%1000 == 3:
			out = append(out, audit.Subject{Kind: "file", Place: "/srv/" + name + "/tls.crt", Err: errors.New("block 1 is damaged or cut off")})
		case i%500 == 1:
			out = append(out, m.leaf(name, -340*day, time.Duration(1+i%28)*day))
		case i%3 == 0:
			out = append(out, m.leaf(name, -60*day, time.Duration(100+i%700)*day))
		default:
			out = append(out, m.leaf(name, -time.Duration(i%600)*time.Minute, time.Duration(15+i%9)*time.Hour))
		}
	}
	return out
}

// write audits a sample and returns the path of its page.
func write(t testing.TB, s sample) string {
	path := filepath.Join(t.TempDir(), "report.html")
	f, err := os.Create(path)
	must(t, err)
	defer func() { must(t, f.Close()) }()
	out, err := report.New("html", f, report.Terminal{Program: "artstore-pki v0"})
	must(t, err)
	_, err = audit.Run(t.Context(), audit.Config{Sources: []audit.Source{s}, Report: out})
	must(t, err)
	return path
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
