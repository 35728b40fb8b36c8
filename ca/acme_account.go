package ca

import (
	"context"

	"github.com/smallstep/certificates/acme"

	"github.com/artstore/artstore-pki/internal/pubkey"
)

// maxContact is how much of addresses an account may leave with us, in bytes.
const maxContact = 1000

// CreateAccount stores an account for a key.
func (s *acmeSession) CreateAccount(ctx context.Context, acc *acme.Account) error {
	if err := checkContact(acc.Contact); err != nil {
		return err
	}
	if err := pubkey.Validate(acc.Key.Key); err != nil { // the gate has made the cheap half of it
		return acme.NewDetailedError(acme.ErrorBadPublicKeyType, "%v", err)
	}
	return s.ACME.CreateAccount(ctx, acc)
}

// UpdateAccount stores new contacts, or the end of the account.
func (s *acmeSession) UpdateAccount(ctx context.Context, acc *acme.Account) error {
	if err := checkContact(acc.Contact); err != nil {
		return err
	}
	return s.ACME.UpdateAccount(ctx, acc)
}

func checkContact(list []string) error {
	n := 0
	for _, c := range list {
		n += len(c) + 1
	}
	if n > maxContact {
		return malformed("contact: more than %d bytes", maxContact)
	}
	return nil
}

// UpdateChallenge ends a challenge that failed: smallstep would leave it pending
// when a name could not be reached, and clients would wait until they give up.
func (s *acmeSession) UpdateChallenge(ctx context.Context, ch *acme.Challenge) error {
	if ch.Error != nil {
		ch.Status = acme.StatusInvalid
		s.a.logger.InfoContext(ctx, "challenge failed", "err", ch.Error.Err)
	}
	return s.ACME.UpdateChallenge(ctx, ch)
}

// noEAB answers what belongs to external account binding (RFC 8555 §7.3.4), which
// this authority does not have: profiles, not accounts, say who gets what.
type noEAB struct{}

func errNoEAB() error {
	return acme.NewDetailedError(acme.ErrorNotImplementedType, "external account binding is not supported")
}

func (noEAB) CreateExternalAccountKey(context.Context, string, string) (*acme.ExternalAccountKey, error) {
	return nil, errNoEAB()
}

func (noEAB) GetExternalAccountKey(context.Context, string, string) (*acme.ExternalAccountKey, error) {
	return nil, errNoEAB()
}

func (noEAB) GetExternalAccountKeys(context.Context, string, string, int) ([]*acme.ExternalAccountKey, string, error) {
	return nil, "", errNoEAB()
}

func (noEAB) GetExternalAccountKeyByReference(context.Context, string, string) (*acme.ExternalAccountKey, error) {
	return nil, errNoEAB()
}

func (noEAB) GetExternalAccountKeyByAccountID(context.Context, string, string) (*acme.ExternalAccountKey, error) {
	return nil, errNoEAB()
}

func (noEAB) DeleteExternalAccountKey(context.Context, string, string) error { return errNoEAB() }

func (noEAB) UpdateExternalAccountKey(context.Context, string, *acme.ExternalAccountKey) error {
	return errNoEAB()
}
