package ca

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/smallstep/certificates/acme"

	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/ca/store"
)

// smallstep's handler for new orders stores challenges, then authorizations, then
// the order, and asks no profile. The session keeps the parts until the order
// comes, holds it against the profiles, and stores all at once or nothing.

// CreateChallenge names a challenge; its authorization comes next.
func (s *acmeSession) CreateChallenge(_ context.Context, ch *acme.Challenge) error {
	ch.ID = rand.Text()
	return nil
}

// CreateAuthorization names an authorization and keeps it for its order.
func (s *acmeSession) CreateAuthorization(_ context.Context, az *acme.Authorization) error {
	az.ID = rand.Text()
	s.made = append(s.made, az)
	return nil
}

// CreateOrder stores an order that a profile allows, with everything that is its own.
func (s *acmeSession) CreateOrder(ctx context.Context, o *acme.Order) error {
	p, err := s.st.acmeProfile(o.Identifiers)
	if err != nil {
		s.a.countRefusal(err)
		return problemOf(err)
	}
	asked, err := s.dateOrder(o, p, time.Now())
	if err != nil {
		s.a.countRefusal(err)
		return problemOf(err)
	}
	return s.AddOrder(ctx, store.NewOrder{Order: o, Authorizations: s.made, Asked: asked})
}

// dateOrder puts the profile's lifetime in the place of smallstep's default, and
// refuses at once what finalizing would.
func (s *acmeSession) dateOrder(o *acme.Order, p *profile, now time.Time) (asked bool, err error) {
	var req struct {
		NotAfter time.Time `json:"notAfter"`
	}
	if err := json.Unmarshal(s.call.payload, &req); err != nil {
		return false, badRequest("the payload is not an order")
	}
	if !req.NotAfter.IsZero() {
		_, err := p.validity(dates{notAfter: req.NotAfter}, bounds{now: now, issuing: s.st.intermediates[0]})
		return true, err
	}
	now = now.UTC().Truncate(time.Second)
	o.NotBefore, o.NotAfter = now, now.Add(p.life.Default)
	return false, nil
}

// acmeProfile finds the one profile that an order is for. All its names must be
// of one, and of no other: a name that two services share proves neither.
func (st *state) acmeProfile(ids []acme.Identifier) (*profile, error) {
	asked, err := identifierNames(ids)
	if err != nil {
		return nil, err
	}
	found := slices.DeleteFunc(st.rules.allowing(asked), func(p *profile) bool { return !p.acme })
	switch len(found) {
	case 0:
		return nil, refuse(ruleACME, "no profile with acme: true has all of %q", asked)
	case 1:
		return found[0], nil
	}
	var services []string
	for _, p := range found {
		services = append(services, p.service)
	}
	return nil, refuse(ruleACME, "%q are names of more than one service: %s", asked, strings.Join(services, ", "))
}

func identifierNames(ids []acme.Identifier) ([]string, error) {
	var list []string
	for _, id := range ids {
		if id.Type != acme.DNS && id.Type != acme.IP {
			return nil, refuse(ruleACME, "%.40q is neither dns nor ip", string(id.Type))
		}
		name, err := names.Canonical(id.Value)
		if err != nil {
			return nil, refuse(ruleACME, "%v", err)
		}
		if names.IsWildcard(name) {
			return nil, refuse(ruleACME, "%q is a wildcard, which is not proven by challenges here", name)
		}
		addr, notAddr := netip.ParseAddr(name)
		if (notAddr == nil) != (id.Type == acme.IP) {
			return nil, refuse(ruleACME, "%q is not of type %s", name, id.Type)
		}
		// The authority would ask itself: whoever shares its machine could prove it.
		if name == "localhost" || strings.HasSuffix(name, ".localhost") || notAddr == nil && (addr.IsLoopback() || addr.IsUnspecified()) {
			return nil, refuse(ruleLoopback, "%q is the machine of the authority", name)
		}
		if slices.Contains(list, name) {
			return nil, refuse(ruleACME, "%q stands there twice", name)
		}
		list = append(list, name)
	}
	return list, nil
}

// countRefusal counts what is refused to an account that has proven nothing yet:
// a stranger could fill the record with such refusals.
func (a *Authority) countRefusal(err error) {
	var r *refusal
	if errors.As(err, &r) {
		a.metrics.refused.WithLabelValues(r.rule).Inc()
	}
}
