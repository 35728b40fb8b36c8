package cacmd

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/statehints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/secret"
)

// hintProfiles is the advice when the service or a name is refused.
const hintProfiles = "services and their names are the profiles in pki.yaml of --dir"

// MintToken returns a token that is signed here, with the enrolment key of the state
// directory. The authority need not run. StateDir.NewToken refuses what the authority would
// refuse later, by the same rule. Nothing is written: the authority learns of the token
// when somebody uses it.
func MintToken(u *ui.UI, c *cli.Context, service string, names []string) (secret.String, error) {
	pw, err := flags.Password(u, c)
	if err != nil {
		return secret.String{}, err
	}
	token, err := ca.StateDir(c.String(flags.Dir)).NewToken(c.Context, ca.TokenOptions{
		Password: pw, Service: service, Names: names,
		Lifetime: values.DurationOf(c, "lifetime"), Revoke: c.Bool("revoke"), Provisioner: c.String("provisioner"),
	})
	if err != nil {
		return token, statehints.StateDir(fmt.Errorf("making a token for %s: %w", service, err), c.String(flags.Dir), hintProfiles)
	}
	return token, nil
}
