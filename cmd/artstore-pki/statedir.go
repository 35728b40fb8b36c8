package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// hintDoctor is for a state directory that is damaged somewhere.
const hintDoctor = "nothing was changed; artstore-pki doctor --dir DIR lists all that is wrong, artstore-pki restore makes a directory of a backup"

// hintStateDir says what to do when something in a state directory could not be
// used. The kind of the error decides, because advice about another cause costs
// more time than none; otherwise is the advice for all other kinds.
func hintStateDir(err error, dir, otherwise string) error {
	if hinted := lossHint(err, dir); hinted != nil {
		return hinted
	}
	_, missing := os.Stat(filepath.Join(dir, "pki.yaml"))
	_, config := policy.Load(dir)
	_, trust := ca.ActiveRoot(dir)
	switch {
	case err == nil, errors.As(err, new(*net.OpError)), ui.HasHint(err):
		return err // a database that does not answer, or advice is there already
	case errors.Is(err, ca.ErrWrongPassword), errors.Is(err, ca.ErrNoPassword):
		return ui.WithHint(err, "the password is read from --%s FILE, else from $%s, else from secrets/password", flagPasswordFile, envPassword)
	case errors.Is(err, os.ErrPermission):
		return err
	case ca.Unfinished(dir):
		return hintUnfinished(err, dir)
	case errors.Is(missing, os.ErrNotExist):
		return ui.WithHint(err, "make it with: artstore-pki init --dir %s", dir)
	case config != nil:
		return ui.WithHint(err, "nothing was changed; artstore-pki init --dir NEW makes a commented pki.yaml to compare with")
	case trust != nil:
		return ui.WithHint(err, hintDoctor)
	}
	return ui.WithHint(err, "%s", otherwise)
}

// hintUnfinished tells a state directory that was never finished from one that is in use.
func hintUnfinished(err error, dir string) error {
	if !ca.Unfinished(dir) {
		return err
	}
	return ui.WithHint(err, "%s has no pki.yaml, so no authority has run there; if an init or restore that was killed left it, remove it and run the command again", dir)
}
