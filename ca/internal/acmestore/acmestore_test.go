package acmestore_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smallstep/certificates/acme"
	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/internal/acmestore"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/testpki"
)

func acmeAccount(t testing.TB, a *acmestore.Store) *acme.Account {
	t.Helper()
	acc := &acme.Account{
		Key: acmeKey(t), Contact: []string{"mailto:a@b.example"}, Status: acme.StatusValid,
		LocationPrefix: "https://ca.example/acme/acme/account/", ProvisionerName: "acme",
	}
	if err := a.CreateAccount(t.Context(), acc); err != nil {
		t.Fatal(err)
	}
	return acc
}

func acmeKey(t testing.TB) *jose.JSONWebKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &jose.JSONWebKey{Key: key.Public(), Algorithm: "ES256"}
}

// acmeOrder stores an order for one name, with one challenge.
func acmeOrder(t testing.TB, a *acmestore.Store, acc *acme.Account, name string) *acme.Order {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Millisecond)
	o := &acme.Order{
		AccountID: acc.ID, ProvisionerID: "acme/acme", Status: acme.StatusPending, Identifiers: []acme.Identifier{{Type: acme.DNS, Value: name}},
		NotBefore: now, NotAfter: now.Add(time.Hour), ExpiresAt: now.Add(24 * time.Hour),
	}
	az := &acme.Authorization{ID: rand.Text(), AccountID: acc.ID, Identifier: o.Identifiers[0], Token: "token", Status: acme.StatusPending, ExpiresAt: o.ExpiresAt}
	for _, kind := range []acme.ChallengeType{acme.DNS01, acme.HTTP01} {
		az.Challenges = append(az.Challenges, &acme.Challenge{ID: rand.Text(), AccountID: acc.ID, Value: name, Token: az.Token, Type: kind, Status: acme.StatusPending})
	}
	if err := a.AddOrder(t.Context(), acmestore.NewOrder{Order: o, Authorizations: []*acme.Authorization{az}, Profile: "web"}); err != nil {
		t.Fatal(err)
	}
	return o
}

// ready answers all challenges of an order.
func ready(t testing.TB, a *acmestore.Store, o *acme.Order) {
	t.Helper()
	now, err := a.Order(t.Context(), o.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range now.AuthorizationIDs {
		answered(t, a, id, acme.StatusValid)
	}
	if now, err = a.Order(t.Context(), o.ID); err != nil || now.Status != acme.StatusReady {
		t.Fatalf("%s, %v", now.Status, err)
	}
}

// answered ends the first challenge of an authorization.
func answered(t testing.TB, a *acmestore.Store, authorization string, status acme.Status) {
	t.Helper()
	az, err := a.GetAuthorization(t.Context(), authorization)
	if err != nil {
		t.Fatal(err)
	}
	ch := az.Challenges[0]
	if ch.Status = status; status == acme.StatusInvalid {
		ch.Error = acme.NewDetailedError(acme.ErrorDNSType, "no such name")
	}
	if err := a.UpdateChallenge(t.Context(), ch); err != nil || ch.Status != status {
		t.Fatalf("%s, %v", ch.Status, err)
	}
}

// What goes in comes out, at another process too.
func TestACMERoundTrip(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		a, b := open(t, where).acme, open(t, where).acme
		acc := acmeAccount(t, a)
		kid, err := acme.KeyToID(acc.Key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := b.GetAccountByKeyID(t.Context(), kid)
		if err != nil || got.ID != acc.ID || got.GetLocation() != acc.LocationPrefix+acc.ID || got.Contact[0] != acc.Contact[0] || got.ProvisionerName != "acme" || !got.IsValid() {
			t.Fatalf("%+v, %v", got, err)
		}
		if got.Key.Algorithm != "" || !got.Key.IsPublic() {
			t.Errorf("more than the key was kept: %+v", got.Key)
		}
		if _, err := b.GetAccount(t.Context(), "nobody"); !acme.IsErrNotFound(err) {
			t.Errorf("an unknown account: %v", err)
		}
		o := acmeOrder(t, a, acc, "web.example")
		back, err := b.Order(t.Context(), o.ID)
		if err != nil || back.Profile != "web" || !back.NotBefore.Equal(o.NotBefore) || !back.NotAfter.Equal(o.NotAfter) || back.Identifiers[0] != o.Identifiers[0] || len(back.AuthorizationIDs) != 1 {
			t.Fatalf("%+v, %v", back, err)
		}
		az, err := b.GetAuthorization(t.Context(), back.AuthorizationIDs[0])
		if err != nil || len(az.Challenges) != 2 || az.Challenges[0].Type != acme.DNS01 || az.Challenges[1].Token != "token" || az.Challenges[1].Value != "web.example" {
			t.Fatalf("%+v, %v", az, err)
		}
		if list, err := b.GetOrdersByAccountID(t.Context(), acc.ID); err != nil || len(list) != 1 || list[0] != o.ID {
			t.Errorf("orders: %v, %v", list, err)
		}
		for what, err := range map[string]error{
			"order":         second(b.Order(t.Context(), "x")),
			"authorization": second(b.GetAuthorization(t.Context(), "x")),
			"challenge":     second(b.GetChallenge(t.Context(), az.Challenges[0].ID, "x")),
			"certificate":   second(b.GetCertificate(t.Context(), "1")),
		} {
			if p, ok := errors.AsType[*acme.Error](err); !ok || !strings.Contains(p.Detail, what) {
				t.Errorf("an unknown %s: %v", what, err)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }

// One key has one account, also when two requests come at once.
func TestACMEAccountOfAKey(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		a := open(t, where).acme
		first := acmeAccount(t, a)
		ids := make([]string, 8)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				acc := &acme.Account{Key: first.Key, Status: acme.StatusValid}
				if err := a.CreateAccount(t.Context(), acc); err != nil {
					t.Error(err)
				}
				ids[i] = acc.ID
			})
		}
		wg.Wait()
		for _, id := range ids {
			if id != first.ID {
				t.Errorf("account %s for the key of %s", id, first.ID)
			}
		}
		first.Status = acme.StatusDeactivated
		if err := a.UpdateAccount(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		first.Status = acme.StatusValid
		if err := a.UpdateAccount(t.Context(), first); err != nil || first.Status != acme.StatusDeactivated {
			t.Errorf("a deactivated account is %s again, %v", first.Status, err)
		}
	})
}

