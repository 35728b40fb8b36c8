// Package uploads makes clients that upload from a command line: it collects the settings of flags,
// environment and file, opens the identity, the trust and the traces that they describe, and has
// the metrics of uploads. A command adds [Flags], reads them with [Read], and opens a [Session], or
// a [Daemon] if it runs on.
//
// Invariants:
//
//   - Every command that uploads takes the same settings by the same names, which are those of
//     the documentation (TestSettingsAreDocumented).
//   - All mistakes in the settings are reported at once, before anything is opened
//     (TestScript/settings).
//   - A session is closed in reverse order of its opening: clients, identity, trust, traces.
//   - Spans and metrics hold methods, addresses, statuses and file names, never
//     headers, tokens or content (TestUploadIsTraced).
package uploads

import (
	"context"
	"crypto"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/settings"
	"github.com/artstore/artstore-pki/secret"
)

// The flag for the file with settings. It is not in the table of settings, because the file cannot
// name itself.
const (
	flagConfig = "config"
	envConfig  = "ARTSTORE_PKI_CONFIG"
)

// Statuses are the exit statuses of a command with settings, for the end of its help.
const Statuses = `   0    done
   1    it failed; the error says what and where
   2    the command line or a setting is wrong
   130  interrupted`

// Flags returns the flags of everything that uploads, made of the table of settings. None but --config
// reads its variable itself: the library does not tell a value of the environment from one of the
// command line, and internal/settings has to know which it is.
func Flags() []cli.Flag {
	flags := []cli.Flag{
		&cli.StringFlag{Name: flagConfig, EnvVars: []string{envConfig}, Usage: "`FILE` with settings: YAML if it ends in .yaml or .yml, else lines of NAME=value"},
	}
	for _, s := range settings.Table() {
		if s.Flag != "" {
			flags = append(flags, settingFlag(s))
		}
		if s.FileFlag != "" {
			flags = append(flags, &cli.StringFlag{Name: s.FileFlag, Usage: "`FILE` with what $" + s.Variable() + " is: " + s.Doc + envNote(s.Variable()+settings.FileSuffix)})
		}
	}
	return flags
}

// settingFlag returns the flag of one setting. The default is in its text only: a flag that was not
// given must not hide a value of the environment or of the file.
func settingFlag(s settings.Setting) cli.Flag {
	usage := s.Doc + envNote(s.Variable())
	if s.IsBool() {
		return &cli.BoolFlag{Name: s.Flag, Usage: usage}
	}
	usage = "`" + s.Arg + "`: " + usage
	if s.Type() == "URLs" {
		return &cli.StringSliceFlag{Name: s.Flag, Usage: usage}
	}
	return &cli.StringFlag{Name: s.Flag, DefaultText: s.Default, Usage: usage}
}

// envNote returns the name of a variable in the form that the library has in its help texts.
func envNote(name string) string { return " [$" + name + "]" }

// Collect returns all settings of flags, environment and file, with their mistakes: for a command that
// shows them. [Read] is for all others.
func Collect(u *ui.UI, c *cli.Context) *settings.Collected {
	given := map[string][]string{}
	for _, s := range settings.Table() {
		for _, name := range []string{s.Flag, s.FileFlag} {
			switch {
			case name == "" || !c.IsSet(name):
			case s.IsBool():
				given[name] = []string{strconv.FormatBool(c.Bool(name))}
			case s.Type() == "URLs":
				given[name] = c.StringSlice(name)
			default:
				given[name] = []string{c.String(name)}
			}
		}
	}
	return settings.Collect(settings.Input{Flags: given, Environ: u.Environ(), File: c.String(flagConfig)})
}

// Read returns the settings of this command line. The error has one line for each mistake, and is one
// of the command line. It warns of files with secrets that others can read.
func Read(u *ui.UI, c *cli.Context) (*settings.Settings, error) {
	s, err := Collect(u, c).Parse()
	if err != nil {
		return nil, badSettings(err)
	}
	for _, path := range s.SecretFiles() {
		u.WarnOfExposed(path)
	}
	return s, nil
}

