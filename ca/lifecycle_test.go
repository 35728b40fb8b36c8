package ca_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/secret"
)

// TestEncrypted runs an authority with a generated password and an offline root
// through its life. The test kit avoids both, because deriving keys takes seconds.
func TestEncrypted(t *testing.T) {
	t.Parallel()
	dir, offline := filepath.Join(t.TempDir(), "pki"), filepath.Join(t.TempDir(), "root.key")
	res, err := setup.Init(t.Context(), setup.Options{Dir: dir, OfflineRoot: offline})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Open(t.Context(), ca.Options{Dir: dir, Password: secret.New("wrong")}); err == nil || !strings.Contains(err.Error(), "wrong password") {
		t.Errorf("wrong password: %v", err)
	}
	reg := prometheus.NewRegistry()
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir, Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	if err := a.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	if got, err := reg.Gather(); err != nil || len(got) == 0 {
		t.Errorf("metrics: %d families, %v", len(got), err)
	}
	if _, err := ca.StateDir(dir).NewToken(t.Context(), ca.TokenOptions{Service: "ingester"}); err != nil {
		t.Error(err)
	}
	rotate := stepapi.TrustChange{Step: stepapi.StepRotateIntermediate}
	if _, err := a.ChangeTrust(t.Context(), "operator", rotate); err != nil {
		t.Errorf("rotating with the offline key present: %v", err)
	}
	if err := os.Remove(offline); err != nil {
		t.Fatal(err)
	}
	if _, err := a.ChangeTrust(t.Context(), "operator", rotate); err == nil || !strings.Contains(err.Error(), offline) {
		t.Errorf("rotating without the root key: %v", err)
	}
	if err := os.Remove(res.PasswordFile); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Open(t.Context(), ca.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "no key password") {
		t.Errorf("without any password: %v", err)
	}
}

