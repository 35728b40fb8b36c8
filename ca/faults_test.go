package ca_test

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/doctor"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// The list of a retired issuer needs its key: without it the authority says that
// it is not ready, and goes on issuing.
func TestRetiredKeyIsGone(t *testing.T) {
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	enrol(t, c, "storage", "storage")
	old := issuingCertificate(t, c)
	if err := c.Authority.RotateIntermediate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Authority.Ready(t.Context()); err != nil {
		t.Errorf("after a rotation: %v", err)
	}
	remove(t, c.Dir, "secrets/"+certs.Fingerprint(old)+".key")
	if err := c.Authority.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Authority.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "reading the key of") {
		t.Errorf("ready: %v", err)
	}
	if bad := diagnose(t, doctor.Options{Dir: c.Dir}, doctor.Error); len(bad) != 1 || !strings.Contains(bad[0], old.Subject.CommonName) {
		t.Errorf("doctor: %q", bad)
	}
	enrol(t, c, "storage", "storage")
}

// Without a record there is no list, no count and no readiness, and each says so.
func TestOpsWithoutARecord(t *testing.T) {
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

// What is wrong with the chain is told from what is wrong with the clock.
func TestDoctorOnTrust(t *testing.T) {
	for name, tc := range map[string]struct {
		opt  setup.Options
		want string
	}{
		"expired":   {setup.Options{IntermediateLifetime: time.Millisecond}, "trust: intermediate"},
		"all of it": {setup.Options{RootLifetime: time.Millisecond}, "trust: root"},
	} {
		dir := newAuthority(t, tc.opt)
		if bad := diagnose(t, doctor.Options{Dir: dir}, doctor.Error); !strings.Contains(strings.Join(bad, "\n"), tc.want) {
			t.Errorf("%s: %q", name, bad)
		}
	}
	dir, other := newAuthority(t, setup.Options{}), newAuthority(t, setup.Options{})
	root, err := ca.StateDir(other).ActiveRoot()
	if err != nil {
		t.Fatal(err)
	}
	mine, err := ca.StateDir(dir).ActiveRoot()
	if err != nil {
		t.Fatal(err)
	}
	foreign := certs.Fingerprint(root)
	damage.File(t, filepath.Join(dir, "certs", foreign+".crt"), pemfile.EncodeCertificates([]*x509.Certificate{root}))
	path := filepath.Join(dir, "certs", "current.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damage.File(t, path, bytes.Replace(data, []byte(certs.Fingerprint(mine)), []byte(foreign), 1))
	if bad := diagnose(t, doctor.Options{Dir: dir}, doctor.Error); !strings.Contains(strings.Join(bad, "\n"), "was signed by none of the roots") {
		t.Errorf("a foreign root: %q", bad)
	}
}
