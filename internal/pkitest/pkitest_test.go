package pkitest_test

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation"
)

func TestSourcePushesGenerations(t *testing.T) {
	ca := pkitest.NewCA(t)
	src := pkitest.NewSource(ca.Leaf(t, "one"))
	id := pkitest.Open(t, rotation.Config{Source: src})
	for n := uint64(1); n <= 3; n++ {
		if got := id.Current().Number(); got != n {
			t.Fatalf("generation %d, want %d", got, n)
		}
		src.Push(t, ca.Leaf(t, "one"))
	}
	err := src.Offer(ca.Leaf(t, "one", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }))
	if err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("an expired leaf: %v", err)
	}
	if got := id.Current().Number(); got != 4 {
		t.Errorf("generation %d after a refusal, want 4", got)
	}
}
