// Package statehints has the advice below an error about a state directory of an authority: what
// the operator can do about it. It is beside the package hints because it must look into the
// directory, and so needs the packages of the authority.
//
// Invariants:
//
//   - A hint is chosen by the kind of an error and by what lies in the directory, and changes
//     neither the text of the error nor what errors.Is and errors.As find in it
//     (TestErrorsStayTheSame).
//   - docs/troubleshooting.md has each hint (TestHintsAreExplained).
package statehints

import (
	"errors"
	"net"
	"os"
	"path/filepath"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/ca/translog"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// KeyStore is the advice for the URI of a key that this program cannot open.
const KeyStore = "build the program with the tag that the error names; pkcs11 needs cgo and the module of the token"

// Doctor is the advice for a state directory that is damaged somewhere.
const Doctor = "nothing was changed; artstore-pki doctor --dir DIR lists all that is wrong, artstore-pki restore makes a directory of a backup"

// StateDir adds what to do when something in a state directory could not be
// used. The kind of the error decides, because advice about another cause costs the operator
// more time than no advice. otherwise is the advice for all other kinds.
func StateDir(err error, dir, otherwise string) error {
	if hinted := Loss(err, dir); hinted != nil {
		return hinted
	}
	_, missing := os.Stat(filepath.Join(dir, "pki.yaml"))
	_, config := policy.Load(dir)
	_, trust := ca.StateDir(dir).ActiveRoot()
	switch {
	case err == nil, errors.As(err, new(*net.OpError)), ui.HasHint(err):
		return err // a database that does not answer, or advice is there already
	case errors.Is(err, ca.ErrWrongPassword), errors.Is(err, ca.ErrNoPassword):
		return ui.WithHint(err, "the password is read from --%s FILE, else from $%s, else from secrets/password", flags.PasswordFile, flags.EnvPassword)
	case errors.Is(err, os.ErrPermission):
		return err
	case errors.Is(config, setup.ErrWaiting):
		return ui.WithHint(err, "have the request signed by the root, then: artstore-pki init --dir %s --intermediate-cert CHAIN", dir)
	case setup.Unfinished(dir):
		return Unfinished(err, dir)
	case errors.Is(err, setup.ErrNotBuilt):
		return ui.WithHint(err, KeyStore)
	case errors.Is(missing, os.ErrNotExist):
		return ui.WithHint(err, "make it with: artstore-pki init --dir %s", dir)
	case config != nil:
		return ui.WithHint(err, "nothing was changed; artstore-pki init --dir NEW makes a commented pki.yaml to compare with")
	case trust != nil:
		return ui.WithHint(err, Doctor)
	}
	return ui.WithHint(err, "%s", otherwise)
}

// Unfinished returns err with the advice to remove dir, if dir is a state directory that an init
// or a restore has begun and that was never in use. Any other directory gets no advice here,
// because it must not be removed.
func Unfinished(err error, dir string) error {
	if _, config := policy.Load(dir); errors.Is(config, setup.ErrWaiting) {
		return StateDir(err, dir, "")
	}
	if !setup.Unfinished(dir) {
		return err
	}
	return ui.WithHint(err, "%s has no pki.yaml, so no authority has run there; if an init or restore that was killed left it, remove it and run the command again", dir)
}

// Loss returns err with advice if it says that the record in dir is not the one that the
// authority has left (ca.RecordError). For any other error it returns nil.
func Loss(err error, dir string) error {
	if _, lost := errors.AsType[*ca.RecordError](err); !lost {
		return nil
	}
	if errors.Is(err, translog.ErrForeign) {
		return ui.WithHint(err, "nothing was changed; name the right place under database: in pki.yaml, or restore a backup: artstore-pki restore --dir NEW FILE")
	}
	return ui.WithHint(err, "nothing was changed; bring the record back, or restore a backup: artstore-pki restore --dir NEW FILE; artstore-pki record accept --dir %s shows the loss and how to go on without the record", dir)
}