// Status goes forward only: who comes late learns what is there. A challenge moves
// its authorization and its order in the same transaction (RFC 8555 §7.1.6).
func TestACMEForwardOnly(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		a := open(t, where).acme
		acc := acmeAccount(t, a)
		read := func(o *acme.Order) (acmestore.Order, *acme.Authorization) {
			t.Helper()
			now, err := a.Order(t.Context(), o.ID)
			if err != nil {
				t.Fatal(err)
			}
			az, err := a.GetAuthorization(t.Context(), now.AuthorizationIDs[0])
			if err != nil {
				t.Fatal(err)
			}
			return now, az
		}
		one := acmeOrder(t, a, acc, "web.example")
		_, az := read(one)
		ch, late, other := az.Challenges[0], *az.Challenges[0], *az.Challenges[1]
		ch.Status, ch.ValidatedAt = acme.StatusValid, "2026-11-26T00:00:00Z"
		if err := a.UpdateChallenge(t.Context(), ch); err != nil {
			t.Fatal(err)
		}
		late.Status, late.Error = acme.StatusInvalid, acme.NewError(acme.ErrorConnectionType, "too late")
		if err := a.UpdateChallenge(t.Context(), &late); err != nil || late.Status != acme.StatusValid || late.Error != nil || late.ValidatedAt != ch.ValidatedAt {
			t.Errorf("a valid challenge is %s, %v", late.Status, err)
		}
		other.Status = acme.StatusInvalid
		if err := a.UpdateChallenge(t.Context(), &other); err != nil || other.Status != acme.StatusPending {
			t.Errorf("the second challenge of a valid authorization is %s, %v", other.Status, err)
		}
		if now, az := read(one); now.Status != acme.StatusReady || az.Status != acme.StatusValid {
			t.Errorf("order %s, authorization %s", now.Status, az.Status)
		}

		two := acmeOrder(t, a, acc, "web.example")
		now, _ := read(two)
		answered(t, a, now.AuthorizationIDs[0], acme.StatusInvalid)
		if now, az = read(two); now.Status != acme.StatusInvalid || now.Error == nil || az.Status != acme.StatusInvalid || az.Error == nil || az.Challenges[0].Error == nil {
			t.Errorf("after a failed challenge: order %+v, authorization %+v", now, az)
		}

		for i, o := range []*acme.Order{acmeOrder(t, a, acc, "web.example"), one} {
			_, az := read(o)
			if err := a.DeactivateAuthorization(t.Context(), az.ID); err != nil {
				t.Fatal(err)
			}
			if now, az := read(o); now.Status != acme.StatusInvalid || now.Error == nil || az.Status != acme.StatusDeactivated {
				t.Errorf("%d: after a deactivation: order %s, authorization %s", i, now.Status, az.Status)
			}
		}
		_, az = read(two)
		if err := a.DeactivateAuthorization(t.Context(), az.ID); err != nil {
			t.Fatal(err)
		}
		if _, az = read(two); az.Status != acme.StatusInvalid {
			t.Errorf("a failed authorization is %s", az.Status)
		}
	})
}

