package cacmd

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/statehints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/secret"
)

// initCommand declares init. It has no flag for a metrics address or for profiles: both
// are in the pki.yaml that init writes, with comments, and are edited there.
func initCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "make a new authority: root, intermediate, enrolment key, pki.yaml",
		Description: `Writes a state directory that "serve" runs from. The keys of root and intermediate are
encrypted with a password; without one given, a random password is generated and written
beside them, which is right for development only. A directory that is not empty is refused, and
a password of less than 8 characters.

A root that somebody else holds signs a request: run init with --intermediate-csr FILE, have FILE
signed, and run init with --intermediate-cert CHAIN, which has the certificate and then the root.
An existing root goes on with --root-cert and --root-key, an existing intermediate with
--intermediate-cert and --intermediate-key; the key of its root may then stay where it is.`,
		Flags: append([]cli.Flag{
			flags.Shared(flags.Dir),
			&cli.StringFlag{Name: "name", Value: "ArtStore", Usage: "`NAME` of the authority, part of its certificates' subjects"},
			&cli.StringSliceFlag{Name: "dns", Usage: "`NAME` or IP address clients reach the authority by; repeat for more (default: localhost, 127.0.0.1, ::1)"},
			&cli.StringFlag{Name: "address", Value: "127.0.0.1:9443", Usage: "`HOST:PORT` that serve listens on"},
			&cli.StringFlag{Name: "database", Usage: "keep the record at the postgres:// `URL` of an empty database, for several authorities; no password in it (default: pki.db in the state directory)"},
			values.DurationFlag(flags.Lifetime, humantime.Day, "default lifetime of service certificates, a `TIME` such as 36h or 14d; 10s at least"),
			&cli.BoolFlag{Name: "plain-keys", Usage: "leave all keys unencrypted: quicker, and no password to keep; for tests and authorities to throw away"},
			&cli.StringFlag{Name: "offline-root", Usage: "write the root key to `FILE` instead of the state directory"},
			flags.Shared(flags.PasswordFile), flags.Shared(flags.RootPassword),
		}, slices.Concat(certificateFlags(), existingFlags())...),
		Action: u.Action(runInit),
	}
}

// certificateFlags say what the CA certificates are like, and the keys.
func certificateFlags() []cli.Flag {
	const permit = "`NAME` that certificates below the %s may have, with all names below it; or a network, or spiffe://HOST; repeat for more. Kinds of names without one are not permitted (default: all names)"
	return []cli.Flag{
		&cli.StringFlag{Name: "key-type", Value: "EC-P256", Usage: "`TYPE` of the keys of root and intermediate: EC-P256, EC-P384, Ed25519, RSA-3072, RSA-4096"},
		&cli.StringFlag{Name: "root-key-type", Usage: "`TYPE` of the root key, if it is another one"},
		&cli.StringFlag{Name: "intermediate-key-type", Usage: "`TYPE` of the intermediate key, if it is another one"},
		&cli.StringSliceFlag{Name: "leaf-key-type", Usage: "`TYPE` of key that services may have; repeat for more (default: all but RSA-2048)"},
		values.DurationFlag("root-lifetime", 0, "how long the root is valid, a `TIME` such as 20y (default: 10y)"),
		values.DurationFlag("intermediate-lifetime", 0, "how long an intermediate is valid, a `TIME` such as 2y (default: 5y)"),
		&cli.IntFlag{Name: "root-path-length", Value: 1, Usage: "`NUMBER` of intermediates that a path below the root may have; -1 is no limit"},
		&cli.StringFlag{Name: "root-kms", Usage: "make the root key in the key store with this `URI`, or use the key that it names: pkcs11:token=pki?pin-source=FILE"},
		&cli.StringFlag{Name: "intermediate-kms", Usage: "the same for the key of the intermediate, and for those of later ones"},
		&cli.StringSliceFlag{Name: "root-permit", Usage: fmt.Sprintf(permit, "root")},
		&cli.StringSliceFlag{Name: "intermediate-permit", Usage: fmt.Sprintf(permit, "intermediate")},
	}
}

