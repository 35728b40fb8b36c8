// Package acmestore keeps the accounts, orders, authorizations, challenges, nonces and
// external account keys of an ACME server (RFC 8555) in the database of the record, in
// the types of smallstep's server.
//
//	a := acmestore.New(db)
//	err := a.CreateAccount(ctx, acc)
//	err = a.AddOrder(ctx, acmestore.NewOrder{Order: o, Authorizations: list, Profile: "web"})
//	o, err := a.Order(ctx, id)
//
// A certificate and the end of its order are one transaction, which the record
// commits: see store.Issuance.Order.
//
// Invariants:
//
//   - All state is in the database, except for copies of keys that never change: an order
//     that was made at one replica goes on at another (TestACMERoundTrip).
//   - A status only goes forward (pending, ready, valid or invalid; RFC 8555 §7.1.6). Of two
//     requests that read the same status, the later update changes nothing and returns the
//     status that is stored (TestACMEForwardOnly, TestACMEReadyRace, TestACMEFinishRace).
//   - A nonce is accepted once, at any replica, and an unused one takes no space
//     (TestACMENonces).
//   - An external account key binds one account, and its secret is deleted then
//     (TestEABOnce, TestEABGone).
//   - Accounts without a certificate, and orders of one account, are limited in number
//     (TestACMELimits), and expired rows are deleted (TestACMESweep).
package acmestore

import (
	"errors"
	"sync"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
)

// ErrEABGone reports an external account key that is unknown, was used, was revoked or has
// expired.
var ErrEABGone = errors.New("the external account key is unknown, used, revoked or expired")

// ErrTooManyAccounts reports that there are maxUnproven accounts without a certificate, and
// that each of them has a recent order, so none is deleted for a new one.
var ErrTooManyAccounts = errors.New("too many accounts have their first order under way")

// KeyInUseError says that another account has the new key, by its id.
type KeyInUseError struct{ Account string }

func (e *KeyInUseError) Error() string { return "account " + e.Account + " has this key" }

// Store is the part of a record that an ACME server works on. It is safe for
// concurrent use.
type Store struct {
	db      *sqldb.DB
	secrets sync.Map // name of a key that was read or made → the key
}

// New returns what an ACME server works on in an open database.
func New(db *sqldb.DB) *Store { return &Store{db: db} }
