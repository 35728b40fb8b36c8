package prom_test

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/prom"
)

// TestOtherCertificates: the end of each, and whether it is in use.
func TestOtherCertificates(t *testing.T) {
	ca := pkitest.NewCA(t)
	m := ca.Leaf(t, "storage")
	good := ca.Leaf(t, "second").Certificate
	expired := ca.Leaf(t, "third", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }).Certificate
	m.Others = []tls.Certificate{good, expired}
	id := pkitest.Open(t, rotation.Config{Source: rotation.Static(m)})
	text := scrape(t, prom.NewCollector(map[string]*rotation.Identity{"storage": id}))
	for line, want := range map[string]bool{
		`artstore_identity_other_served{certificate="Others[0]",identity="storage"} 1`:         true,
		`artstore_identity_other_served{certificate="Others[1]",identity="storage"} 0`:         true,
		`artstore_identity_other_not_after_timestamp_seconds{certificate="Others[0]",identity`: true,
		`artstore_identity_other_not_after_timestamp_seconds{certificate="Others[1]",identity`: false,
	} {
		if strings.Contains(text, line) != want {
			t.Errorf("%s is there: %v\n%s", line, !want, text)
		}
	}
}