// existingFlags say which certificates exist, or will be made elsewhere.
func existingFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "intermediate-csr", Usage: "request the intermediate from the holder of a root: write the request to `FILE`, and wait for --intermediate-cert"},
		&cli.StringFlag{Name: "root-cert", Usage: "go on with the root in `FILE`"},
		&cli.StringFlag{Name: "root-key", Usage: "its key, in `FILE`"},
		&cli.StringFlag{Name: "intermediate-cert", Usage: "`FILE` with the certificate of the intermediate, and after it that of the root: the answer to --intermediate-csr, or with --intermediate-key an intermediate to go on with"},
		&cli.StringFlag{Name: "intermediate-key", Usage: "its key, in `FILE`"},
		&cli.StringFlag{Name: "import-password-file", Usage: "`FILE` with the password of --root-key and --intermediate-key, if they are encrypted"},
	}
}

// makeAuthority does what the flags ask for: it makes an authority, requests its intermediate,
// or finishes one whose intermediate was requested.
func makeAuthority(u *ui.UI, c *cli.Context, opt setup.Options) (*setup.Result, error) {
	if file := c.String("intermediate-csr"); file != "" {
		return setup.Request(c.Context, opt, file)
	}
	files := setup.ExistingFiles{
		Root: c.String("root-cert"), RootKey: c.String("root-key"),
		Intermediate: c.String("intermediate-cert"), IntermediateKey: c.String("intermediate-key"),
	}
	if path := c.String("import-password-file"); path != "" {
		var err error
		if files.Password, err = u.ReadSecret(path); err != nil {
			return nil, fmt.Errorf("reading the password of the keys: %w", err)
		}
	}
	have, err := setup.ReadExisting(files)
	if err != nil {
		return nil, err
	}
	if have.Intermediate != nil && have.RootKey == nil && have.IntermediateKey == nil && opt.Root.KMS+opt.Intermediate.KMS == "" {
		chain := []*x509.Certificate{have.Intermediate}
		if have.Root != nil {
			chain = append(chain, have.Root)
		}
		return setup.Finish(opt.Dir, chain)
	}
	opt.Existing = have
	return setup.Init(c.Context, opt)
}

// initOptions reads what the flags say. The error is one of reading a password, or of flags
// that do not go together.
func initOptions(u *ui.UI, c *cli.Context) (opt setup.Options, err error) {
	pw, err := flags.Password(u, c)
	if err != nil {
		return opt, err
	}
	var rootPassword secret.String
	if path := c.String(flags.RootPassword); path != "" {
		if rootPassword, err = u.ReadSecret(path); err != nil {
			return opt, fmt.Errorf("reading the password of the root key: %w", err)
		}
	}
	if c.Bool("plain-keys") && (!pw.IsZero() || !rootPassword.IsZero()) {
		return opt, ui.UsageErrorf("--plain-keys and a password do not go together")
	}
	certificate := func(role string) setup.Certificate {
		return setup.Certificate{
			KeyType: c.String(role + "-key-type"), Lifetime: values.DurationOf(c, role+"-lifetime"), Permit: c.StringSlice(role + "-permit"),
			KMS: c.String(role + "-kms"),
		}
	}
	if c.String("intermediate-csr") != "" {
		for _, name := range []string{"root-cert", "root-key", "intermediate-cert", "intermediate-key"} {
			if c.String(name) != "" {
				return opt, ui.UsageErrorf("--intermediate-csr and --%s do not go together: a request comes before certificates", name)
			}
		}
	}
	if c.Int("root-path-length") == 0 {
		return opt, ui.UsageErrorf("--root-path-length: an intermediate has to be below the root; want 1 or more, or -1")
	}
	return setup.Options{
		Dir:            c.String(flags.Dir),
		Name:           c.String("name"),
		DNSNames:       c.StringSlice("dns"),
		Address:        c.String("address"),
		Database:       c.String("database"),
		KeyType:        c.String("key-type"),
		Root:           certificate("root"),
		Intermediate:   certificate("intermediate"),
		RootPathLength: c.Int("root-path-length"),
		LeafKeyTypes:   c.StringSlice("leaf-key-type"),
		LeafLifetime:   values.DurationOf(c, flags.Lifetime),
		OfflineRoot:    c.String("offline-root"),
		Password:       pw,
		RootPassword:   rootPassword,
		PlainKeys:      c.Bool("plain-keys"),
	}, nil
}

