// Package identity opens the rotating identity that a command line describes: three files that
// another program renews, or a certificate that is enrolled with a token and renewed by this
// process.
//
// Invariants:
//
//   - A command line has all flags of one of the two ways and none of the other one; anything
//     else is an error of the command line (TestSource).
//   - A token is read anew for each enrolment (TestTokenIsReadAnew).
package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/rotation/files"
	"github.com/artstore/artstore-pki/secret"
)

// identityWait bounds how long a command waits for its first certificate.
const identityWait = time.Minute

// Drain is how long an upload may go on with the certificate it started
// with, after the next one has taken over: as long as that one is valid, so that
// a large file is not sent twice.
const Drain = 24 * time.Hour

// Flags returns the flags of a service with an identity. The variables that
// ArtStore's own modules have for certificate files are accepted as they are.
func Flags() []cli.Flag {
	const category = "certificate"
	return []cli.Flag{
		&cli.StringFlag{Name: "cert", Category: category, EnvVars: []string{"TLS__CERT_FILE"}, Usage: "certificate chain `FILE`, PEM, leaf first; watched for changes"},
		&cli.StringFlag{Name: "key", Category: category, EnvVars: []string{"TLS__KEY_FILE"}, Usage: "private key `FILE`, PEM"},
		&cli.StringFlag{Name: "ca-cert", Category: category, EnvVars: []string{"TLS__CA_CERT_FILE"}, Usage: "trust bundle `FILE`, PEM"},
		flags.Shared(flags.CAURL),
		flags.Shared(flags.AuthorityName),
		flags.Shared(flags.TokenFile),
		&cli.StringFlag{Name: "state", Usage: "directory `DIR` for a certificate obtained and renewed from --ca-url"},
		&cli.StringFlag{Name: "root-fingerprint", Usage: "SHA-256 of the authority's root in `HEX`; the token has it too"},
		trustRefreshFlag(),
	}
}

const flagTrustRefresh = "trust-refresh"

// trustRefreshFlag returns --trust-refresh. It has no default of its own, because the default
// depends on the certificate; the blank keeps the library from printing one.
func trustRefreshFlag() cli.Flag {
	f := values.DurationFlag(flagTrustRefresh, 0, "how often the trust bundle and the revoked lists are looked at, a `TIME` such as 10m (default: a sixth of the certificate's life, 1h at most)")
	f.EnvVars, f.DefaultText = []string{"ARTSTORE_PKI_TRUST_REFRESH"}, " "
	return f
}

// Options say where an identity comes from: three files, or an authority.
type Options struct {
	// Cert, Key and CA are paths of PEM files. With a URL they are "".
	Cert, Key, CA string
	// URL is that of an authority; State is the directory that keeps the certificate.
	// TokenFile is needed for the first certificate. Fingerprint is that of the root, in hex;
	// without it the token has it.
	URL, TokenFile, State, Fingerprint string
	AuthorityName                      string        // enroll.Config.AuthorityName
	TrustRefresh                       time.Duration // enroll.Config.TrustRefresh
}

// place returns for the log where an identity comes from, as keys and values.
func (i Options) place() []any {
	if i.URL == "" {
		return []any{"cert", i.Cert, "key", i.Key, "ca_cert", i.CA}
	}
	return []any{"ca_url", i.URL, "state", i.State}
}

// OfFlags opens the identity that the flags of [Flags] describe. The caller closes it.
func OfFlags(u *ui.UI, c *cli.Context, logger *slog.Logger) (*rotation.Identity, error) {
	return Open(c.Context, u, Options{
		Cert: c.String("cert"), Key: c.String("key"), CA: c.String("ca-cert"),
		URL: c.String(flags.CAURL), TokenFile: c.String(flags.TokenFile), State: c.String("state"), Fingerprint: c.String("root-fingerprint"),
		AuthorityName: c.String(flags.AuthorityName), TrustRefresh: values.DurationOf(c, flagTrustRefresh),
	}, logger)
}

