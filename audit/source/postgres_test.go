//go:build unix

package source_test

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/source"
	"github.com/artstore/artstore-pki/internal/pgtest"
)

// A real PostgreSQL sends its certificate after the SSLRequest of its clients.
func TestPostgres(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	server := pgtest.Server{
		TCP:      true,
		Files:    map[string][]byte{"server.crt": certtest.Encode(leaf, intermediate), "server.key": leaf.KeyPEM(t)},
		Settings: []string{"ssl=on"},
	}
	t.Cleanup(server.Stop)
	server.Start(t)
	address := server.Address()
	r := audittest.Run(t, source.Targets{Names: []string{"postgres://" + address}, Bundle: certtest.Bundle([]*certtest.Pair{root}), Timeout: audittest.Patience})
	if len(r.Rows) != 2 || r.Rows[0].State != "OK" || r.Rows[0].Cert.X509().Subject.CommonName != "ingester" || r.Rows[0].TLS.Version != tls.VersionTLS13 {
		t.Errorf("%+v", r.Rows)
	}
	// It speaks no TLS to those who begin with it.
	r = audittest.Run(t, source.Targets{Names: []string{address}, Timeout: audittest.Patience})
	if got := audittest.States(t, r, "")[address]; !strings.HasPrefix(got, "ERROR ") {
		t.Error(got)
	}
}
