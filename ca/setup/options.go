package setup

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"
	"unicode/utf8"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/keystore"
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
	// KeyType of root and intermediate, where Root and Intermediate say nothing: EC-P256
	// (default), EC-P384, Ed25519, RSA-3072 or RSA-4096.
	KeyType string
	// Root and Intermediate say how the two CA certificates are made. Rotations make
	// later ones alike.
	Root, Intermediate Certificate
	// RootPathLength is how many intermediates there may be on a path below the root
	// (RFC 5280 §4.2.1.9). Default 1, which is what the authority needs; -1 is no limit.
	RootPathLength int
	// LeafKeyTypes are the kinds of keys that profiles allow which list none (key_types
	// in pki.yaml). Default all but RSA-2048.
	LeafKeyTypes []string
	// LeafLifetime is the default lifetime in pki.yaml: 24h if 0, 10s at least.
	LeafLifetime time.Duration
	// Existing are a root and an intermediate to go on with. The zero value makes both.
	Existing Existing
	// OfflineRoot, if set, is a file that gets the encrypted root key, instead of
	// secrets/. It must not exist, and be no URI.
	OfflineRoot string
	// Password encrypts the keys: 8 characters at least ([ErrPassword]). Empty
	// generates one and writes it to secrets/password.
	Password secret.String
	// RootPassword encrypts the root key in place of Password: 8 characters at least. It
	// is written nowhere. Empty means Password.
	RootPassword secret.String
	// PlainKeys writes all keys unencrypted, which makes Password useless and
	// saves the seconds that deriving keys from passwords costs: for tests and
	// demonstrations. Off by default.
	PlainKeys bool
	// Profiles replace those of the ArtStore services.
	Profiles map[string]policy.Profile
}

// Certificate says how a CA certificate is made. The zero value is the default.
type Certificate struct {
	// KeyType is a kind of key as in [Options.KeyType], which is the default.
	KeyType string
	// Lifetime is how long the certificate is valid. Default 10 years for a root and 5
	// for an intermediate; a longer one of an intermediate ends with its root.
	Lifetime time.Duration
	// KMS is the URI of a key store, as in package ca/internal/keystore, in which the key is made;
	// one that names a key uses that, if it is there. Rotations make later keys in the same
	// store. Empty keeps the key in the state directory.
	KMS string
	// Permit are the names that certificates below this one may have, as name constraints
	// (RFC 5280 §4.2.1.10): DNS names with all names below them, IP addresses, networks
	// such as 10.20.0.0/16, and hosts of URIs such as spiffe://artstore. If there is one
	// entry, kinds of names without an entry are not permitted at all. Empty permits
	// everything.
	Permit []string
}

// Result says what was made.
type Result struct {
	// Root is the root certificate; nil after [Request].
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
	// Unpermitted says, for humans, which names of profiles the CA certificates do not
	// permit ([Certificate.Permit]). Clients refuse certificates with such a name.
	Unpermitted []string
}

// enrolment is the name of the provisioner that Init makes. It is in pki.yaml, in
// the name of the file of its key, and in each token as the issuer.
const enrolment = "enrolment"

// minPassword is the shortest password in characters, as in NIST SP 800-63B
// §5.1.1.1. A thief of the key files can try passwords without any limit of rate.
const minPassword = 8

// ErrPassword reports a password that is too short for the keys of an authority.
var ErrPassword = fmt.Errorf("the password has less than %d characters", minPassword)

// CheckPassword returns [ErrPassword] for a password that is too short for the keys of an
// authority.
func CheckPassword(password secret.String) error {
	if utf8.RuneCountInString(password.Expose()) < minPassword {
		return ErrPassword
	}
	return nil
}

// check refuses what would fail after files were written. The other options are
// checked as pki.yaml, see newAuthority.generate.
func (opt Options) check() error {
	for _, pw := range []secret.String{opt.Password, opt.RootPassword} {
		if !pw.IsZero() {
			if err := CheckPassword(pw); err != nil {
				return err
			}
		}
	}
	if opt.RootPathLength < cacert.NoPathLength {
		return fmt.Errorf("path length %d of the root: want 1 or more, or %d for no limit", opt.RootPathLength, cacert.NoPathLength)
	}
	if opt.OfflineRoot == "" {
		return nil
	}
	if opt.Root.KMS != "" {
		return errors.New("the root key is in a key store: there is none to move")
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
	opt.Root = opt.Root.withDefaults(opt.KeyType, cacert.RootLifetime)
	if path := keystore.Path(opt.Root.KMS); path != "" && opt.OfflineRoot == "" && keystore.Check(opt.Root.KMS) == nil { // softkms:path=FILE
		opt.OfflineRoot, opt.Root.KMS = path, ""
	}
	opt.Intermediate = opt.Intermediate.withDefaults(opt.KeyType, cacert.IntermediateLifetime)
	if opt.Profiles == nil {
		opt.Profiles = artstoreProfiles()
	}
	return opt
}

func (c Certificate) withDefaults(keyType string, life time.Duration) Certificate {
	if c.KeyType == "" {
		c.KeyType = keyType
	}
	if c.Lifetime == 0 {
		c.Lifetime = life
	}
	return c
}

// template is the certificate as package cacert makes it. With a key store, its key exists
// when template returns. Errors are those of Permit and of the key store.
func (c Certificate) template(name string) (cacert.Template, error) {
	t := cacert.Template{Name: name, KeyType: c.KeyType, Lifetime: c.Lifetime}
	var err error
	if t.Permitted, err = cacert.ParseConstraints(c.Permit); err == nil && c.KMS != "" {
		t.Key, t.KeyURI, err = keystore.New(c.KMS, c.KeyType)
	}
	return t, err
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
