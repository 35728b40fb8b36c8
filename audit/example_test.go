package audit_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/report"
	"github.com/artstore/artstore-pki/audit/source"
	"github.com/artstore/artstore-pki/internal/pkitest"
)

// What is wrong with the certificates below a directory, by the bundle that
// should verify them: the number of findings decides, the report is for people.
func ExampleRun() {
	dir, bundle := exampleCertificates()
	defer func() { _ = os.RemoveAll(dir) }()
	report, err := report.New("table", os.Stderr, report.Terminal{})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	summary, err := audit.Run(ctx, audit.Config{
		Report:  report,
		Sources: []audit.Source{source.Targets{Names: []string{dir}, Bundle: bundle}}, // and HOST:PORT for servers
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("certificates:", summary.Certificates)
	fmt.Println("fine:", summary.Fine)
	fmt.Println("critical:", summary.Crit)
	// Output:
	// certificates: 2
	// fine: 1
	// critical: 1
}

// exampleCertificates writes one that is good for an hour, and an expired one.
func exampleCertificates() (dir string, bundle []*x509.Certificate) {
	dir, err := os.MkdirTemp("", "audit")
	if err != nil {
		log.Fatal(err)
	}
	t := pkitest.Example()
	ca := pkitest.NewCA(t)
	for name, end := range map[string]time.Duration{"good.crt": time.Hour, "expired.crt": -time.Second} {
		m := ca.Leaf(t, "storage", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(end) })
		block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.Certificate.Certificate[0]})
		if err := os.WriteFile(filepath.Join(dir, name), block, 0o600); err != nil {
			log.Fatal(err)
		}
	}
	return dir, []*x509.Certificate{ca.Root}
}
