// Package cacmd has the commands that make, run and look after an authority. They need the
// packages of the authority and all that comes with those, so they are beside the commands of
// clients, and a build without them is small (docs/design/0038-a-build-without-the-authority.md).
//
// Each file has a command: a function that declares it, one that runs it, and what it alone
// needs. [Commands] lists them. [MintToken] and [ActiveRoot] are what a command of clients does
// beside a state directory.
//
// Invariant: nothing in the build without the authority imports this package (TestBuildWithoutAuthority).
package cacmd

import (
	"crypto/x509"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/operate"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/statehints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// Commands returns the commands in the order of the page that --help prints. They print to u.
func Commands(u *ui.UI) []*cli.Command {
	return []*cli.Command{
		initCommand(u),
		serveCommand(u),
		revokeCommand(u),
		listCommand(u),
		showCommand(u),
		operate.Root(u),
		operate.Intermediate(u),
		operate.Renewal(u),
		migrateCommand(u),
		backupCommand(u),
		restoreCommand(u),
		doctorCommand(u),
		dashboardCommand(u),
		passwordCommand(u),
		enrolmentKeyCommand(u),
		pruneCommand(u),
		logCommand(u),
		acmeCommand(u),
		recordCommand(u),
	}
}

// ActiveRoot returns the root that signs now, from the state directory dir. It needs no password
// and no running authority.
func ActiveRoot(dir string) (*x509.Certificate, error) {
	root, err := ca.StateDir(dir).ActiveRoot()
	if err != nil {
		return nil, statehints.StateDir(fmt.Errorf("reading the root: %w", err), dir, statehints.Doctor)
	}
	return root, nil
}
