package acmesrv

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/mail"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/smallstep/certificates/acme"

	"github.com/artstore/artstore-pki/ca/internal/acmestore"
	"github.com/artstore/artstore-pki/ca/internal/problem"
	"github.com/artstore/artstore-pki/internal/connlimit"
)

// maxContact is the most bytes of contact addresses that an account may store.
const maxContact = 1000

// accountRequest is the payload of newAccount and of updates (RFC 8555 §7.3).
type accountRequest struct {
	Contact                []string        `json:"contact"`
	Status                 acme.Status     `json:"status"`
	OnlyReturnExisting     bool            `json:"onlyReturnExisting"`
	ExternalAccountBinding json.RawMessage `json:"externalAccountBinding"`
}

// parseAccount reads an account object. Members that only the server sets, such as orders,
// and termsOfServiceAgreed are ignored: this authority has no terms (RFC 8555 §7.3).
func parseAccount(payload []byte) (req accountRequest, err error) {
	if err := json.Unmarshal(payload, &req); err != nil {
		return req, malformed("the payload is not an account object")
	}
	n := 0
	for _, c := range req.Contact {
		if n += len(c) + 1; n > maxContact {
			return req, malformed("contact: more than %d bytes", maxContact)
		}
		if err := checkContact(c); err != nil {
			return req, err
		}
	}
	return req, nil
}

// checkContact accepts mailto with one address and without header fields (RFC 8555 §7.3).
// Errors do not quote the address, because clients log them and it is personal data.
func checkContact(text string) error {
	address, ok := strings.CutPrefix(text, "mailto:")
	if !ok {
		return problem.New(problem.UnsupportedContact, "contact: only mailto is supported")
	}
	if a, err := mail.ParseAddress(address); err != nil || a.Address != address || strings.ContainsAny(address, "?,") {
		return problem.New(problem.InvalidContact, "contact: mailto wants exactly one address and no header fields")
	}
	return nil
}

// postNewAccount makes an account and answers 201, or finds the account of a key that is
// known and answers 200 (RFC 8555 §7.3, §7.3.1).
func (s *session) postNewAccount(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	req, err := parseAccount(s.call.payload)
	if err != nil {
		return err
	}
	id, err := acme.KeyToID(s.call.key)
	if err != nil {
		return malformed("the key has no thumbprint")
	}
	acc, err := s.record.GetAccountByKeyID(ctx, id)
	if err != nil && !acme.IsErrNotFound(err) {
		return err
	}
	found := err == nil
	if found {
		if err := s.active(acc); err != nil {
			return err
		}
		_, bound, err := s.record.Binding(ctx, acc.ID)
		if err != nil {
			return err
		}
		// An account that was made before require_eab was set can be bound later. A bound
		// account stays as it is and is answered again: the first answer may have been lost.
		if bound || len(req.ExternalAccountBinding) == 0 || req.OnlyReturnExisting {
			return s.writeAccount(w, http.StatusOK, acc)
		}
	} else if req.OnlyReturnExisting {
		return problem.New(problem.AccountDoesNotExist, "no account has this key (onlyReturnExisting)")
	}
	if acc, err = s.createAccount(r, req); err != nil {
		return err
	}
	if found {
		return s.writeAccount(w, http.StatusOK, acc)
	}
	return s.writeAccount(w, http.StatusCreated, acc)
}

// createAccount stores a new account, or the binding of an account that has none. The checks
// come in the order of their cost: the MAC of the binding, the rate limit, the key.
func (s *session) createAccount(r *http.Request, req accountRequest) (*acme.Account, error) {
	eab, err := s.verifyBinding(r, req.ExternalAccountBinding)
	if err != nil {
		return nil, err
	}
	if eab == "" { // a key from the operator makes one account, which is limit enough
		if wait := s.accounts.Take(connlimit.AddressOf(r.RemoteAddr), time.Now()); wait > 0 {
			p := problem.New(problem.RateLimited, "this address has made %d accounts within an hour: use one of them, or try again in %s (pki.yaml, accounts_per_hour)",
				s.rules.ACME.AccountsPerHour, wait.Round(time.Second))
			p.RetryAfter = wait
			return nil, p
		}
	}
	if err := validKey(s.call.key); err != nil {
		return nil, err
	}
	acc := &acme.Account{Key: s.call.key, Contact: req.Contact, Status: acme.StatusValid, LocationPrefix: s.link("account", ""), ProvisionerName: s.rules.ACME.Name}
	err = s.record.CreateBoundAccount(r.Context(), acc, eab)
	switch {
	case errors.Is(err, acmestore.ErrEABGone): // another request has used the key in between
		return nil, errBindingGone()
	case errors.Is(err, acmestore.ErrTooManyAccounts):
		p := problem.New(problem.RateLimited, "%s: try again in a minute", acmestore.ErrTooManyAccounts)
		p.RetryAfter = time.Minute
		return nil, p
	}
	return acc, err
}

// writeAccount answers an account object with its address in Location (RFC 8555 §7.1.2,
// §7.3). A client keeps that address: it is its kid from now on.
func (s *session) writeAccount(w http.ResponseWriter, status int, acc *acme.Account) error {
	at := s.link("account", acc.ID)
	w.Header().Set("Location", at)
	return writeResource(w, status, map[string]any{"status": acc.Status, "contact": append([]string{}, acc.Contact...), "orders": at + "/orders"})
}

// ownAccount returns the account that signed the request, if the request is for the address
// of this account.
func (s *session) ownAccount(r *http.Request) (*acme.Account, error) {
	if acc := s.call.account; acc != nil && acc.ID == chi.URLParam(r, "id") {
		return acc, nil
	}
	return nil, problem.New(problem.Unauthorized, "the address is that of another account")
}

// postAccount reads, updates and deactivates an account (RFC 8555 §7.3.2, §7.3.6). Only
// contact and status can change; contact absent leaves it, [] removes it.
func (s *session) postAccount(w http.ResponseWriter, r *http.Request) error {
	acc, err := s.ownAccount(r)
	if err != nil {
		return err
	}
	if len(s.call.payload) == 0 {
		return s.writeAccount(w, http.StatusOK, acc)
	}
	req, err := parseAccount(s.call.payload)
	if err != nil {
		return err
	}
	switch req.Status {
	case "", acme.StatusValid:
	case acme.StatusDeactivated:
		acc.Status = acme.StatusDeactivated
	default:
		return malformed("status: an account can be deactivated, and nothing else")
	}
	if req.Contact != nil {
		acc.Contact = req.Contact
	}
	if err := s.record.UpdateAccount(r.Context(), acc); err != nil {
		return err
	}
	return s.writeAccount(w, http.StatusOK, acc)
}

// postOrders lists the orders that are pending or ready and have not expired
// (RFC 8555 §7.1.2.1).
func (s *session) postOrders(w http.ResponseWriter, r *http.Request) error {
	acc, err := s.ownAccount(r)
	if err != nil {
		return err
	}
	if err := s.postAsGet(); err != nil {
		return err
	}
	ids, err := s.record.GetOrdersByAccountID(r.Context(), acc.ID)
	if err != nil {
		return err
	}
	list := make([]string, 0, len(ids))
	for _, id := range ids {
		list = append(list, s.link("order", id))
	}
	return writeResource(w, http.StatusOK, map[string]any{"orders": list})
}

// postAsGet refuses a payload: a POST-as-GET has an empty one (RFC 8555 §6.3).
func (s *session) postAsGet() error {
	if len(s.call.payload) > 0 {
		return malformed("the payload of a POST-as-GET must be empty")
	}
	return nil
}
