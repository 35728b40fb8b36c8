package operate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/credentials"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/hints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/statehints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// control is an authority that takes orders: the one in a state directory, or a running one
// that is asked over mutual TLS.
type control interface {
	TrustStatus(ctx context.Context) (stepapi.TrustStatus, error)
	ChangeTrust(ctx context.Context, change stepapi.TrustChange) (stepapi.TrustStatus, error)
	Close()
}

// refusal is a step that the authority has refused, here or over the network.
type refusal struct {
	text    string
	holders []stepapi.Holder // would be cut off; none if the step makes no sense now
}

func (r *refusal) Error() string { return r.text }

// controlFlags are the flags by which a command finds its authority and opens its keys.
func controlFlags() []cli.Flag {
	return append(recordFlags(), flags.Shared(flags.PasswordFile), flags.Shared(flags.RootPassword))
}

// recordFlags are those of a command on the record alone, which needs no password.
func recordFlags() []cli.Flag {
	return []cli.Flag{
		flags.Shared(flags.Dir), flags.Shared(flags.CAURL),
		&cli.StringFlag{Name: credentials.Cert, Usage: "ask the authority at --ca-url with this certificate of an operator: a `DIR` that issue wrote, or a file with --key and --ca-cert"},
		&cli.StringFlag{Name: credentials.Key, Usage: "private key `FILE` of --cert, PEM"},
		&cli.StringFlag{Name: credentials.CACert, Usage: "trust bundle `FILE` for the authority, PEM"},
	}
}

// begin checks the number of arguments and --output, and opens the authority, in this order. The
// caller closes it.
func begin(u *ui.UI, c *cli.Context, least, most int) (authority control, format string, err error) {
	if err := flags.WantArgs(c, least, most); err != nil {
		return nil, "", err
	}
	if format, err = output.Of(c, output.Table, output.JSON); err != nil {
		return nil, "", err
	}
	authority, err = open(u, c)
	return authority, format, err
}

// open returns the authority that the flags name: the running one if there is --cert,
// otherwise the one in --dir. The caller closes it.
func open(u *ui.UI, c *cli.Context) (control, error) {
	if c.String(credentials.Cert) != "" {
		return openRemote(c)
	}
	if flags.CAURLGiven(u, c) {
		return nil, ui.UsageErrorf("--%s goes with --%s: without a certificate, the authority in --%s is changed", flags.CAURL, credentials.Cert, flags.Dir)
	}
	opt := ca.Options{Dir: c.String(flags.Dir), RootPasswordFile: c.String(flags.RootPassword), Logger: slog.New(slog.DiscardHandler)}
	opt.PasswordFile, opt.Password = flags.PasswordSource(u, c)
	authority, err := ca.Open(c.Context, opt)
	if err != nil {
		return nil, statehints.StateDir(fmt.Errorf("opening the authority in %s: %w", opt.Dir, err), opt.Dir, statehints.Doctor)
	}
	return &local{u, authority}, nil
}

// local is the authority in a state directory. A running authority on the same record follows
// within a second or so.
type local struct {
	u         *ui.UI
	authority *ca.Authority
}

// TrustStatus implements control.
func (l *local) TrustStatus(ctx context.Context) (stepapi.TrustStatus, error) {
	return l.authority.TrustStatus(ctx)
}

// ChangeTrust implements control. The event of the record names the operator as its caller, as
// for other commands on a state directory.
func (l *local) ChangeTrust(ctx context.Context, change stepapi.TrustChange) (stepapi.TrustStatus, error) {
	status, err := l.authority.ChangeTrust(ctx, "operator", change)
	if cut, ok := errors.AsType[*ca.CutOffError](err); ok {
		return status, &refusal{cut.Error(), cut.Holders}
	}
	if step, ok := errors.AsType[*ca.StepError](err); ok {
		return status, &refusal{text: step.Error()}
	}
	return status, err
}

// Close implements control. What was changed is committed already, so an error is told and is
// no failure of the command.
func (l *local) Close() {
	if err := l.authority.Close(); err != nil {
		l.u.Infof("closing the authority: %v", err)
	}
}

// remote is a running authority. The event of the record names the certificate of the operator
// as its caller.
type remote struct{ *enroll.Client }

// openRemote reads the certificate and the trust bundle of the flags. It connects to nothing.
func openRemote(c *cli.Context) (remote, error) {
	if err := flags.HTTPSURL(flags.CAURL, c.String(flags.CAURL)); err != nil {
		return remote{}, err
	}
	cert, roots, err := credentials.FilesOf(c).Read()
	if err != nil {
		return remote{}, err
	}
	client, err := enroll.NewClient(c.String(flags.CAURL), roots, cert)
	if err != nil {
		return remote{}, err
	}
	return remote{client}, nil
}

// requestTimeout bounds one request: a step makes keys and signs.
const requestTimeout = time.Minute

// hintOperators is the advice when the authority does not know the caller as an operator.
const hintOperators = "operators in pki.yaml of the authority lists who may change it"

// TrustStatus implements control.
func (r remote) TrustStatus(ctx context.Context) (stepapi.TrustStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	status, err := r.Client.TrustStatus(ctx)
	return status, hints.Refused(err, hintOperators)
}

// ChangeTrust implements control. A refused step is an answer with status 409.
func (r remote) ChangeTrust(ctx context.Context, change stepapi.TrustChange) (stepapi.TrustStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	status, err := r.Client.ChangeTrust(ctx, change)
	if refused, ok := errors.AsType[*enroll.TrustRefusal](err); ok {
		return status, &refusal{refused.Message, refused.Holders}
	}
	return status, hints.Refused(err, hintOperators)
}