// Open opens an identity and waits for its first certificate, for a minute at most: a service
// that starts without a certificate would fail with its first connection. The error says what
// it was waiting for. The caller closes the identity.
func Open(ctx context.Context, u *ui.UI, choice Options, logger *slog.Logger) (*rotation.Identity, error) {
	source, err := source(u, choice, logger)
	if err != nil {
		return nil, err
	}
	logger.Info("opening the TLS identity", choice.place()...)
	ctx, cancel := context.WithTimeout(ctx, identityWait)
	defer cancel()
	id, err := rotation.Open(ctx, rotation.Config{Source: source, Logger: logger, DrainTimeout: Drain})
	if err == nil {
		return id, nil
	}
	// The text of a deadline says nothing. The source knows why it has no certificate yet.
	if s, ok := source.(*enroll.Source); ok && errors.Is(err, context.DeadlineExceeded) && s.Status().RenewalError != "" {
		err = fmt.Errorf("%s: %w", s.Status().RenewalError, err)
	}
	err = fmt.Errorf("getting a certificate: %w", err)
	if _, ok := source.(*enroll.Source); ok {
		return nil, err
	}
	return nil, ui.WithHint(err, "artstore-pki issue --out DIR makes a set of files that fit")
}

// source returns the source of the certificates: the three files, or the authority if there is a
// URL. Flags of both ways, or too few of one, are an error of the command line.
func source(u *ui.UI, i Options, logger *slog.Logger) (rotation.Source, error) {
	if i.URL == "" {
		if i.Cert == "" || i.Key == "" || i.CA == "" {
			return nil, ui.WithHint(ui.UsageErrorf("no certificate: want --cert, --key and --ca-cert, or --%s with --state and --%s", flags.CAURL, flags.TokenFile),
				"artstore-pki issue --ca-url URL --token-file FILE --out DIR makes the three files")
		}
		return files.Source(files.Set{Cert: i.Cert, Key: i.Key, CA: i.CA}), nil
	}
	if i.Cert != "" || i.Key != "" || i.CA != "" {
		return nil, ui.UsageErrorf("--cert, --key and --ca-cert do not go with --%s", flags.CAURL)
	}
	if err := flags.HTTPSURL(flags.CAURL, i.URL); err != nil {
		return nil, err
	}
	if i.State == "" {
		return nil, ui.UsageErrorf("missing --state: the directory that keeps the certificate over a restart")
	}
	u.WarnOfReplaceable(i.State)
	return enroll.New(enroll.Config{
		URL:             i.URL,
		RootFingerprint: i.Fingerprint,
		AuthorityName:   i.AuthorityName,
		Token:           tokenSource(u, i.TokenFile),
		Dir:             i.State,
		TrustRefresh:    i.TrustRefresh,
		Logger:          logger,
	})
}

// tokenSource returns a function that reads the token from a file each time it is asked, or nil
// without a file. An operator repairs a service whose certificate has expired by writing a new
// token to the same file; the service need not be restarted.
func tokenSource(u *ui.UI, path string) func(context.Context) (secret.String, error) {
	if path == "" {
		return nil
	}
	return func(context.Context) (secret.String, error) { return ReadToken(u, path) }
}

// ReadToken reads a token from a file, or from standard input if path is "-". Blanks around it
// are left out.
func ReadToken(u *ui.UI, path string) (secret.String, error) {
	if path != "-" {
		token, err := u.ReadSecret(path)
		if err != nil {
			return token, fmt.Errorf("reading the token: %w", err)
		}
		return token, nil
	}
	b, err := io.ReadAll(io.LimitReader(u.In, 64<<10))
	if err != nil {
		return secret.String{}, fmt.Errorf("reading the token from standard input: %w", err)
	}
	return secret.New(strings.TrimSpace(string(b))), nil
}
