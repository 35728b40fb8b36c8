package acmesrv

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/smallstep/certificates/acme"

	"github.com/artstore/artstore-pki/ca/internal/acmestore"
	"github.com/artstore/artstore-pki/ca/internal/challenge"
	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/ca/internal/problem"
	"github.com/artstore/artstore-pki/ca/policy"
)

const (
	// orderLife is the time from newOrder to the expiry of the order and its authorizations.
	orderLife = 24 * time.Hour
	// maxIdentifiers bounds the rows of one order: each identifier is an authorization with
	// up to three challenges.
	maxIdentifiers = 100
)

// orderRequest is the payload of newOrder (RFC 8555 §7.4, draft-ietf-acme-profiles §4).
type orderRequest struct {
	Identifiers []acme.Identifier `json:"identifiers"`
	NotBefore   time.Time         `json:"notBefore"`
	NotAfter    time.Time         `json:"notAfter"`
	Profile     string            `json:"profile"`
	Replaces    string            `json:"replaces"` // RFC 9773 §5
}

// parseOrder reads an order and bounds the number of its identifiers. What they are is
// checked against the profiles, by profileFor.
func parseOrder(payload []byte) (req orderRequest, err error) {
	if err := json.Unmarshal(payload, &req); err != nil {
		return req, malformed("the payload is not an order: {identifiers: [{type, value}], notBefore, notAfter, profile}, dates as in RFC 3339")
	}
	switch n := len(req.Identifiers); {
	case n == 0:
		return req, malformed("the order has no identifiers")
	case n > maxIdentifiers:
		return req, malformed("the order has %d identifiers, more than %d", n, maxIdentifiers)
	}
	return req, nil
}

// postNewOrder stores an order that a profile allows, with its authorizations and
// challenges, in one transaction (RFC 8555 §7.4).
func (s *session) postNewOrder(w http.ResponseWriter, r *http.Request) error {
	req, err := parseOrder(s.call.payload)
	if err != nil {
		return err
	}
	p, err := s.profileFor(r, req.Identifiers, req.Profile)
	if err == nil { // dates that Issue would refuse are refused now (RFC 8555 §7.4)
		err = s.authority.CheckDates(p, req.NotBefore, req.NotAfter)
	}
	if err != nil {
		s.authority.CountDenial(err)
		return err
	}
	replaces, err := s.replacedBy(r, req)
	if err != nil {
		return err
	}
	o := &acme.Order{
		AccountID: s.call.account.ID, ProvisionerID: s.rules.ACME.Name, Status: acme.StatusPending, Identifiers: req.Identifiers,
		NotBefore: req.NotBefore.UTC().Truncate(time.Second), NotAfter: req.NotAfter.UTC().Truncate(time.Second), ExpiresAt: time.Now().Add(orderLife).UTC().Truncate(time.Second),
	}
	list := make([]*acme.Authorization, 0, len(req.Identifiers))
	for _, id := range req.Identifiers {
		az, err := s.newAuthorization(id, o)
		if err != nil {
			return err
		}
		list = append(list, az)
		o.AuthorizationIDs = append(o.AuthorizationIDs, az.ID)
	}
	if err := s.record.AddOrder(r.Context(), acmestore.NewOrder{Order: o, Authorizations: list, Profile: p.Name, Replaces: replaces}); err != nil {
		return err
	}
	return s.writeOrder(w, http.StatusCreated, acmestore.Order{Order: o, Profile: p.Name, Replaces: replaces})
}

// newAuthorization returns a pending authorization with each challenge of the provisioner
// that can prove the identifier. It is a denial if none can.
func (s *session) newAuthorization(id acme.Identifier, o *acme.Order) (*acme.Authorization, error) {
	az := &acme.Authorization{ID: rand.Text(), AccountID: o.AccountID, Identifier: id, Token: newToken(), Status: acme.StatusPending, ExpiresAt: o.ExpiresAt}
	for _, kind := range s.rules.ACME.Challenges {
		if proves(kind, id) {
			az.Challenges = append(az.Challenges, &acme.Challenge{ID: rand.Text(), Type: acme.ChallengeType(kind), Status: acme.StatusPending})
		}
	}
	if len(az.Challenges) == 0 {
		return nil, denial.New(denial.ACME, "%.80q cannot be proven by %s, which is all that the provisioner has (pki.yaml, challenges)", id.Value, strings.Join(s.rules.ACME.Challenges, ", "))
	}
	return az, nil
}

