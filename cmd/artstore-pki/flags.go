package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// Flags that several commands share, each defined once.

const (
	flagDir          = "dir"
	flagCAURL        = "ca-url"
	flagTokenFile    = "token-file"
	flagAuthority    = "authority-name"
	flagPasswordFile = "password-file"
	flagListen       = "listen"
	flagReadyFile    = "ready-file"
	flagOutput       = "output"
)

const (
	envDir      = "ARTSTORE_PKI_DIR"
	envCAURL    = "ARTSTORE_PKI_CA_URL"
	envPassword = "ARTSTORE_PKI_PASSWORD" //nolint:gosec // G101: the name of a variable, not its value
)

func dirFlag() cli.Flag {
	return &cli.StringFlag{Name: flagDir, Aliases: []string{"d"}, Value: "artstore-ca", EnvVars: []string{envDir},
		Usage: "state directory `DIR` of the authority"}
}

func passwordFileFlag() cli.Flag {
	return &cli.StringFlag{Name: flagPasswordFile,
		Usage: "`FILE` with the password of the authority's keys; else $" + envPassword + ", else secrets/password in the state directory"}
}

func caURLFlag() cli.Flag {
	return &cli.StringFlag{Name: flagCAURL, EnvVars: []string{envCAURL}, Usage: "`URL` of the authority, such as https://ca:9443"}
}

func authorityNameFlag() cli.Flag {
	return &cli.StringFlag{Name: flagAuthority, Usage: "accept as the authority a server whose certificate has this `NAME` and no mark of an authority: a stock step-ca. Any service that can obtain the name can then pass for it"}
}

func tokenFileFlag() cli.Flag {
	return &cli.StringFlag{Name: flagTokenFile, Usage: "`FILE` with a one-time enrolment token; - reads standard input"}
}

func listenFlag(def string) cli.Flag {
	return &cli.StringFlag{Name: flagListen, Value: def, Usage: "`HOST:PORT` to listen on; port 0 chooses a free one"}
}

func readyFileFlag() cli.Flag {
	return &cli.StringFlag{Name: flagReadyFile, Usage: "`FILE` that gets the URL once the service answers"}
}

// passwordOf reads the password of the authority's keys; zero means "not given".
func passwordOf(u *ui.UI, c *cli.Context) (secret.String, error) {
	if path := c.String(flagPasswordFile); path != "" {
		s, err := u.ReadSecret(path)
		if err != nil {
			return s, fmt.Errorf("reading the key password: %w", err)
		}
		return s, nil
	}
	return secret.New(u.Getenv(envPassword)), nil
}

// wantArgs checks the number of positional arguments.
func wantArgs(c *cli.Context, least, most int) error {
	n := c.Args().Len()
	var err error
	switch {
	case n < least:
		err = ui.UsageErrorf("missing argument: want %s", c.Command.ArgsUsage)
	case most >= 0 && n > most:
		err = ui.UsageErrorf("unexpected argument %q", printable.Clean(c.Args().Get(most)))
	}
	return ui.WithHint(err, "see %s --help", helpName(c))
}

// listen opens a TCP listener at the address that a flag gave; a busy port gets
// its hint here.
func listen(c *cli.Context, flag, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(c.Context, "tcp", addr)
	if err != nil {
		return nil, ui.WithHint(fmt.Errorf("listening: %w", err), "choose another address with --%s; port 0 takes a free one", flag)
	}
	return ln, nil
}

// announce says that a service answers at the listener's address, on the
// terminal and in the ready file.
func announce(u *ui.UI, c *cli.Context, what string, ln net.Listener) error {
	address := serviceURL(ln)
	u.Infof("%s: serving on %s", what, address)
	if path := c.String(flagReadyFile); path != "" {
		if err := durable.WriteFile(path, []byte(address+"\n"), durable.Public); err != nil {
			return fmt.Errorf("writing the ready file: %w", err)
		}
	}
	return nil
}

func serviceURL(ln net.Listener) string {
	host, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		return "https://" + ln.Addr().String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "https://" + net.JoinHostPort(host, port)
}

// httpsURL checks the URL of a peer.
func httpsURL(flag, value string) error {
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

// readCertificates reads a chain or a bundle, strictly.
func readCertificates(path string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading certificates: %w", err)
	}
	certs, err := pemfile.Certificates(data)
	if err != nil {
		return nil, fmt.Errorf("reading certificates in %s: %w", path, err)
	}
	return certs, nil
}

// hintFor knows the advice for errors that any command can meet.
func hintFor(err error) string {
	var op *net.OpError
	var answered *enroll.Error
	switch {
	case errors.Is(err, enroll.ErrNotAuthority):
		return "nothing was sent to it; check the address. An authority of an older version gets the mark when it is updated and started anew; a stock step-ca is named with --authority-name"
	case errors.Is(err, enroll.ErrBusy):
		return "one process renews a directory: stop the other one, or leave the renewals to it"
	case errors.Is(err, enroll.ErrOtherAuthority):
		return "if the authority was replaced on purpose: stop the service, artstore-pki token SERVICE on the new authority, artstore-pki issue --out with this directory, and start it; else a stranger answers there"
	case errors.Is(err, enroll.ErrNoToken):
		return "artstore-pki token SERVICE makes a token on the authority's machine; give it with --token-file, or ARTSTORE_PKI_TOKEN_FILE"
	case errors.Is(err, durable.ErrNotEmpty):
		return "choose an empty or new directory; nothing was written"
	case errors.Is(err, os.ErrPermission):
		return "check the owner and mode of the path"
	case errors.As(err, &op) && op.Op == "dial":
		return "is the service running, and is this its address?"
	case errors.As(err, &answered) && strings.Contains(answered.Error(), "max_live_per_lineage"):
		return "what is there works until it expires; if its owner did not make so many, the key was stolen: artstore-pki revoke --lineage SERIAL"
	case errors.As(err, &answered) && (answered.Status == http.StatusUnauthorized || answered.Status == http.StatusForbidden):
		return "a token works once and for minutes, and a revoked certificate cannot renew: artstore-pki token SERVICE makes a new token"
	case strings.Contains(err.Error(), "fingerprint"): // enroll has no type for it: only this page would ask
		return "artstore-pki fingerprint prints the right one on the authority's machine"
	case errors.Is(err, ingestclient.ErrCredentials):
		return "check the client id and the secret file"
	case errors.Is(err, ingestclient.ErrClock):
		return "set the clocks of the machines by NTP"
	case errors.Is(err, ingestclient.ErrUnauthorized):
		return "the element must take the keys, issuer and audience of this token endpoint"
	case errors.Is(err, ingestclient.ErrServerCertificate):
		return "this side refuses the server: its root belongs into TLS__CA_CERT_FILE, or for one side into ADMIN_MODULE__CA_CERT_FILE or STORAGE_ELEMENT__CA_CERT_FILE, and the address must be a name in its certificate"
	case errors.Is(err, ingestclient.ErrClientCertificate):
		return "the server refuses this side: it must have our root in its trust bundle, and a name of our certificate on its --allow list"
	case errors.Is(err, ingestclient.ErrTLSPeer), errors.Is(err, ingestclient.ErrConnection):
		// In TLS 1.3 a server refuses a certificate after the handshake; its alert can get lost in the reset that follows.
		return "does the peer accept this certificate? same trust bundle, and a name of it on the server's --allow list"
	}
	return ""
}