// The challenges of one order that are answered at the same moment make it ready.
func TestACMEReadyRace(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		one, two := open(t, where).acme, open(t, where).acme
		acc := acmeAccount(t, one)
		for range 20 {
			o := &acme.Order{AccountID: acc.ID, Status: acme.StatusPending, ExpiresAt: time.Now().Add(time.Hour)}
			var list []*acme.Authorization
			for range 12 {
				list = append(list, &acme.Authorization{ID: rand.Text(), AccountID: acc.ID, Status: acme.StatusPending, ExpiresAt: o.ExpiresAt,
					Challenges: []*acme.Challenge{{ID: rand.Text(), Status: acme.StatusPending}}})
			}
			if err := one.AddOrder(t.Context(), acmestore.NewOrder{Order: o, Authorizations: list}); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for i, az := range list {
				wg.Go(func() {
					ch := &acme.Challenge{ID: az.Challenges[0].ID, AuthorizationID: az.ID, Status: acme.StatusValid}
					if err := []*acmestore.Store{one, two}[i%2].UpdateChallenge(t.Context(), ch); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if now, err := one.Order(t.Context(), o.ID); err != nil || now.Status != acme.StatusReady {
				t.Fatalf("all are answered, and the order is %s, %v", now.Status, err)
			}
		}
	})
}

// An order that is past its end is invalid, and cannot be finalized.
func TestACMEOrderExpires(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		s := open(t, where)
		a := s.acme
		acc := acmeAccount(t, a)
		az := &acme.Authorization{ID: rand.Text(), AccountID: acc.ID, Status: acme.StatusPending, Challenges: []*acme.Challenge{{ID: rand.Text(), Status: acme.StatusPending}}}
		o := &acme.Order{AccountID: acc.ID, Status: acme.StatusPending, ExpiresAt: time.Now().Add(-time.Minute)}
		if err := a.AddOrder(t.Context(), acmestore.NewOrder{Order: o, Authorizations: []*acme.Authorization{az}}); err != nil {
			t.Fatal(err)
		}
		answered(t, a, az.ID, acme.StatusValid)
		now, err := a.Order(t.Context(), o.ID)
		if err != nil || now.Status != acme.StatusInvalid || now.Error == nil || !now.NotAfter.IsZero() || !now.NotBefore.IsZero() {
			t.Errorf("%+v, %v", now, err)
		}
		if _, err := s.Commit(t.Context(), store.Issuance{Certificate: newCertificate(t, "web"), Order: o.ID}); !errors.Is(err, store.ErrOrderGone) {
			t.Errorf("a certificate for it: %v", err)
		}
	})
}

// Another key takes the place of an account's, once, and never that of another account.
func TestACMEChangeKey(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		a := open(t, where).acme
		one, two := acmeAccount(t, a), acmeAccount(t, a)
		from, to := one.Key, acmeKey(t)
		if err := a.ChangeKey(t.Context(), one.ID, from, to); err != nil {
			t.Fatal(err)
		}
		kid, err := acme.KeyToID(to)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := a.GetAccountByKeyID(t.Context(), kid); err != nil || got.ID != one.ID {
			t.Errorf("%+v, %v", got, err)
		}
		if err := a.ChangeKey(t.Context(), one.ID, from, acmeKey(t)); !acme.IsErrNotFound(err) {
			t.Errorf("from a key of before: %v", err)
		}
		err = a.ChangeKey(t.Context(), two.ID, two.Key, to)
		if taken, ok := errors.AsType[*acmestore.KeyInUseError](err); !ok || taken.Account != one.ID {
			t.Errorf("to the key of another: %v", err)
		}
		two.Status = acme.StatusDeactivated
		if err := a.UpdateAccount(t.Context(), two); err != nil {
			t.Fatal(err)
		}
		if err := a.ChangeKey(t.Context(), two.ID, two.Key, acmeKey(t)); !acme.IsErrNotFound(err) {
			t.Errorf("of a deactivated account: %v", err)
		}
	})
}