// newToken returns a token of 192 random bits; RFC 8555 §11.3 requires 128. Its length in
// bits is a multiple of both 6 and 8, so base64url has one spelling for it: clients such as
// certbot decode the token, encode it again and compare.
func newToken() string {
	b := make([]byte, 24)
	_, _ = rand.Read(b) // crypto/rand.Read never returns an error
	return base64.RawURLEncoding.EncodeToString(b)
}

// proves reports whether a kind of challenge can prove an identifier. An IP address has no
// TXT records (RFC 8738 §7). A wildcard (RFC 8555 §7.1.3) needs dns-01: one host cannot
// answer for all the names that it covers.
func proves(kind string, id acme.Identifier) bool {
	switch {
	case id.Type == acme.IP:
		return kind != challenge.DNS01
	case names.IsWildcard(id.Value):
		return kind == challenge.DNS01
	}
	return true
}

// profileFor returns the profile for an order among those that the account may use: with an
// external account key, the profiles of that key; without one, all with acme: true. The key
// is read again each time, so that revoking it stops orders that were made before.
func (s *session) profileFor(r *http.Request, ids []acme.Identifier, want string) (*policy.Service, error) {
	key, bound, err := s.record.Binding(r.Context(), s.call.account.ID)
	if err != nil {
		return nil, err
	}
	switch {
	case bound && !key.Revoked.IsZero():
		return nil, problem.New(problem.Unauthorized, "the external account key of this account was revoked")
	case !bound && s.rules.ACME.RequireEAB:
		return nil, problem.New(problem.ExternalAccountRequired, "the account has no external account binding: register again with a key from the operator")
	}
	may := func(service string) bool { return !bound || slices.Contains(key.Profiles, service) }
	return s.profileOf(ids, want, may)
}

// profileOf returns the profile for the names of an order. If the client names a profile
// (draft-ietf-acme-profiles §4), this profile must allow all names. Otherwise exactly one
// profile must allow them: the authority does not choose between services.
func (s *Server) profileOf(ids []acme.Identifier, want string, may func(service string) bool) (*policy.Service, error) {
	list, err := identifierNames(ids)
	if err != nil {
		return nil, err
	}
	usable := func(p *policy.Service) bool { return p.ACME && may(p.Name) }
	var offered, found []string
	for _, service := range slices.Sorted(maps.Keys(s.rules.Services)) {
		if usable(s.rules.Services[service]) {
			offered = append(offered, service)
		}
	}
	for _, p := range s.rules.Allowing(list) {
		if usable(p) {
			found = append(found, p.Name)
		}
	}
	switch {
	case want != "" && !slices.Contains(offered, want):
		return nil, problem.New(problem.InvalidProfile, "there is no profile %.64q for this account, only %q", want, offered)
	case want != "" && slices.Contains(found, want):
		return s.rules.Services[want], nil
	case want != "":
		return nil, s.noProfile(ids, []string{want}, "profile %q does not have all of %q", want, list)
	case len(found) == 0:
		return nil, s.noProfile(ids, offered, "no profile with acme: true has all of %q", list)
	case len(found) > 1:
		return nil, denial.New(denial.ACME, "%q are names of more than one service: %s; name one as the profile of the order", list, strings.Join(found, ", "))
	}
	return s.rules.Services[found[0]], nil
}

// noProfile returns the refusal of names, with a subproblem for each name that none of the
// services has (RFC 8555 §6.7.1). The error is both the problem for the client and the
// denial, which [Authority.CountDenial] counts.
func (s *Server) noProfile(ids []acme.Identifier, services []string, format string, args ...any) error {
	denied := denial.New(denial.ACME, format, args...)
	p := problem.New(problem.RejectedIdentifier, "%s", denied)
	for _, id := range ids {
		name, err := names.Canonical(id.Value)
		if err != nil || slices.ContainsFunc(services, func(service string) bool { return s.rules.Services[service].Allows([]string{name}, nil) == nil }) {
			continue
		}
		p.Subproblems = append(p.Subproblems, problem.Subproblem{
			Type: problem.RejectedIdentifier, Detail: fmt.Sprintf("%q is a name of no profile that this account can use", name), Kind: string(id.Type), Value: id.Value,
		})
	}
	return errors.Join(p, denied)
}