// badSettings returns the mistakes in settings as an error of the command line, with exit status 2,
// because the caller has to change something before the command can work.
func badSettings(err error) error {
	return ui.WithHint(ui.UsageErrorf("%w", err), "artstore-pki config show --origin prints every setting and what set it; docs/auth-api.md explains each")
}

// clientAuth returns how the client authenticates at the token endpoint (RFC 6749 §2.3). The dialect
// and the method of the account decide it: a secret in a JSON object is what the Python Admin
// Module reads, and all other methods use a form.
func clientAuth(s *settings.Settings) ingestclient.ClientAuth {
	if s.Token.Dialect == "json" && s.Account.Method == "post" { //nolint:usestdlibvars // a method of authentication, not of HTTP
		return ingestclient.AuthJSON
	}
	return ingestclient.ClientAuth(s.Account.Method)
}

// ingestConfig returns the configuration of a client for all Storage Elements, which are preferred in
// the order in which they were given. It reads the client id, which may be in a file, once. Secrets
// and keys are read for each token.
func ingestConfig(s *settings.Settings, logger *slog.Logger) (ingestclient.Config, error) {
	id, err := s.Account.ID.Read()
	if err != nil {
		return ingestclient.Config{}, fmt.Errorf("reading the client id: %w", err)
	}
	cfg := ingestclient.Config{
		TokenURL: s.Token.URL, TokenTimeout: s.Token.Timeout,
		DefaultTokenLifetime: s.Token.Lifetime, TokenLag: s.Token.Lag,
		ClientID: strings.TrimSpace(id.Expose()), ClientAuth: clientAuth(s), Scope: s.Account.Scope,
		RegistryURL: s.Storage.Registry, PoolSize: s.Storage.PoolSize, HTTP2: s.Storage.HTTP2, ResponseTimeout: s.Storage.Timeout,
		MaxAttempts: s.Storage.MaxRetries + 1, MaxRetryAfter: s.Storage.MaxRetryAfter,
		StallTimeout: s.Upload.StallTimeout, MinRate: s.Upload.MinRate, MaxRate: max(0, s.Upload.MaxRate), ExpectFrom: s.Upload.ExpectFrom,
		MinVersion: s.TLS.MinVersion, CipherSuites: s.TLS.CipherSuites, AllowCleartext: s.TLS.AllowCleartext,
		Logger: logger,
	}
	if cfg.TokenProxy, err = s.Token.Proxy.URL(); err != nil {
		return cfg, fmt.Errorf("reading the proxy of the token endpoint: %w", err)
	}
	if cfg.StorageProxy, err = s.Storage.Proxy.URL(); err != nil {
		return cfg, fmt.Errorf("reading the proxy of the storage elements: %w", err)
	}
	switch s.Account.Method {
	case "private_key_jwt":
		cfg.ClientKey = clientKey(s.Account.Key, s.Account.KeyID)
	case "tls_client_auth":
	default:
		cfg.ClientSecret = clientSecret(s.Account.Secret)
	}
	for i, url := range s.Storage.URLs {
		cfg.Elements = append(cfg.Elements, ingestclient.Element{URL: url, Priority: i})
	}
	return cfg, nil
}

// clientKey returns a function that reads the key of the client, with its id, for each token anew, so
// that a key that is replaced in its file is used without a restart.
func clientKey(pem settings.Text, kid string) func(context.Context) (crypto.Signer, string, error) {
	return func(context.Context) (crypto.Signer, string, error) {
		text, err := pem.Read()
		if err != nil {
			return nil, "", fmt.Errorf("reading the client key: %w", err)
		}
		key, err := pemfile.PrivateKey([]byte(text.Expose()))
		if err != nil {
			return nil, "", fmt.Errorf("reading the client key: %w", err)
		}
		return key, kid, nil
	}
}

// clientSecret returns a function that reads the secret of the client for each token anew, for the
// same reason.
func clientSecret(text settings.Text) func(context.Context) (secret.String, error) {
	return func(context.Context) (secret.String, error) {
		s, err := text.Read()
		if err != nil {
			return s, fmt.Errorf("reading the client secret: %w", err)
		}
		return s, nil
	}
}