// An order becomes valid with the commit of its certificate, and in no other way.
func TestACMEFinish(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		s := open(t, where)
		a := s.acme
		acc := acmeAccount(t, a)
		o := acmeOrder(t, a, acc, "web.example")
		c := newCertificate(t, "web")
		if _, err := s.Commit(t.Context(), store.Issuance{Certificate: c, Order: o.ID}); !errors.Is(err, store.ErrOrderGone) {
			t.Fatalf("an order that is not ready: %v", err)
		}
		if _, err := s.Get(t.Context(), c.Serial); !errors.Is(err, record.ErrNotFound) {
			t.Fatalf("the certificate was stored without its order: %v", err)
		}
		ready(t, a, o)
		if _, err := s.Commit(t.Context(), store.Issuance{Certificate: c, Order: o.ID}); err != nil {
			t.Fatal(err)
		}
		if now, err := a.Order(t.Context(), o.ID); err != nil || now.Status != acme.StatusValid || now.CertificateID != c.Serial {
			t.Errorf("the commit made it %s, %v", now.Status, err)
		}
		for _, id := range o.AuthorizationIDs {
			if err := a.DeactivateAuthorization(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		if now, err := a.Order(t.Context(), o.ID); err != nil || now.Status != acme.StatusValid {
			t.Errorf("a finished order is %s, %v", now.Status, err)
		}
		got, err := a.GetCertificate(t.Context(), c.Serial)
		if err != nil || got.OrderID != o.ID || got.AccountID != acc.ID || string(got.Leaf.Raw) != string(c.DER) || len(got.Intermediates) != 1 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// Many replicas finalize one order at once: there is one certificate.
func TestACMEFinishRace(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		one, two := open(t, where), open(t, where)
		a := one.acme
		o := acmeOrder(t, a, acmeAccount(t, a), "web.example")
		ready(t, a, o)
		token := store.Token{Hash: [32]byte{1}, Expires: time.Now().Add(time.Hour)}
		first := newCertificate(t, "web")
		serials := make([]string, 10)
		var wg sync.WaitGroup
		for i := range serials {
			wg.Go(func() {
				c := newCertificate(t, "web")
				c.KeyHash = first.KeyHash // the same key
				got, err := []*replica{one, two}[i%2].Commit(t.Context(), store.Issuance{Certificate: c, Order: o.ID, Token: token})
				if err != nil {
					t.Error(err)
				}
				serials[i] = got.Serial
			})
		}
		wg.Wait()
		for _, serial := range serials {
			if serial != serials[0] {
				t.Errorf("two certificates for one order: %s and %s", serial, serials[0])
			}
		}
	})
}

// A nonce is good once, at any replica, until it expires; asking for one stores nothing.
func TestACMENonces(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		one, two := open(t, where).acme, open(t, where).acme
		nonce, err := one.CreateNonce(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := two.CheckNonce(t.Context(), nonce); err != nil {
			t.Errorf("at another replica: %v", err)
		}
		if err := two.DeleteNonce(t.Context(), nonce); err != nil {
			t.Errorf("the first use: %v", err)
		}
		for what, n := range map[string]acme.Nonce{"again": nonce, "altered": "A" + nonce[1:], "cut": nonce[:20], "empty": "", "another spelling": nonce + "=", "noise": "!"} {
			if n == "A"+nonce[1:] && n == nonce {
				continue
			}
			err := one.DeleteNonce(t.Context(), n)
			if p, ok := errors.AsType[*acme.Error](err); !ok || !strings.HasSuffix(p.Type, ":badNonce") {
				t.Errorf("%s: %v", what, err)
			}
		}
		var wg sync.WaitGroup
		var good int
		var mu sync.Mutex
		fresh, err := one.CreateNonce(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			wg.Go(func() {
				if []*acmestore.Store{one, two}[i%2].DeleteNonce(t.Context(), fresh) == nil {
					mu.Lock()
					good++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if good != 1 {
			t.Errorf("one nonce was good %d times", good)
		}
	})
}

// newCertificate has a serial and a key of its own.
func newCertificate(t testing.TB, service string) record.Certificate {
	t.Helper()
	c := record.NewCertificate([]*x509.Certificate{chainFor(t, serials.Add(1)), chainFor(t, 1)}, time.Now())
	c.Service, c.Kind, c.Caller = service, kinds.Issued, "acme account"
	return c
}

var serials atomic.Int64

// chainFor is a self-signed certificate with a serial.
func chainFor(t testing.TB, serial int64) *x509.Certificate {
	t.Helper()
	return testpki.Issue(t, nil, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "a"}, DNSNames: []string{"a"}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
	}, nil).Cert
}
