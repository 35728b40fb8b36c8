package ingestclient

import (
	"context"
	"time"

	"github.com/artstore/artstore-pki/secret"
)

// AccessToken is a token of the service account that a request can use now.
type AccessToken struct {
	// Value goes behind "Authorization: Bearer ". Its Expose method returns the text.
	Value secret.String
	// ExpiresAt is when the client itself stops using the token: 5 s before the
	// end of its life, or a tenth of lives under 50 s.
	ExpiresAt time.Time
	// Bound is true for a token with a confirmation claim (RFC 8705 §3.1):
	// only a connection with the certificate of Thumbprint can use it.
	Bound bool
	// Opaque is true for a token that is no JWT. Whether it is bound cannot be
	// known then.
	Opaque bool
	// Thumbprint is the SHA-256 of the certificate over which the token was
	// fetched, as in the claim x5t#S256: base64url without padding, 43 characters;
	// "" without a certificate. A token that is not Bound works with any other too.
	Thumbprint string
}

// AccessToken returns the cached token, which the client refreshes in the background as it
// does for uploads. It waits for the first token, and for the one after a rejected token.
// The error is an [*AuthError], [ErrClosed], or the cause of the end of ctx.
func (c *Client) AccessToken(ctx context.Context) (AccessToken, error) {
	ctx, leave, err := c.enter(ctx)
	if err != nil {
		return AccessToken{}, err
	}
	defer leave()
	current, err := c.tokens.get(ctx)
	if err != nil {
		return AccessToken{}, err
	}
	defer current.lease.unref()
	t := current.token
	b := readBinding(t.secret.Expose())
	return AccessToken{
		Value: t.secret, ExpiresAt: t.start.Add(t.useUntil).Round(0),
		Bound: b.cnf, Opaque: !b.known, Thumbprint: current.lease.thumb,
	}, nil
}

// RejectToken says that a server answered 401 to the token, as the client notices
// by itself for uploads: the next call of AccessToken fetches another one. It
// reports whether the token was the current one; any other changes nothing, so
// that a late 401 does not cost the token that has replaced it.
func (c *Client) RejectToken(token secret.String) bool {
	current := c.tokens.cur.Load()
	if current.token == nil || current.token.secret.Expose() != token.Expose() {
		return false
	}
	c.tokens.invalidate(current.token)
	return true
}