// runInit makes an authority, which setup.Init does, and then says where the root key is
// and what protects the keys. Both are decisions of the operator from then on.
//
// It refuses, with status 2, a password beside --plain-keys, because one of the two would
// have no effect. setup.Init refuses a directory that is not empty, a password of less
// than 8 characters, and an --offline-root that exists or is a URI; those are status 1.
//
// An init that was killed has left a whole authority, with its pki.yaml, or a directory
// that the next init can be run in. An init that returns an error leaves nothing.
func runInit(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	opt, err := initOptions(u, c)
	if err != nil {
		return err
	}
	dir := opt.Dir
	result, err := makeAuthority(u, c, opt)
	if err != nil {
		return hintInit(fmt.Errorf("making the authority in %s: %w", dir, err), dir)
	}
	// All lines below go to stderr: init has no data to print.
	if result.Root == nil {
		u.Infof("keys and record made in %s; the request for the intermediate is in %s", dir, c.String("intermediate-csr"))
	} else {
		u.Infof("authority made in %s", dir)
		u.Infof("root fingerprint (SHA-256): %s", result.RootFingerprint)
	}
	warnOfInit(u, opt, result)
	switch _, here := os.Stat(filepath.Join(dir, "secrets", result.RootFingerprint+".key")); {
	case result.Root == nil:
		u.Infof("next: have it signed, then artstore-pki init --dir %s --intermediate-cert CHAIN", dir)
		return nil
	case opt.OfflineRoot != "":
		u.Infof("the root key is in %s: take it off this machine", opt.OfflineRoot)
	case here == nil:
		u.Infof("the root key is in %s: serve needs it only to rotate the intermediate; keep a copy elsewhere", filepath.Join(dir, "secrets"))
	}
	u.Infof("next: artstore-pki serve --dir %s", strings.TrimSpace(dir))
	return nil
}

// warnOfInit says what the operator has to decide about what init has made.
func warnOfInit(u *ui.UI, opt setup.Options, result *setup.Result) {
	if result.PasswordFile != "" {
		u.Infof("warning: the key password was generated and stands in %s, beside the keys it protects; for production keep it elsewhere", result.PasswordFile)
	}
	if opt.PlainKeys {
		u.Infof("warning: the keys are not encrypted; whoever reads %s is this authority", opt.Dir)
	}
	// A service that can obtain a name of the authority can pass for it where clients compare
	// names only. With the default names that is every service, so it is said at once.
	for _, text := range slices.Concat(result.SharedNames, result.Unpermitted) {
		u.Infof("warning: %s", text)
	}
}

// hintInit returns err with advice about the refusals of setup.Init that have an obvious
// way out, and err itself for all others. dir is the state directory.
func hintInit(err error, dir string) error {
	switch {
	case errors.Is(err, policy.ErrURI):
		return ui.WithHint(err, "name a file on a removable disk; one that has a colon in its name is ./FILE")
	case errors.Is(err, setup.ErrPassword):
		return ui.WithHint(err, "without --%s and $%s a password is generated", flags.PasswordFile, flags.EnvPassword)
	case errors.Is(err, setup.ErrNotBuilt):
		return ui.WithHint(err, statehints.KeyStore)
	case errors.Is(err, setup.ErrNoRequest):
		return ui.WithHint(err, "--intermediate-cert without --intermediate-key answers the request of --intermediate-csr")
	case errors.Is(err, ca.ErrNoPassword):
		return ui.WithHint(err, "the password of imported keys is read from --import-password-file")
	case errors.Is(err, durable.ErrNotEmpty):
		return statehints.Unfinished(err, dir)
	}
	return err
}
