package tokensocket

import (
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
)

// Answer is the successful answer of RFC 6749 §5.1, with the confirmation
// of RFC 8705 §3.2. Encoding it writes the token itself.
type Answer struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"` // always Bearer
	// ExpiresIn is how many seconds the token may still be used, 1 at least. The
	// client counts some seconds less than the issuer: see [ingestclient.AccessToken].
	ExpiresIn int64 `json:"expires_in"`
	// Confirmation names the certificate that the token is bound to; nil if the
	// token is not bound, or is no JWT.
	Confirmation *Confirmation `json:"cnf,omitempty"`
}

// Confirmation is the member of RFC 8705 §3.1.
type Confirmation struct {
	Thumbprint string `json:"x5t#S256"` // SHA-256 of the certificate, base64url without padding
}

// NewAnswer returns the answer with a token at a moment.
func NewAnswer(t ingestclient.AccessToken, now time.Time) Answer {
	a := Answer{AccessToken: t.Value.Expose(), TokenType: "Bearer", ExpiresIn: max(1, int64(t.ExpiresAt.Sub(now)/time.Second))}
	if t.Bound {
		a.Confirmation = &Confirmation{t.Thumbprint}
	}
	return a
}
