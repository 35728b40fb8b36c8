package cacmd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"filippo.io/age"
	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca/backup"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/statehints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/durable"
)

const (
	flagRecipient  = "recipient"       // of backup
	flagIdentity   = "identity"        // of restore
	flagPassphrase = "passphrase-file" // of both
	// ageMagic is the beginning of a file that age has encrypted, in the binary form
	// (c2sp.org/age). The armored form is not read.
	ageMagic = "age-encryption.org/"
	// standardStream, in place of FILE, is standard output of backup and standard input
	// of restore.
	standardStream = "-"
)

// backupCommand declares backup. Encryption is that of age, so that a backup can be opened
// without this program.
func backupCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:      "backup",
		Usage:     "save a state directory to one file, while the authority runs",
		ArgsUsage: "FILE",
		Description: `Writes configuration, certificates, encrypted keys and a consistent copy of the record to FILE
(tar, 0600), which must not exist; - is standard output. --recipient and --passphrase-file encrypt it, as age does. The
password of the keys is left out unless --with-password asks for it, and so is a root key that
pki.yaml names elsewhere. A record in PostgreSQL is copied row by row, and is in the backup as an
SQLite file. Restore with "artstore-pki restore".`,
		Flags: []cli.Flag{
			flags.Shared(flags.Dir),
			&cli.StringSliceFlag{Name: flagRecipient, Usage: "encrypt to this `KEY` (age1…); may be repeated"},
			&cli.StringFlag{Name: flagPassphrase, Usage: "encrypt with the passphrase in this `FILE`"},
			&cli.BoolFlag{Name: "with-password", Usage: "save secrets/password as well; the backup alone is then the authority"},
		},
		Action: u.Action(runBackup),
	}
}

// runBackup writes a backup of a state directory beside a running authority. backup.Write
// decides what is in it, and takes a consistent copy of the record.
//
// It refuses --with-password without encryption, which would put keys and their password
// into one readable file, before it reads anything. backup.Write refuses keys that are not
// encrypted themselves, for the same reason (backup.ErrClearSecret), and a record that is
// not the one of the directory (ca.RecordError). FILE must not exist.
//
// Interrupted or killed, it leaves no FILE; a killed one can leave a temporary file beside it,
// with a dot in front of its name. On standard output it leaves the beginning of a backup,
// which restore refuses as a whole.
func runBackup(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 1, 1); err != nil {
		return err
	}
	recipients, err := recipientsOf(u, c)
	if err != nil {
		return err
	}
	opt := backup.Options{Dir: c.String(flags.Dir), Encrypted: len(recipients) > 0, WithPassword: c.Bool("with-password")}
	if opt.WithPassword && !opt.Encrypted {
		return ui.WithHint(ui.UsageErrorf("--with-password would put keys and password into one readable file"), "encrypt it with --%s or --%s", flagRecipient, flagPassphrase)
	}
	files := 0
	path := c.Args().First()
	err = writeBackup(u, path, func(w io.Writer) (err error) {
		if opt.Encrypted {
			sealed, err := age.Encrypt(w, recipients...)
			if err != nil {
				return fmt.Errorf("encrypting the backup: %w", err)
			}
			if files, err = backup.Write(c.Context, sealed, opt); err != nil {
				return err
			}
			return sealed.Close() // writes the last chunk, without which age refuses the file as cut
		}
		files, err = backup.Write(c.Context, w, opt)
		return err
	})
	switch {
	case errors.Is(err, backup.ErrClearSecret):
		return ui.WithHint(err, "encrypt the backup with --%s or --%s", flagRecipient, flagPassphrase)
	case errors.Is(err, os.ErrExist):
		return ui.WithHint(err, "nothing was replaced; choose another FILE")
	case statehints.Loss(err, opt.Dir) != nil:
		return statehints.Loss(err, opt.Dir)
	case err != nil:
		return err
	}
	if path == standardStream {
		path = "standard output"
	}
	u.Infof("backup: %d files in %s", files, path)
	return nil
}

// writeBackup calls fill with the place that path names: a new file (0600), which is there
// as a whole or not at all, or standard output for "-". A backup that is cut on standard
// output ends without its manifest, and restore refuses it. A terminal is refused: it would
// show the bytes of an archive.
func writeBackup(u *ui.UI, path string, fill func(io.Writer) error) error {
	if path != standardStream {
		return durable.WriteNewStream(path, durable.Private, fill)
	}
	if _, ok := u.Terminal(u.Out); ok {
		return ui.UsageErrorf("a backup does not go to a terminal: want FILE, or a pipe")
	}
	return fill(u.Out)
}

