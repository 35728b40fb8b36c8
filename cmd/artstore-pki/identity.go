package main

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

// identityDrain is how long an upload may go on with the certificate it started
// with, after the next one has taken over: as long as that one is valid, so that
// a large file is not sent twice.
const identityDrain = 24 * time.Hour

// The names of ArtStore's settings for certificate files (notes on both
// ArtStore systems use them) are accepted as they are.
func identityFlags() []cli.Flag {
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

func trustRefreshFlag() cli.Flag {
	f := values.DurationFlag(flagTrustRefresh, 0, "how often the trust bundle and the revoked lists are looked at, a `TIME` such as 10m (default: a sixth of the certificate's life, 1h at most)")
	f.EnvVars, f.DefaultText = []string{"ARTSTORE_PKI_TRUST_REFRESH"}, " "
	return f
}

// identityOptions is where an identity comes from: three files, or an authority.
type identityOptions struct {
	cert, key, caCert                  string
	url, tokenFile, state, fingerprint string
	authority                          string        // enroll.Config.AuthorityName
	trustRefresh                       time.Duration // enroll.Config.TrustRefresh
}

// place says for the log where an identity comes from.
func (i identityOptions) place() []any {
	if i.url == "" {
		return []any{"cert", i.cert, "key", i.key, "ca_cert", i.caCert}
	}
	return []any{"ca_url", i.url, "state", i.state}
}

// openIdentity gives the rotating identity that the flags describe: files that
// somebody else renews, or a certificate enrolled with a token and renewed by us.
func openIdentity(u *ui.UI, c *cli.Context, logger *slog.Logger) (*rotation.Identity, error) {
	return openIdentityFrom(c.Context, u, identityOptions{
		cert: c.String("cert"), key: c.String("key"), caCert: c.String("ca-cert"),
		url: c.String(flags.CAURL), tokenFile: c.String(flags.TokenFile), state: c.String("state"), fingerprint: c.String("root-fingerprint"),
		authority: c.String(flags.AuthorityName), trustRefresh: values.DurationOf(c, flagTrustRefresh),
	}, logger)
}

func openIdentityFrom(ctx context.Context, u *ui.UI, choice identityOptions, logger *slog.Logger) (*rotation.Identity, error) {
	source, err := identitySource(u, choice, logger)
	if err != nil {
		return nil, err
	}
	logger.Info("opening the TLS identity", choice.place()...)
	ctx, cancel := context.WithTimeout(ctx, identityWait)
	defer cancel()
	id, err := rotation.Open(ctx, rotation.Config{Source: source, Logger: logger, DrainTimeout: identityDrain})
	if err == nil {
		return id, nil
	}
	// A deadline alone says nothing: the source knows what it was waiting for.
	if s, ok := source.(*enroll.Source); ok && errors.Is(err, context.DeadlineExceeded) && s.Status().RenewalError != "" {
		err = fmt.Errorf("%s: %w", s.Status().RenewalError, err)
	}
	err = fmt.Errorf("getting a certificate: %w", err)
	if _, ok := source.(*enroll.Source); ok {
		return nil, err
	}
	return nil, ui.WithHint(err, "artstore-pki issue --out DIR makes a set of files that fit")
}

func identitySource(u *ui.UI, i identityOptions, logger *slog.Logger) (rotation.Source, error) {
	if i.url == "" {
		if i.cert == "" || i.key == "" || i.caCert == "" {
			return nil, ui.WithHint(ui.UsageErrorf("no certificate: want --cert, --key and --ca-cert, or --%s with --state and --%s", flags.CAURL, flags.TokenFile),
				"artstore-pki issue --ca-url URL --token-file FILE --out DIR makes the three files")
		}
		return files.Source(files.Set{Cert: i.cert, Key: i.key, CA: i.caCert}), nil
	}
	if i.cert != "" || i.key != "" || i.caCert != "" {
		return nil, ui.UsageErrorf("--cert, --key and --ca-cert do not go with --%s", flags.CAURL)
	}
	if err := flags.HTTPSURL(flags.CAURL, i.url); err != nil {
		return nil, err
	}
	if i.state == "" {
		return nil, ui.UsageErrorf("missing --state: the directory that keeps the certificate over a restart")
	}
	u.WarnOfReplaceable(i.state)
	return enroll.New(enroll.Config{
		URL:             i.url,
		RootFingerprint: i.fingerprint,
		AuthorityName:   i.authority,
		Token:           tokenSource(u, i.tokenFile),
		Dir:             i.state,
		TrustRefresh:    i.trustRefresh,
		Logger:          logger,
	})
}

// tokenSource reads the token anew each time: an operator heals a service whose
// certificate has expired by writing a fresh token to the same file.
func tokenSource(u *ui.UI, path string) func(context.Context) (secret.String, error) {
	if path == "" {
		return nil
	}
	return func(context.Context) (secret.String, error) { return readToken(u, path) }
}

func readToken(u *ui.UI, path string) (secret.String, error) {
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
