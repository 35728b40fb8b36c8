package flags

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/secret"
)

// Password reads the password of the authority's keys from the file that the
// command line names, else from the environment. The zero value means that
// neither has one; the authority then looks into its state directory.
func Password(u *ui.UI, c *cli.Context) (secret.String, error) {
	path, password := PasswordSource(u, c)
	if path == "" {
		return password, nil
	}
	s, err := u.ReadSecret(path)
	if err != nil {
		return s, fmt.Errorf("reading the key password: %w", err)
	}
	return s, nil
}

// PasswordSource returns the file with the password, or else the password of the environment. It
// is for an authority that runs on and reads the file again at each reload.
func PasswordSource(u *ui.UI, c *cli.Context) (file string, password secret.String) {
	if file = c.String(PasswordFile); file != "" {
		return file, secret.String{}
	}
	return "", secret.New(u.Getenv(EnvPassword))
}