// recipientsOf returns what a backup is encrypted to: the keys of --recipient, or the
// passphrase in the file of --passphrase-file. None means that it is not encrypted. Both
// together are refused, because age takes a passphrase alone. The error does not repeat the
// key, because it may be a private one that was given by mistake.
func recipientsOf(u *ui.UI, c *cli.Context) ([]age.Recipient, error) {
	keys, file := c.StringSlice(flagRecipient), c.String(flagPassphrase)
	if len(keys) > 0 && file != "" {
		return nil, ui.UsageErrorf("want --%s or --%s, not both", flagRecipient, flagPassphrase)
	}
	var out []age.Recipient
	for _, k := range keys {
		r, err := age.ParseX25519Recipient(k)
		if err != nil {
			return nil, ui.UsageErrorf("--%s: want a public key, age1…", flagRecipient)
		}
		out = append(out, r)
	}
	if file != "" {
		passphrase, err := u.ReadSecret(file)
		if err != nil {
			return nil, fmt.Errorf("reading the passphrase: %w", err)
		}
		r, err := age.NewScryptRecipient(passphrase.Expose())
		if err != nil {
			return nil, fmt.Errorf("reading the passphrase %s: %w", file, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// restoreCommand declares restore, which is the other half of backup.
func restoreCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:      "restore",
		Usage:     "make a state directory from a backup",
		ArgsUsage: "FILE",
		Description: `Reads what "artstore-pki backup" wrote, from FILE or with - from standard input, into --dir, which
must be absent or empty. Every file is
compared with the manifest of the backup before the directory becomes an authority. Certificates
issued and revocations made after the backup are not in it: docs/operations.md says what to do
about them.`,
		Flags: []cli.Flag{
			flags.Shared(flags.Dir),
			&cli.StringFlag{Name: flagIdentity, Usage: "decrypt with the age identity in this `FILE`"},
			&cli.StringFlag{Name: flagPassphrase, Usage: "decrypt with the passphrase in this `FILE`"},
		},
		Action: u.Action(runRestore),
	}
}

// runRestore makes a state directory from a backup, in a directory that is absent or empty,
// and says what the operator has to do next: where the password of the keys comes from,
// and where the record is now.
//
// backup.Restore compares every file with the manifest before the directory comes to its
// place. After an error nothing is left of it. A restore that was killed leaves files of
// its own and no pki.yaml, so no authority starts there, and another restore can follow.
func runRestore(u *ui.UI, c *cli.Context) error {
	if err := flags.WantArgs(c, 1, 1); err != nil {
		return err
	}
	identities, err := identitiesOf(u, c)
	if err != nil {
		return err
	}
	from := u.In
	if path := c.Args().First(); path != standardStream {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("reading the backup: %w", err)
		}
		defer func() { _ = f.Close() }() // only read from
		from = f
	}
	in, err := opened(from, identities)
	if err != nil {
		return err
	}
	dir := c.String(flags.Dir)
	res, err := backup.Restore(c.Context, in, dir)
	if err != nil {
		if errors.Is(err, durable.ErrNotEmpty) {
			err = statehints.Unfinished(err, dir)
		}
		return err
	}
	u.Infof("restored: %s, as it was at %s, root %s", dir, res.Created.Local().Format("2006-01-02 15:04:05"), res.RootFingerprint)
	if res.NoHead {
		u.Infof("restored: the record has no signed head, as before there was a log; artstore-pki record accept --dir %s goes on with it", dir)
	} else {
		u.Infof("restored: the log had %s", res.Log)
	}
	if !res.Password {
		u.Infof("restored: the password of the keys was not in the backup; name it with --%s", flags.PasswordFile)
	}
	if res.Elsewhere != "" {
		u.Infof("restored: pki.yaml names another database; the record is in pki.db, from where artstore-pki migrate copies it")
	}
	return nil
}

// identitiesOf returns what may open a backup: the identities in the file of --identity, or
// the passphrase in that of --passphrase-file; both together are refused. None means that
// the backup is expected to be in the clear. No error quotes what is in the files.
func identitiesOf(u *ui.UI, c *cli.Context) ([]age.Identity, error) {
	switch id, pass := c.String(flagIdentity), c.String(flagPassphrase); {
	case id != "" && pass != "":
		return nil, ui.UsageErrorf("want --%s or --%s, not both", flagIdentity, flagPassphrase)
	case id != "":
		data, err := u.ReadSecret(id)
		if err != nil {
			return nil, fmt.Errorf("reading the identity: %w", err)
		}
		ids, err := age.ParseIdentities(bytes.NewReader([]byte(data.Expose())))
		if err != nil {
			return nil, fmt.Errorf("reading the identity %s: it is none of age's", id) // the library's text may quote it
		}
		return ids, nil
	case pass != "":
		passphrase, err := u.ReadSecret(pass)
		if err != nil {
			return nil, fmt.Errorf("reading the passphrase: %w", err)
		}
		id, err := age.NewScryptIdentity(passphrase.Expose())
		if err != nil {
			return nil, fmt.Errorf("reading the passphrase %s: %w", pass, err)
		}
		return []age.Identity{id}, nil
	}
	return nil, nil
}

// opened returns the archive that f holds, decrypted if f begins as a file of age does. A
// backup that needs no identity is taken with one as well. The error of a backup that is
// encrypted says how to open it, or that what was given does not. A file that is neither
// encrypted nor an archive is found by the reader of the archive.
func opened(f io.Reader, identities []age.Identity) (io.Reader, error) {
	in := bufio.NewReader(f)
	head, _ := in.Peek(len(ageMagic)) // the reader of tar reports a file that is too short
	if string(head) != ageMagic {
		return in, nil
	}
	if len(identities) == 0 {
		return nil, ui.WithHint(errors.New("reading the backup: it is encrypted"), "name what opens it with --%s or --%s", flagIdentity, flagPassphrase)
	}
	out, err := age.Decrypt(in, identities...)
	if err != nil {
		return nil, errors.New("reading the backup: it was encrypted to somebody else, or with another passphrase")
	}
	return out, nil
}
