package keychange

import (
	"context"
	"errors"
	"fmt"

	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/secret"
)

// Errors that callers match, besides [setup.ErrPassword] and those of reading keys in package
// ca.
var (
	ErrBusy  = statedir.ErrBusy  // another command changes secrets of the directory now
	ErrOwner = statedir.ErrOwner // a file of another user, who could not read what this one writes

	ErrNoRootKey = errors.New("no root key is here that the old password opens")
)

// PasswordOptions say which password becomes which.
type PasswordOptions struct {
	Dir          string        // state directory
	Password     secret.String // the old one; empty reads PasswordFile, and plain keys need neither
	PasswordFile string        // default secrets/password
	// New is the new password, 8 characters at least ([setup.ErrPassword]).
	New secret.String
	// Roots changes the password of root keys alone, which then have one of their own. Without
	// it, root keys that the old password opens are changed with the others.
	Roots bool
	// DryRun opens every key, and changes nothing.
	DryRun bool
}

// PasswordResult says which files have the new password, by path.
type PasswordResult struct {
	Changed []string // the old password opened them, and opens them no more
	Kept    []string // root keys that have another password, or are not here
}

// Password puts the keys of a state directory under a new password: those of intermediates,
// also retired ones, that of the log, the enrolment keys, and the root keys that the old
// password opens. secrets/password gets the new one, if it had the old one. The passwords of
// a file that serve names must be changed by the caller, before it reloads serve.
// // Nothing is written unless every key opens with the old password or with the new one.
func Password(ctx context.Context, opt PasswordOptions) (out PasswordResult, err error) {
	if err := ctx.Err(); err != nil { // what follows cannot be interrupted
		return out, err
	}
	if err := setup.CheckPassword(opt.New); err != nil {
		return out, err
	}
	cfg, err := policy.Load(opt.Dir)
	if err != nil {
		return out, err
	}
	f := statedir.Dir{Path: opt.Dir, Password: opt.Password, PasswordFile: opt.PasswordFile}
	release, err := f.LockSecrets()
	if err != nil {
		return out, err
	}
	defer release()
	change := statedir.PasswordChange{To: opt.New, RootKey: cfg.RootKey, RootsOnly: opt.Roots, DryRun: opt.DryRun}
	out.Changed, out.Kept, err = f.ChangePassword(change)
	if err != nil {
		return out, fmt.Errorf("changing the password: %w", err)
	}
	if opt.Roots && len(out.Changed) == 0 && len(out.Kept) > 0 {
		return out, ErrNoRootKey
	}
	return out, nil
}
