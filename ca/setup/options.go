package setup

import (
	"crypto/x509"
	"fmt"
	"os"
	"time"
	"unicode/utf8"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/secret"
)

// Options say what authority to make. Dir alone is enough.
type Options struct {
	Dir      string   // state directory: absent or empty
	Name     string   // default "ArtStore"
	DNSNames []string // default localhost, 127.0.0.1, ::1
	Address  string   // default 127.0.0.1:9443
	Metrics  string   // default none
	Database string   // default pki.db in Dir; see [policy.Config]
	// KeyType of root and intermediate: EC-P256 (default), Ed25519 or RSA-3072.
	KeyType string
	// LeafLifetime is the default lifetime in pki.yaml: 24h if 0, 10s at least.
	LeafLifetime         time.Duration
	RootLifetime         time.Duration // default 10 years
	IntermediateLifetime time.Duration // default 5 years; never beyond the root
	// OfflineRoot, if set, is a file that gets the encrypted root key, instead of
	// secrets/. It must not exist, and be no URI.
	OfflineRoot string
	// Password encrypts the keys: 8 characters at least ([ErrPassword]). Empty
	// generates one and writes it to secrets/password.
	Password secret.String
	// PlainKeys writes all keys unencrypted, which makes Password useless and
	// saves the seconds that deriving keys from passwords costs: for tests and
	// demonstrations. Off by default.
	PlainKeys bool
	// Profiles replace those of the ArtStore services.
	Profiles map[string]policy.Profile
}

// Result says what was made.
type Result struct {
	Root            *x509.Certificate
	RootFingerprint string // SHA-256, hex
	Provisioner     string // name of the enrolment provisioner
	PasswordFile    string // path of the generated password; empty if one was given
	// SharedNames says, for humans, which services can obtain a name of the authority:
	// by default all can, since the default names of both are those of a developer's machine.
	SharedNames []string
}

const enrolment = "enrolment"

// minPassword is the least that NIST SP 800-63B §5.1.1.1 takes. Whoever has a
// copy of the keys tries passwords without anybody to stop it.
const minPassword = 8

// ErrPassword reports a password that is too short for the keys of an authority.
var ErrPassword = fmt.Errorf("the password has less than %d characters", minPassword)

func (opt Options) check() error {
	if !opt.Password.IsZero() && utf8.RuneCountInString(opt.Password.Expose()) < minPassword {
		return ErrPassword
	}
	if opt.OfflineRoot == "" {
		return nil
	}
	if err := policy.CheckFile(opt.OfflineRoot); err != nil {
		return fmt.Errorf("moving the root key: %w", err)
	}
	if _, err := os.Lstat(opt.OfflineRoot); err == nil {
		return fmt.Errorf("moving the root key: %s: %w", opt.OfflineRoot, os.ErrExist)
	}
	return nil
}

func (opt Options) withDefaults() Options {
	if opt.Name == "" {
		opt.Name = "ArtStore"
	}
	if len(opt.DNSNames) == 0 {
		opt.DNSNames = []string{"localhost", "127.0.0.1", "::1"}
	}
	if opt.Address == "" {
		opt.Address = "127.0.0.1:9443"
	}
	if opt.LeafLifetime == 0 {
		opt.LeafLifetime = policy.DefaultLifetime
	}
	if opt.RootLifetime == 0 {
		opt.RootLifetime = cacert.RootLifetime
	}
	if opt.IntermediateLifetime == 0 {
		opt.IntermediateLifetime = cacert.IntermediateLifetime
	}
	if opt.Profiles == nil {
		opt.Profiles = artstoreProfiles()
	}
	return opt
}

// artstoreProfiles are the services of ArtStore under the names that its
// compose files and its code give them, and the names of a developer's machine.
func artstoreProfiles() map[string]policy.Profile {
	local := []string{"localhost", "127.0.0.1", "::1"}
	with := func(names ...string) policy.Profile { return policy.Profile{Names: append(names, local...)} }
	return map[string]policy.Profile{
		"admin-module": with("admin-module", "artstore_admin_module"),
		"storage-element": with("storage-element", "storage-element-01", "storage-element-02", "storage-element-03",
			"artstore_storage_element_01", "artstore_storage_element_02", "artstore_storage_element_03"),
		"ingester":     with("ingester", "ingester-module"),
		"query-module": with("query-module"),
	}
}
