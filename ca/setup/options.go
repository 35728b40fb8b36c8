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
	// Dir becomes the state directory. It must be absent or empty; the directories
	// above it are made.
	Dir string
	// Name is the organization in the subjects of the CA certificates. Default "ArtStore".
	Name string
	// DNSNames are the names and IP addresses that clients reach the authority by;
	// enrolment tokens are made for the first. Default localhost, 127.0.0.1, ::1.
	DNSNames []string
	// Address is where the authority listens, host:port. Default 127.0.0.1:9443.
	Address string
	// Metrics is where it answers /metrics in cleartext, host:port. Default nowhere.
	Metrics string
	// Database is where the record is: a file, relative to Dir, or a postgres:// URL
	// as in [policy.Config]. Default pki.db.
	Database string
	// KeyType of root and intermediate: EC-P256 (default), Ed25519 or RSA-3072.
	KeyType string
	// LeafLifetime is the default lifetime in pki.yaml: 24h if 0, 10s at least.
	LeafLifetime time.Duration
	// RootLifetime is how long the root certificate is valid. Default 10 years.
	RootLifetime time.Duration
	// IntermediateLifetime is that of the intermediate. Default 5 years; a longer one
	// ends with the root.
	IntermediateLifetime time.Duration
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
	// Root is the new root certificate.
	Root *x509.Certificate
	// RootFingerprint is the SHA-256 of Root in hex, which clients need to enrol.
	RootFingerprint string
	// Provisioner is the name of the provisioner for enrolment tokens in pki.yaml.
	Provisioner string
	// PasswordFile is the path of the generated password; empty if one was given or
	// the keys are plain.
	PasswordFile string
	// SharedNames says, for humans, which services can obtain a name of the authority:
	// by default all can, since the default names of both are those of a developer's machine.
	SharedNames []string
}

// enrolment is the name of the provisioner that Init makes. It is in pki.yaml, in
// the name of the file of its key, and in each token as the issuer.
const enrolment = "enrolment"

// minPassword is the shortest password in characters, as in NIST SP 800-63B
// §5.1.1.1. A thief of the key files can try passwords without any limit of rate.
const minPassword = 8

// ErrPassword reports a password that is too short for the keys of an authority.
var ErrPassword = fmt.Errorf("the password has less than %d characters", minPassword)

// check refuses what would fail after files were written. The other options are
// checked as pki.yaml, see newAuthority.generate.
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

// withDefaults returns the options with the default in each field that is empty.
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
