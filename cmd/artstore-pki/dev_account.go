package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/devstack"
	"github.com/artstore/artstore-pki/internal/durable"
)

// ensureAccount makes the service account that the flags ask for, or finds it again
// after a restart. The secret is written before the id is known to anyone; the
// secret file alone is enough to find the id, so a crash between the two heals.
func ensureAccount(u *ui.UI, c *cli.Context, admin *devstack.Admin) error {
	name, secretFile := c.String("account"), c.String("account-secret-file")
	if name == "" {
		return nil
	}
	given, err := u.ReadSecret(secretFile)
	var id string
	switch {
	case errors.Is(err, fs.ErrNotExist):
		id, err = newAccount(c, admin)
	case err == nil:
		if id, err = admin.FindAccount(c.Context, name, given); err != nil {
			err = ui.WithHint(fmt.Errorf("%s is there already: %w", secretFile, err), "move the file away to get a new account; nothing was replaced")
		}
	}
	if err == nil {
		err = writeClientID(c.String("account-id-file"), id)
	}
	if err != nil {
		return fmt.Errorf("making the account %s: %w", name, err)
	}
	return u.Outf("%s", id)
}

func newAccount(c *cli.Context, admin *devstack.Admin) (id string, err error) {
	// Found now and not after the secret is written, the way out is to move one file.
	if path := c.String("account-id-file"); path != "" {
		if _, err := os.Lstat(path); err == nil {
			return "", ui.WithHint(fmt.Errorf("%s is there already, without its secret", path), "move the file away to get a new account; nothing was replaced")
		}
	}
	id, clientSecret, err := admin.AddAccount(c.String("account"))
	if err != nil {
		return "", err
	}
	return id, durable.WriteNew(c.String("account-secret-file"), []byte(clientSecret.Expose()+"\n"), durable.Private)
}

// writeClientID writes the id, or finds it written.
func writeClientID(path, id string) error {
	if path == "" {
		return nil
	}
	err := durable.WriteNew(path, []byte(id+"\n"), durable.Public)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	there, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(there)) != id {
		return ui.WithHint(fmt.Errorf("%s holds another id", path), "move the file away; nothing was replaced")
	}
	return nil
}