func TestKeyTypes(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"Ed25519", "RSA-3072"} {
		t.Run(kind, func(t *testing.T) {
			c := catest.Start(t, catest.Options{KeyType: kind, Lifetime: 10 * time.Second})
			leaf := enrol(t, c, "query-module", "query-module").Leaf
			if leaf.NotAfter.Sub(leaf.NotBefore) != 11*time.Second { // a tenth for clocks that are behind
				t.Errorf("from %s to %s", leaf.NotBefore, leaf.NotAfter)
			}
			c.Check(t)
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	made := filepath.Join(t.TempDir(), "pki")
	if _, err := setup.Init(t.Context(), setup.Options{Dir: made, PlainKeys: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Open(t.Context(), ca.Options{Dir: t.TempDir()}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
	key := damage.Files(t, made, "secrets/????????*.key") // not log.key
	certs := damage.Files(t, made, "certs/????????*.crt")
	for name, tc := range map[string]struct{ file, content, want string }{
		"unknown key":      {"pki.yaml", "name: x\naddr: y\n", `line 2: unknown key "addr"`},
		"empty":            {"pki.yaml", "", "empty"},
		"everything wrong": {"pki.yaml", "name: x\naddress: a:1\nprofiles: {ca: {names: [x]}, y: {usages: [z], key_types: [q]}}\n", "reserved"},
		"trust cut off":    {"certs/current.json", "{", "current.json: the file was cut off"},
		"trust without":    {"certs/current.json", "", "current.json: the file is empty"},
		"trust empty":      {"certs/current.json", "{}", "no roots"},
		"trust path":       {"certs/current.json", `{"roots":["../x"],"intermediates":["y"]}`, "not a fingerprint"},
		"key mismatch":     {"", "", "is not the key of"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "pki")
			if err := os.CopyFS(dir, os.DirFS(made)); err != nil {
				t.Fatal(err)
			}
			if tc.file != "" {
				damage.File(t, filepath.Join(dir, tc.file), []byte(tc.content))
			} else { // swap the two keys
				for i, k := range key {
					data, err := os.ReadFile(key[1-i])
					if err != nil {
						t.Fatal(err)
					}
					damage.File(t, filepath.Join(dir, "secrets", filepath.Base(k)), data)
				}
			}
			if _, err := ca.Open(t.Context(), ca.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
	t.Run("truncated certificate", func(t *testing.T) {
		damage.File(t, certs[0], []byte("-----BEGIN CERTIFICATE-----\nMIIB"))
		if _, err := ca.Open(t.Context(), ca.Options{Dir: made}); err == nil || !strings.Contains(err.Error(), "damaged PEM") {
			t.Error(err)
		}
	})
}

func TestReloadKeepsTheOldConfiguration(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	c.Rewrite(t, func(b []byte) []byte { return append(b, "surprise: true\n"...) })
	if err := c.Authority.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), `unknown key "surprise"`) {
		t.Errorf("reload: %v", err)
	}
	c.Rewrite(t, func(b []byte) []byte { return []byte(strings.Replace(string(b), "surprise: true\n", "", 1)) })
	enrol(t, c, "storage", "storage")
	if err := c.Authority.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	enrol(t, c, "storage", "storage")
	c.Check(t)
}

func TestNewTokenRefuses(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	for name, tc := range map[string]struct {
		opt  ca.TokenOptions
		want string
	}{
		"no profile":  {ca.TokenOptions{Service: "stranger"}, `service "stranger" has no profile (rule: profile)`},
		"other name":  {ca.TokenOptions{Service: "storage", Names: []string{"ingester"}}, `"ingester" is not a name of service storage`},
		"wildcard":    {ca.TokenOptions{Service: "storage", Names: []string{"*"}}, "wildcard"},
		"too long":    {ca.TokenOptions{Service: "storage", Lifetime: 2 * time.Hour}, "1h0m0s at most"},
		"provisioner": {ca.TokenOptions{Service: "storage", Provisioner: "x"}, `provisioner "x"`},
		"serial":      {ca.TokenOptions{Service: "zz", Revoke: true}, "want decimal digits"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ca.StateDir(c.Dir).NewToken(t.Context(), tc.opt); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func TestRecord(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	one := enrol(t, c, "ingester", "::1", spiffe).Leaf.SerialNumber
	enrol(t, c, "storage", "storage")
	r := openRecord(t, c)
	page, next, err := r.List(t.Context(), record.Query{Name: "0:0::1", State: record.StateValid})
	if err != nil || next != "" || len(page) != 2 { // the ingester's and the authority's own
		t.Errorf("by name: %d, %q, %v", len(page), next, err)
	}
	if e, err := r.Show(t.Context(), "0x"+one.Text(16)); err != nil || e.Service != "ingester" || e.Provisioner != "enrolment" {
		t.Errorf("show: %+v %v", e, err)
	}
	if _, err := r.Show(t.Context(), "12345"); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
	if err := r.Revoke(t.Context(), one.String(), 7, ""); err == nil {
		t.Error("reason 7 was accepted")
	}
	if err := r.Revoke(t.Context(), one.String(), 1, "stolen"); err != nil {
		t.Error(err)
	}
	if err := r.Revoke(t.Context(), one.String(), 1, "stolen"); !errors.Is(err, store.ErrAlreadyRevoked) {
		t.Errorf("twice: %v", err)
	}
	for _, sel := range []record.Selection{{}, {Service: "a", Lineage: "1"}, {Lineage: "zz"}, {Lineage: "12345"}} {
		if _, err := r.Selected(t.Context(), sel); err == nil {
			t.Errorf("%+v was accepted", sel)
		}
		if _, err := r.RevokeSet(t.Context(), sel, 0, ""); err == nil {
			t.Errorf("%+v was revoked", sel)
		}
	}
	if _, err := r.RevokeSet(t.Context(), record.Selection{Service: "storage"}, 7, ""); err == nil {
		t.Error("reason 7 was accepted for a set")
	}
	if set, err := r.Selected(t.Context(), record.Selection{Service: "storage"}); err != nil || len(set) != 1 {
		t.Errorf("a set: %+v %v", set, err)
	}
	if _, err := ca.StateDir(t.TempDir()).OpenRecord(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("elsewhere: %v", err)
	}
	c.Check(t)
}

// newAuthority makes a state directory without a password, whose root key is elsewhere.
func newAuthority(t testing.TB, opt setup.Options) string {
	t.Helper()
	opt.Dir, opt.PlainKeys = filepath.Join(t.TempDir(), "pki"), true
	opt.OfflineRoot = filepath.Join(t.TempDir(), "root.key")
	if _, err := setup.Init(t.Context(), opt); err != nil {
		t.Fatal(err)
	}
	return opt.Dir
}

// Prune removes certificates that expired so long ago that nothing can renew them.
func TestPrune(t *testing.T) {
	t.Parallel()
	dir := newAuthority(t, setup.Options{})
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	for range 3 {
		if err := a.IssueOwn(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	damage.SQL(t, dir, `UPDATE certificates SET not_after = 1000 WHERE id < 3`)
	r, err := ca.StateDir(dir).OpenRecord(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	young := time.Now().Add(-71 * time.Hour)
	if _, err := r.Prunable(t.Context(), young); err == nil {
		t.Error("what can be renewed could be pruned")
	}
	if _, err := r.Prune(t.Context(), young); err == nil {
		t.Error("what can be renewed was pruned")
	}
	before := time.Now().Add(-73 * time.Hour)
	if n, err := r.Prunable(t.Context(), before); err != nil || n != 2 {
		t.Errorf("%d prunable, %v", n, err)
	}
	if err := a.SequenceLog(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Prune(t.Context(), before); err != nil || n != 2 {
		t.Errorf("%d pruned, %v", n, err)
	}
	if n, err := r.Prunable(t.Context(), before); err != nil || n != 0 {
		t.Errorf("%d prunable afterwards, %v", n, err)
	}
}
