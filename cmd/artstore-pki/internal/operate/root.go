package operate

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// Flags of the steps.
const (
	flagAccept  = "accept"
	flagDryRun  = "dry-run"
	flagService = "service"
	flagWait    = "wait"
	flagSigned  = "signed"
)

// Root returns the command root with its steps.
func Root(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "root",
		Usage: "change the root in steps that cut nobody off: status, add, try, activate, rollback, remove, rotate",
		Subcommands: []*cli.Command{
			statusCommand(u, "show each root with its stage, who does not trust it yet and who still uses it", printRoots,
				`A root is staged (in the trust bundle, signs for the services that try it), active (signs for
all) or old (signs nothing new). Services report which bundle they have in effect, so the
authority knows who would refuse a certificate under a root.`),
			step(u, stepSpec{
				name: "add", step: stepapi.StepAdd, done: "staged: services fetch the bundle with it; root status says who has it in effect",
				usage: "stage a new root, and make an intermediate under it",
				description: `The root has the kind of key and the lifetime of the active one. It is in the bundle and signs for
nobody yet. A root that somebody else holds is staged with --signed, see intermediate request.`,
				flags: []cli.Flag{signedFlag()},
			}),
			step(u, stepSpec{
				name: "try", step: stepapi.StepTry, args: "[FINGERPRINT]", accepts: true, done: "the services named get their next certificates under the staged root",
				usage: "let single services have certificates under the staged root",
				description: `The services renew as always: their next certificate is under the staged root. Without --service
nobody tries it any more. Refused while a service does not trust the staged root.`,
				flags: []cli.Flag{&cli.StringSliceFlag{Name: flagService, Usage: "`SERVICE` that tries the root; can be repeated"}},
			}),
			step(u, stepSpec{
				name: "activate", step: stepapi.StepActivate, args: "[FINGERPRINT]", accepts: true, done: "active: all new certificates are under this root",
				usage: "sign under a root: the staged one, or one that was active before",
				description: `Refused while a service has not reported a bundle with the root: it would refuse its peers. Needs
no key of a root.`,
			}),
			step(u, stepSpec{
				name: "rollback", step: stepapi.StepRollback, accepts: true, done: "the last step is undone",
				usage: "undo the last step: a trial, the staging of a root, or its activation",
				description: `Refused while a service uses a certificate under a root that would leave, or does not trust the
root that would be active again. Possible until the old root is removed.`,
			}),
			step(u, stepSpec{
				name: "remove", step: stepapi.StepRemove, args: "FINGERPRINT", accepts: true, done: "removed: nobody who follows trusts it any more",
				usage:       "take an old or staged root out of the bundle",
				description: `Refused while a service may use a certificate that chains to the root.`,
			}),
			rotateCommand(u),
		},
	}
}

// Intermediate returns the command intermediate with its steps.
func Intermediate(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "intermediate",
		Usage: "change the intermediate that issues, and revoke a stolen one",
		Subcommands: []*cli.Command{
			statusCommand(u, "show the intermediates, and how many services hold a certificate of each", printIntermediates,
				"The first one issues. The others stay listed until their last certificate has expired."),
			step(u, stepSpec{
				name: "rotate", step: stepapi.StepRotateIntermediate, done: "new certificates come from the new intermediate; the others stay good",
				usage: "issue from a new intermediate under the active root",
				description: `Cuts nobody off: each certificate comes with its intermediate. Needs the key of the root, in
secrets/ or where root_key of pki.yaml says; or, if somebody else holds the root, the answer to
intermediate request.`,
				flags: []cli.Flag{signedFlag()},
			}),
			requestCommand(u),
			step(u, stepSpec{
				name: "revoke", step: stepapi.StepRevokeIntermediate, args: "FINGERPRINT", accepts: true, done: "the list of the root names it: peers refuse whatever it has signed",
				usage: "revoke an intermediate whose key was stolen",
				description: `Refused for the one that issues, and while a service holds a certificate of it: rotate first, then
let the services renew. Needs the key of the root; or, if somebody else holds the root, a list of it
that names the intermediate.`,
				flags: []cli.Flag{&cli.StringFlag{Name: flagSigned, Usage: "`FILE` with the revocation list of the root, signed by its holder, PEM"}},
			}),
		},
	}
}

// statusCommand returns a command that prints the trust in one of its views.
func statusCommand(u *ui.UI, usage string, view func(*ui.UI, stepapi.TrustStatus) error, description string) *cli.Command {
	return &cli.Command{
		Name: "status", Usage: usage, Description: description,
		Flags: append(controlFlags(), output.Flag(output.Table, output.JSON)),
		Action: u.Action(func(u *ui.UI, c *cli.Context) error {
			authority, format, err := begin(u, c, 0, 0)
			if err != nil {
				return err
			}
			defer authority.Close()
			status, err := authority.TrustStatus(c.Context)
			if err != nil {
				return err
			}
			if format == output.JSON {
				return u.JSON(status)
			}
			return view(u, status)
		}),
	}
}

