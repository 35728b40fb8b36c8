// Package hints has the advice that is printed below an error: what the operator can do about it.
// The packages of this module say what failed and where. Only this package, statehints and the
// commands know which command of this program helps. What is here needs nothing of the authority.
//
// Invariants:
//
//   - A hint is chosen by the kind of an error (TestFor). The one exception is a refusal of
//     the authority that names a rule, because only its text says which.
//   - docs/troubleshooting.md has each hint (TestHintsAreExplained), and each
//     command in a hint exists (TestDocsNameRealCommands).
//   - A hint changes neither the text of an error nor what errors.Is and errors.As find in
//     it (TestErrorsStayTheSame).
package hints

import (
	"errors"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/credentials"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/hook"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// For returns the advice for errors that any command can meet, or "" if there
// is none. The order counts: an error can match several kinds, and the first one
// says most about its cause.
func For(err error) string {
	op, network := errors.AsType[*net.OpError](err)
	answered, refused := errors.AsType[*enroll.Error](err)
	switch {
	case errors.Is(err, enroll.ErrNotAuthority):
		return "nothing was sent to it; check the address. An authority of an older version gets the mark when it is updated and started anew; a stock step-ca is named with --authority-name"
	case errors.Is(err, enroll.ErrBusy), errors.Is(err, hook.ErrBusy):
		return "one process renews a directory: stop the other one, or leave the renewals to it"
	case errors.Is(err, enroll.ErrOtherAuthority):
		return "if the authority was replaced on purpose: stop the service, artstore-pki token SERVICE on the new authority, artstore-pki issue --out with this directory, and start it; else a stranger answers there"
	case errors.Is(err, enroll.ErrNoToken):
		return "artstore-pki token SERVICE makes a token on the authority's machine; give it with --token-file, or ARTSTORE_PKI_TOKEN_FILE"
	case errors.Is(err, durable.ErrNotEmpty):
		return "choose an empty or new directory; nothing was written"
	case errors.Is(err, os.ErrPermission):
		return "check the owner and mode of the path"
	case network && op.Op == "dial":
		return "is the service running, and is this its address?"
	case refused && strings.Contains(answered.Error(), "max_live_per_lineage"):
		return "what is there works until it expires; if its owner did not make so many, the key was stolen: artstore-pki revoke --lineage SERIAL"
	case refused && (answered.Status == http.StatusUnauthorized || answered.Status == http.StatusForbidden):
		return "a token works once and for minutes, and a revoked certificate cannot renew: artstore-pki token SERVICE makes a new token"
	case errors.Is(err, enroll.ErrFingerprint), errors.Is(err, certs.ErrFingerprint):
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

// Refused returns err with advice if a running authority has refused a request. forbidden is the
// advice for the status 403: the authority knows the caller and does not permit the request.
func Refused(err error, forbidden string) error {
	answered, ok := errors.AsType[*enroll.Error](err)
	if !ok {
		return err
	}
	switch answered.Status {
	case http.StatusUnauthorized:
		return ui.WithHint(err, "the certificate of --%s must be a good one of this authority: renew it, or enrol again", credentials.Cert)
	case http.StatusForbidden:
		return ui.WithHint(err, "%s", forbidden)
	case http.StatusNotFound:
		return ui.WithHint(err, "this authority has no such route: is it an artstore-pki of this version?")
	}
	return err
}
