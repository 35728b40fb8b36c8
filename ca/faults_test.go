package ca_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/internal/certs"
)

// The list of a retired issuer needs its key. Without the key the authority is not
// ready and says why, and goes on issuing.
func TestRetiredKeyIsGone(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	enrol(t, c, "storage", "storage")
	old := issuingCertificate(t, c)
	c.RotateIntermediate(t)
	if err := c.Authority.Ready(t.Context()); err != nil {
		t.Errorf("after a rotation: %v", err)
	}
	if err := os.Remove(filepath.Join(c.Dir, "secrets", certs.Fingerprint(old)+".key")); err != nil {
		t.Fatal(err)
	}
	if err := c.Authority.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Authority.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "reading the key of") {
		t.Errorf("ready: %v", err)
	}
	enrol(t, c, "storage", "storage")
}

// Without a record, lists, counts and readiness are errors.
func TestOpsWithoutARecord(t *testing.T) {
	t.Parallel()
	dir := newAuthority(t, setup.Options{})
	reg := prometheus.NewRegistry()
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir, Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.CloseRecord(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	for _, exact := range []bool{false, true} {
		if _, _, err := a.CRLMade(t.Context(), exact); err == nil {
			t.Error("a list without a record")
		}
	}
	if _, err := reg.Gather(); err == nil || !strings.Contains(err.Error(), "counting certificates") {
		t.Errorf("metrics: %v", err)
	}
	if err := a.Ready(t.Context()); err == nil {
		t.Error("ready without a record")
	}
}
