package acmetest

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// Request is a PKCS #10 request in DER for names, which are DNS names or IP addresses.
func Request(t testing.TB, key crypto.Signer, cn string, names ...string) []byte {
	t.Helper()
	req := &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			req.IPAddresses = append(req.IPAddresses, ip)
			continue
		}
		req.DNSNames = append(req.DNSNames, n)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, req, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// CountRows counts the rows of tables in the SQLite record of a state directory, past all
// code of ours.
func CountRows(t testing.TB, dir string, tables ...string) int {
	t.Helper()
	n, err := RowCounter(t, dir, tables...)()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// RowCounter returns a function that counts as [CountRows] does, over one connection.
func RowCounter(t testing.TB, dir string, tables ...string) func() (int, error) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "pki.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	text := `SELECT (SELECT count(*) FROM ` + strings.Join(tables, `) + (SELECT count(*) FROM `) + `)`
	ctx := context.WithoutCancel(t.Context())
	return func() (n int, err error) {
		err = db.QueryRowContext(ctx, text).Scan(&n)
		return n, err
	}
}