// stepSpec describes a command that takes one step.
type stepSpec struct {
	// name is the command, and step what it asks the authority for.
	name, step string
	// args is "" for a command without arguments. In brackets it is optional: the authority
	// then knows which certificate is meant.
	args string
	// usage is one line, and description the text below it in the help.
	usage, description string
	// done is said when the step was taken: what it means, and what comes next.
	done string
	// accepts says that the step can cut somebody off, so that there is --accept.
	accepts bool
	// flags are those that other steps do not have.
	flags []cli.Flag
}

// step returns the command of one step.
func step(u *ui.UI, s stepSpec) *cli.Command {
	own := append(s.flags, &cli.BoolFlag{Name: flagDryRun, Usage: "say what the step would do, or why it is refused, and change nothing"}, output.Flag(output.Table, output.JSON))
	if s.accepts {
		own = append(own, acceptFlag())
	}
	return &cli.Command{
		Name: s.name, Usage: s.usage, ArgsUsage: s.args, Description: s.description,
		Flags:              append(controlFlags(), own...),
		CustomHelpTemplate: help.Head + statuses,
		Action:             u.Action(func(u *ui.UI, c *cli.Context) error { return runStep(u, c, s) }),
	}
}

// requestCommand declares intermediate request, which changes nothing that is in use.
func requestCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:  "request",
		Usage: "print a request for an intermediate, for whoever holds the root",
		Description: `Makes a key, which stays in the state directory, and prints a certificate request for it (PEM). As
long as it is open, the same request is printed again. Its answer, the certificate and after it
its root, goes to intermediate rotate --signed, or to root add --signed if the root is a new one.`,
		Flags: controlFlags(),
		Action: u.Action(func(u *ui.UI, c *cli.Context) error {
			if err := flags.WantArgs(c, 0, 0); err != nil {
				return err
			}
			authority, err := open(u, c)
			if err != nil {
				return err
			}
			defer authority.Close()
			status, err := authority.ChangeTrust(c.Context, stepapi.TrustChange{Step: stepapi.StepRequest})
			if err != nil {
				return err
			}
			for line := range strings.Lines(status.Request) {
				if err := u.Outf("%s", strings.TrimSuffix(line, "\n")); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}

func signedFlag() cli.Flag {
	return &cli.StringFlag{Name: flagSigned, Usage: "`FILE` with the answer to intermediate request: the certificate, and after it its root, PEM"}
}

// acceptFlag names whom to leave behind, one by one: there is no way to accept all of them
// without reading who they are.
func acceptFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: flagAccept, Usage: "leave this `NAME` behind: a service, or a name that only it has in its certificate; can be repeated"}
}

// runStep takes one step. The authority decides; a refusal is printed with the names of those
// who would be cut off, and is status 3.
func runStep(u *ui.UI, c *cli.Context, s stepSpec) error {
	least, most := 0, 0
	if s.args != "" {
		most = 1
	}
	if most == 1 && !strings.HasPrefix(s.args, "[") {
		least = 1
	}
	authority, format, err := begin(u, c, least, most)
	if err != nil {
		return err
	}
	defer authority.Close()
	change := stepapi.TrustChange{Step: s.step, DryRun: c.Bool(flagDryRun), Accept: c.StringSlice(flagAccept), Services: c.StringSlice(flagService)}
	if file := c.String(flagSigned); file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("reading --signed: %w", err)
		}
		change.Signed = string(data)
	}
	if named := c.Args().First(); named != "" {
		if change.Certificate, err = resolve(c, authority, named); err != nil {
			return err
		}
	}
	if s.step == stepapi.StepRollback { // it names no certificate: two at once would undo two steps
		before, err := authority.TrustStatus(c.Context)
		if err != nil {
			return err
		}
		change.Version = before.Version
	}
	status, err := authority.ChangeTrust(c.Context, change)
	if err != nil {
		return printRefusal(u, err, format)
	}
	if format == output.JSON {
		return u.JSON(status)
	}
	view := printRoots
	if slices.Contains([]string{stepapi.StepRotateIntermediate, stepapi.StepRevokeIntermediate}, s.step) {
		view = printIntermediates
	}
	if err := view(u, status); err != nil {
		return err
	}
	if change.DryRun {
		u.Infof("dry run: nothing was changed; this is what it would be")
		return nil
	}
	u.Infof("%s", s.done)
	return nil
}

// resolve completes the beginning of a fingerprint, as status prints it. A whole fingerprint is
// left to the authority.
func resolve(c *cli.Context, authority control, named string) (string, error) {
	prefix := strings.ToLower(strings.ReplaceAll(named, ":", ""))
	if len(prefix) >= 64 {
		return named, nil
	}
	status, err := authority.TrustStatus(c.Context)
	if err != nil {
		return "", err
	}
	var found []string
	for _, r := range status.Roots {
		found = append(found, r.Fingerprint)
	}
	for _, i := range status.Intermediates {
		found = append(found, i.Fingerprint)
	}
	found = slices.DeleteFunc(found, func(fp string) bool { return !strings.HasPrefix(fp, prefix) })
	if len(found) != 1 {
		return "", ui.WithHint(ui.UsageErrorf("%q begins the fingerprint of %d certificates, want one", named, len(found)), "root status and intermediate status print the fingerprints")
	}
	return found[0], nil
}