// identifierNames returns the names of an order in the canonical form of profiles, in the
// order of the identifiers. Two identifiers with one canonical form are a denial.
func identifierNames(ids []acme.Identifier) ([]string, error) {
	var list []string
	for _, id := range ids {
		if id.Type != acme.DNS && id.Type != acme.IP {
			return nil, problem.New(problem.UnsupportedIdentifier, "an identifier is neither of type dns nor ip (RFC 8555 §9.7.7, RFC 8738)")
		}
		name, err := identifierName(id)
		if err != nil {
			return nil, err
		}
		if slices.Contains(list, name) {
			return nil, denial.New(denial.ACME, "%q stands there twice", name)
		}
		list = append(list, name)
	}
	return list, nil
}

// identifierName returns the canonical form of one identifier. A DNS name of type ip, or an
// address of type dns, is a denial, and so is a name that ACME must not prove
// ([policy.CheckACMEName]).
func identifierName(id acme.Identifier) (string, error) {
	name, err := names.Canonical(id.Value)
	if err != nil {
		return "", denial.New(denial.ACME, "%v", err)
	}
	_, notAddr := netip.ParseAddr(name)
	if (notAddr == nil) != (id.Type == acme.IP) || strings.Contains(name, "://") {
		return "", denial.New(denial.ACME, "%q is not of type %s", name, id.Type)
	}
	return name, policy.CheckACMEName(name)
}

// ownOrder returns the order that the request is for, if the account of the request made it.
func (s *session) ownOrder(r *http.Request) (acmestore.Order, error) {
	o, err := s.record.Order(r.Context(), chi.URLParam(r, "id"))
	if err == nil && o.AccountID != s.call.account.ID {
		err = problem.New(problem.Unauthorized, "the order is another account's")
	}
	return o, err
}

func (s *session) postOrder(w http.ResponseWriter, r *http.Request) error {
	o, err := s.ownOrder(r)
	if err == nil {
		err = s.postAsGet()
	}
	if err != nil {
		return err
	}
	return s.writeOrder(w, http.StatusOK, o)
}

// wireOrder is an order as it is sent (RFC 8555 §7.1.3). Dates that the client did not ask
// for are absent; the certificate gets the dates of its profile.
type wireOrder struct {
	Status         acme.Status       `json:"status"`
	Expires        time.Time         `json:"expires"`
	Identifiers    []acme.Identifier `json:"identifiers"`
	Profile        string            `json:"profile,omitempty"`
	Replaces       string            `json:"replaces,omitempty"` // RFC 9773 §5
	NotBefore      time.Time         `json:"notBefore,omitzero"`
	NotAfter       time.Time         `json:"notAfter,omitzero"`
	Error          json.Marshaler    `json:"error,omitempty"`
	Authorizations []string          `json:"authorizations"`
	Finalize       string            `json:"finalize"`
	Certificate    string            `json:"certificate,omitempty"`
}

// writeOrder answers an order object, with its address in Location (RFC 8555 §7.4). The
// addresses of its parts begin with the host of this request, as all addresses do.
func (s *session) writeOrder(w http.ResponseWriter, status int, o acmestore.Order) error {
	at := s.link("order", o.ID)
	out := wireOrder{
		Status: o.Status, Expires: o.ExpiresAt, Identifiers: o.Identifiers, Profile: o.Profile, Replaces: o.Replaces,
		NotBefore: o.NotBefore, NotAfter: o.NotAfter, Finalize: at + "/finalize",
	}
	if o.Error != nil {
		out.Error = problemOf(o.Error)
	}
	for _, id := range o.AuthorizationIDs {
		out.Authorizations = append(out.Authorizations, s.link("authz", id))
	}
	if o.CertificateID != "" {
		out.Certificate = s.link("certificate", o.CertificateID)
	}
	w.Header().Set("Location", at)
	return writeResource(w, status, out)
}
