// Package flags has the flags that several commands share, and reads them: each
// has one name, one text and one check, whichever command has it.
//
// The constants are the names, without dashes, for c.String and for texts;
// [Shared] makes the flag of a name. What a value means is up to the command,
// and advice about errors is in the package hints.
//
// Invariants:
//
//   - A mistake in the command line is a [ui.UsageError], which ends in exit status 2
//     (TestEveryCommand, TestMissingFlags).
//   - No flag takes a secret as its value. Flags name files, and there is a warning about
//     a file that others can read (TestScript/permissions).
//   - An error shows the value of a flag without control characters, and a URL without
//     its password (TestHTTPSURL).
package flags

import (
	"net/url"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/printable"
)

// Names of flags that several commands have.
const (
	Dir           = "dir"
	CAURL         = "ca-url"
	TokenFile     = "token-file"
	AuthorityName = "authority-name"
	PasswordFile  = "password-file"
	RootPassword  = "root-password-file"
	Listen        = "listen"
	ReadyFile     = "ready-file"
	Lifetime      = "lifetime"
)

// The variables of the environment that stand in for a flag.
const (
	envDir      = "ARTSTORE_PKI_DIR"
	EnvCAURL    = "ARTSTORE_PKI_CA_URL"
	EnvPassword = "ARTSTORE_PKI_PASSWORD" //nolint:gosec // G101: the name of a variable, not its value
)

// Shared returns a new flag of that name. A command has a copy of its own,
// because the library keeps in a flag what it has parsed. A name without a row
// is a mistake in this program, and panics.
func Shared(name string) cli.Flag {
	switch name {
	case Dir:
		return &cli.StringFlag{Name: Dir, Aliases: []string{"d"}, Value: "artstore-ca", EnvVars: []string{envDir},
			Usage: "state directory `DIR` of the authority"}
	case PasswordFile:
		return &cli.StringFlag{Name: PasswordFile,
			Usage: "`FILE` with the password of the authority's keys; else $" + EnvPassword + ", else secrets/password in the state directory"}
	case RootPassword:
		return &cli.StringFlag{Name: RootPassword, Usage: "`FILE` with the password of the root key, if it is another one than that of the other keys"}
	case CAURL:
		return &cli.StringFlag{Name: CAURL, EnvVars: []string{EnvCAURL}, Usage: "`URL` of the authority, such as https://ca:9443"}
	case AuthorityName:
		return &cli.StringFlag{Name: AuthorityName, Usage: "accept as the authority a server whose certificate has this `NAME` and no mark of an authority: a stock step-ca. Any service that can obtain the name can then pass for it"}
	case TokenFile:
		return &cli.StringFlag{Name: TokenFile, Usage: "`FILE` with a one-time enrolment token; - reads standard input"}
	case ReadyFile:
		return &cli.StringFlag{Name: ReadyFile, Usage: "`FILE` that gets the URL once the service answers"}
	}
	panic("no command shares the flag --" + name)
}

// ListenAt returns --listen with a default address. The default "" means that the service has
// one of its own, such as that in pki.yaml.
func ListenAt(address string) cli.Flag {
	return &cli.StringFlag{Name: Listen, Value: address, Usage: "`HOST:PORT` to listen on; port 0 chooses a free one"}
}

// CAURLGiven reports whether --ca-url is on the command line. The variable for it is set for all
// commands of a machine, and says nothing about this one.
func CAURLGiven(u *ui.UI, c *cli.Context) bool {
	at := c.String(CAURL)
	return at != "" && at != u.Getenv(EnvCAURL)
}

// WantArgs returns an error of the command line unless there are least to most arguments beside
// the flags. A negative most is no limit.
func WantArgs(c *cli.Context, least, most int) error {
	n := c.Args().Len()
	var err error
	switch {
	case n < least:
		err = ui.UsageErrorf("missing argument: want %s", c.Command.ArgsUsage)
	case most >= 0 && n > most:
		err = ui.UsageErrorf("unexpected argument %q", printable.Clean(c.Args().Get(most)))
	}
	return SeeHelp(c, err)
}

// SeeHelp returns err with the advice to read the help of the command; nil stays nil.
func SeeHelp(c *cli.Context, err error) error {
	name := c.App.Name
	if c.Command != nil && c.Command.HelpName != "" {
		name = c.Command.HelpName
	}
	return ui.WithHint(err, "see %s --help", name)
}

// HTTPSURL returns an error of the command line unless value is the URL of a server: https, a
// host, and no user or password, because a URL is logged and printed.
func HTTPSURL(flag, value string) error {
	if value == "" {
		return ui.UsageErrorf("missing --%s", flag)
	}
	u, err := url.Parse(value)
	switch {
	case err != nil: // its text repeats the value, which may have a password in it
		return ui.UsageErrorf("--%s is not a URL: want https://HOST:PORT", flag)
	case u.Host == "" || u.Scheme != "https" || u.User != nil:
		return ui.UsageErrorf("--%s %q: want https://HOST:PORT", flag, printable.Clean(u.Redacted()))
	}
	return nil
}
