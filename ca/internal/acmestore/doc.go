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
//   - There is no state beside the database but keys that never change: an order that
//     began at one replica goes on at another.
//   - A status only goes forward (pending, ready, valid or invalid; RFC 8555 §7.1.6),
//     whatever two requests read before they wrote: an update that comes too late
//     changes nothing and returns what is there.
//   - A nonce is good once, at any replica, and one that is unused takes no space.
//   - An external account key binds one account, and its secret is gone from then on.
//   - What strangers leave behind is bounded.
package acmestore

import (
	"errors"
	"sync"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
)

// ErrEABGone is an external account key that is unknown, was used, was revoked or has expired.
var ErrEABGone = errors.New("the external account key is unknown, used, revoked or expired")

// ErrTooManyAccounts says that all accounts that never got a certificate have an
// order under way: a new one has to wait.
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
