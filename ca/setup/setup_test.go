package setup_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/logtest"
	"github.com/artstore/artstore-pki/internal/pgtest"
	"github.com/artstore/artstore-pki/secret"
)

var postgres pgtest.Server

func TestMain(m *testing.M) {
	defer postgres.Stop()
	m.Run()
}

func TestInitRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		opt  setup.Options
		want string
	}{
		"key type": {setup.Options{KeyType: "DSA"}, `key type "DSA"`},
		"lifetime": {setup.Options{LeafLifetime: time.Second}, "shorter than 10s"},
		"address":  {setup.Options{Address: "nowhere"}, "address"},
		"name":     {setup.Options{Profiles: map[string]policy.Profile{"x": {Names: []string{"*.x"}}}}, "wildcard"},
		"offline":  {setup.Options{OfflineRoot: "/nonexistent/root.key"}, "moving the root key"},
		"pkcs11":   {setup.Options{OfflineRoot: "pkcs11:token=x;object=root"}, "it is a URI"},
		"cloud":    {setup.Options{OfflineRoot: "awskms:key-id=1"}, "it is a URI"},
		"taken":    {setup.Options{OfflineRoot: "setup_test.go"}, "moving the root key: setup_test.go: file already exists"},
		"port":     {setup.Options{Address: "127.0.0.1:99999"}, `port "99999" is not a number from 0 to 65535`},
		"no port":  {setup.Options{Metrics: "127.0.0.1:"}, `metrics: "127.0.0.1:": port ""`},
		"service":  {setup.Options{Address: "127.0.0.1:https"}, `port "https"`},
		"password": {setup.Options{Password: secret.New("пароль1")}, "the password has less than 8 characters"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "pki")
			tc.opt.Dir, tc.opt.PlainKeys = dir, tc.opt.Password.IsZero()
			if _, err := setup.Init(t.Context(), tc.opt); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
			if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// TestInitTakesNoRecord: neither one that has issued nor one that was only made;
// but an Init that failed leaves nothing behind that stops the next one.
func TestInitTakesNoRecord(t *testing.T) {
	database := postgres.Database(t)
	nowhere := filepath.Join(t.TempDir(), "absent", "root.key")
	for i, tc := range []struct {
		offline string
		want    string
	}{{nowhere, "moving the root key"}, {"", ""}, {"", "the record of another authority"}} {
		dir := filepath.Join(t.TempDir(), "ca")
		_, err := setup.Init(t.Context(), setup.Options{Dir: dir, PlainKeys: true, Database: database, OfflineRoot: tc.offline})
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// With a generated password and the root key elsewhere, every key is encrypted, and
// what was made is an authority that the password opens.
func TestInitEncrypts(t *testing.T) {
	dir, offline := filepath.Join(t.TempDir(), "pki"), filepath.Join(t.TempDir(), "root.key")
	res, err := setup.Init(t.Context(), setup.Options{Dir: dir, OfflineRoot: offline})
	if err != nil {
		t.Fatal(err)
	}
	if res.PasswordFile != filepath.Join(dir, "secrets", "password") {
		t.Errorf("password file %q", res.PasswordFile)
	}
	root, err := ca.StateDir(dir).ActiveRoot()
	if err != nil || certs.Fingerprint(root) != res.RootFingerprint {
		t.Errorf("active root: %v", err)
	}
	if root.MaxPathLen != 1 || time.Since(root.NotBefore) < time.Hour {
		t.Errorf("root: path length %d, not before %s", root.MaxPathLen, root.NotBefore)
	}
	for _, path := range append(damage.Files(t, dir, "secrets/*"), offline) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), "BEGIN PRIVATE KEY") || strings.HasPrefix(string(data), "{") {
			t.Errorf("%s is not encrypted", path)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, PlainKeys: true}); !errors.Is(err, durable.ErrNotEmpty) {
		t.Errorf("init again: %v", err)
	}
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

// Every option and every field of a profile is in pki.yaml, as Open reads it. A text
// with the syntax of YAML in it stays a text.
func TestInitWritesEveryOption(t *testing.T) {
	grace := 12 * time.Hour
	profiles := map[string]policy.Profile{
		"storage": {
			Names: []string{"storage", "localhost"}, Patterns: []string{"*.storage.internal"}, Wildcards: []string{"*.apps.internal"},
			Usages: []string{"server"}, KeyTypes: []string{"EC-P256", "Ed25519"}, ACME: true, MaxLive: 7, MaxLivePerLineage: 3,
			Lifetime: policy.Lifetimes{Default: time.Hour, Min: 10 * time.Minute, Max: 2 * time.Hour, Grace: &grace},
		},
		"plain": {Names: []string{"plain"}},
	}
	opt := setup.Options{
		Dir: filepath.Join(t.TempDir(), "ca"), Name: "x\"\nprofiles: {other: {names: [other]}}", DNSNames: []string{"localhost", "ca.internal"},
		Address: "127.0.0.1:0", Metrics: "127.0.0.1:9444", Database: "elsewhere.db", LeafLifetime: 6 * time.Hour, LeafKeyTypes: []string{"EC-P384"},
		Root: setup.Certificate{Lifetime: 48 * time.Hour}, Intermediate: setup.Certificate{Lifetime: 24 * time.Hour}, PlainKeys: true,
		OfflineRoot: filepath.Join(t.TempDir(), "root.key"), Profiles: profiles,
	}
	res, err := setup.Init(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := policy.Load(opt.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Name != opt.Name || !slices.Equal(cfg.DNSNames, opt.DNSNames) || cfg.Address != opt.Address || cfg.Metrics != opt.Metrics ||
		cfg.Database != opt.Database || cfg.RootKey != opt.OfflineRoot || cfg.Lifetime.Default != opt.LeafLifetime || !slices.Equal(cfg.KeyTypes, opt.LeafKeyTypes) {
		t.Errorf("read back as %+v", cfg)
	}
	if !reflect.DeepEqual(cfg.Profiles, profiles) {
		t.Errorf("profiles %+v, want %+v", cfg.Profiles, profiles)
	}
	if life := res.Root.NotAfter.Sub(res.Root.NotBefore); life < 48*time.Hour || life > 51*time.Hour {
		t.Errorf("the root lives %s", life)
	}
	if len(res.SharedNames) != 1 || !strings.Contains(res.SharedNames[0], "localhost") || res.PasswordFile != "" || res.Provisioner != "enrolment" {
		t.Errorf("result %+v", res)
	}
	if _, err := os.Stat(filepath.Join(opt.Dir, opt.Database)); err != nil {
		t.Errorf("the record: %v", err)
	}
}

// A directory with the parts of an authority and no pki.yaml is unfinished; a whole
// one and an empty one are not.
func TestUnfinished(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := setup.Init(t.Context(), setup.Options{Dir: dir, PlainKeys: true}); err != nil {
		t.Fatal(err)
	}
	if setup.Unfinished(dir) || setup.Unfinished(t.TempDir()) {
		t.Error("a whole or an empty directory is said to be unfinished")
	}
	if err := os.Remove(filepath.Join(dir, "pki.yaml")); err != nil {
		t.Fatal(err)
	}
	if !setup.Unfinished(dir) {
		t.Error("a directory without pki.yaml is said to be finished")
	}
}

// TestUnpermittedNamesAreTold: names of profiles that the CA certificates do not permit are said by
// Init and at each start, because clients refuse certificates with them. Names of the authority
// itself are refused.
func TestUnpermittedNamesAreTold(t *testing.T) {
	opt := setup.Options{
		Dir: filepath.Join(t.TempDir(), "ca"), PlainKeys: true, DNSNames: []string{"ca.internal"},
		Root: setup.Certificate{Permit: []string{"internal"}}, Intermediate: setup.Certificate{Permit: []string{"ca.internal", "good.internal"}},
		Profiles: map[string]policy.Profile{"good": {Names: []string{"good.internal"}}, "bad": {Names: []string{"bad.internal", "good.internal"}}},
	}
	res, err := setup.Init(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"profiles.bad: the CA certificates do not permit bad.internal"}; !slices.Equal(res.Unpermitted, want) {
		t.Errorf("told %q, want %q", res.Unpermitted, want)
	}
	var logged logtest.Buffer
	a, err := ca.Open(t.Context(), ca.Options{Dir: opt.Dir, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	if text := logged.String(); !strings.Contains(text, "names of a profile\" service=bad what=bad.internal") || strings.Contains(text, "service=good") {
		t.Errorf("logged %s", text)
	}
	opt.Dir, opt.DNSNames = filepath.Join(t.TempDir(), "other"), []string{"ca.internal", "10.0.0.1"}
	if _, err := setup.Init(t.Context(), opt); err == nil || !strings.Contains(err.Error(), "the authority's own names 10.0.0.1") {
		t.Errorf("own names: %v", err)
	}
}
