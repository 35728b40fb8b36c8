package ca_test

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// renewed renews a certificate, and returns the new one.
func renewed(t testing.TB, c *catest.CA, cert *tls.Certificate) *tls.Certificate {
	t.Helper()
	status, body := newClient(t, c, cert).do("POST", "/1.0/renew", nil)
	if status != http.StatusCreated {
		t.Fatalf("renew: %d %s", status, body)
	}
	return pair(t, body, cert.PrivateKey.(crypto.Signer))
}

// onlyOrder returns the one order that is open.
func onlyOrder(t testing.TB, c *catest.CA) stepapi.RenewalStatus {
	t.Helper()
	list, err := openRecord(t, c).Renewals(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("%d orders, %v", len(list), err)
	}
	return list[0]
}

// TestForceRenewal orders a renewal beside a running authority, and expects that the
// service that waits is told and no other, that who has not followed is named until it has,
// and that the order is an event of the log.
func TestForceRenewal(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	mine, other := enrol(t, c, "storage", "storage"), enrol(t, c, "ingester", "ingester")
	second := enrol(t, c, "storage", "storage") // another lineage
	cl := newClient(t, c, mine)
	have := having(now(t, cl))
	told, quiet := watchWith(t, cl, have), watchWith(t, newClient(t, c, other), have)
	awaitWatchers(t, c, 2)

	rec := openRecord(t, c)
	dry, err := rec.ForceRenewal(t.Context(), stepapi.RenewalOrder{Service: "storage", Within: "30s", DryRun: true})
	if err != nil || dry.ID != 0 || dry.Matched != 2 || len(dry.Pending) != 2 {
		t.Errorf("dry run: %+v %v", dry, err)
	}
	given, err := rec.ForceRenewal(t.Context(), stepapi.RenewalOrder{Service: "storage", Within: "30s", Note: "a test"})
	if err != nil || given.ID == 0 || given.Matched != 2 || given.Renewed != 0 || given.By.Sub(given.At) != 30*time.Second || given.Caller != "operator" {
		t.Fatalf("%+v %v", given, err)
	}
	got := <-told
	if got.Renewal == nil || got.Renewal.ID != given.ID || got.Renewal.Within <= 0 || got.Renewal.Within > 30 {
		t.Fatalf("the service that waits: %+v", got)
	}
	stillWaits(t, quiet, "a service that the order is not for")

	next := renewed(t, c, mine)
	if s := onlyOrder(t, c); s.Renewed != 1 || len(s.Pending) != 1 || s.Pending[0].Serial != certs.Serial(second.Leaf) || s.Pending[0].Service != "storage" ||
		s.Pending[0].LastSeen.IsZero() || s.Pending[0].NextRenewal.After(s.Pending[0].Expires) {
		t.Errorf("one of two has followed: %+v", s)
	}
	if w := now(t, newClient(t, c, next)); w.Renewal != nil {
		t.Errorf("with the new certificate: %+v", w.Renewal)
	}
	if w := now(t, newClient(t, c, second)); w.Renewal == nil || w.Renewal.ID != given.ID {
		t.Errorf("who has not followed: %+v", w)
	}
	c.Revoke(t, second.Leaf.SerialNumber.String())
	if s := onlyOrder(t, c); s.Renewed != 1 || len(s.Pending) != 0 || s.Matched != 2 {
		t.Errorf("after the other one was revoked: %+v", s)
	}
	events, err := rec.Events(t.Context(), kinds.RenewalOrdered, 0, 10)
	if err != nil || len(events) != 1 || events[0].ID != given.ID || !strings.Contains(events[0].Detail, "a test") {
		t.Errorf("%+v %v", events, err)
	}
	c.Check(t)
}

// TestHoldersAreTheSame: a step of a root and an order to renew are about the same holders. A
// lineage with one certificate revoked and another one live is a user of roots, and cannot renew.
func TestHoldersAreTheSame(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	compare := func(when string, holders, matched int) {
		t.Helper()
		trust, err := c.Authority.TrustStatus(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		order, err := openRecord(t, c).ForceRenewal(t.Context(), stepapi.RenewalOrder{Within: "1m", DryRun: true})
		if err != nil || trust.Holders != holders || order.Matched != matched {
			t.Errorf("%s: %d holders of roots, an order for %d, %v; want %d and %d", when, trust.Holders, order.Matched, err, holders, matched)
		}
		for _, h := range order.Pending {
			if !slices.ContainsFunc(trust.Roots[0].Users, func(u stepapi.Holder) bool { return u.Serial == h.Serial && u.NextRenewal.Equal(h.NextRenewal) }) {
				t.Errorf("%s: %s is in one list only", when, h.Serial)
			}
		}
	}
	first, second := enrol(t, c, "storage", "storage"), enrol(t, c, "ingester", "ingester")
	compare("enrolled", 2, 2)
	renewed(t, c, first)
	compare("renewed", 2, 2)
	c.Revoke(t, second.Leaf.SerialNumber.String())
	compare("one revoked", 1, 1)
	enrol(t, c, "storage", "storage")
	c.Revoke(t, first.Leaf.SerialNumber.String()) // and not its successor
	compare("the first of a lineage revoked", 2, 1)
	c.Revoke(t, renewedSerial(t, c, first))
	compare("all of it", 1, 1)
}

// renewedSerial returns the serial of the newest certificate of the lineage that begins with one.
func renewedSerial(t testing.TB, c *catest.CA, first *tls.Certificate) string {
	t.Helper()
	for _, entry := range listAll(t, c) {
		if entry.Previous == first.Leaf.SerialNumber.String() {
			return entry.Serial
		}
	}
	t.Fatal("it was not renewed")
	return ""
}

// TestForceRenewalAfterRestore: an order of a record that was restored from a backup is told to a
// service that has obeyed an order of the lost days, although its id is lower.
func TestForceRenewalAfterRestore(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	mine := enrol(t, c, "storage", "storage")
	cl := newClient(t, c, mine)
	if err := c.Authority.SequenceLog(t.Context()); err != nil { // nothing writes while the directory is copied
		t.Fatal(err)
	}
	restored := c.Replica(t) // with SQLite, a copy of the record
	order := func(c *catest.CA) stepapi.RenewalStatus {
		t.Helper()
		given, err := openRecord(t, c).ForceRenewal(t.Context(), stepapi.RenewalOrder{Within: "1h"})
		if err != nil {
			t.Fatal(err)
		}
		return given
	}
	order(c)
	order(c)
	lost := order(c)
	obeyed := fmt.Sprintf("&renewal=%d&nonce=%s", lost.ID, orderNonce(t, cl, lost.ID))
	if w := <-watchWith(t, cl, having(now(t, cl))+obeyed+"&wait=0"); w.Renewal != nil {
		t.Errorf("an order that was obeyed: %+v", w.Renewal)
	}
	given, cl := order(restored), newClient(t, restored, mine)
	if given.ID >= lost.ID {
		t.Fatalf("the record was not restored: order %d after %d", given.ID, lost.ID)
	}
	if w := <-watchWith(t, cl, having(now(t, cl))+obeyed); w.Renewal == nil || w.Renewal.ID != given.ID {
		t.Errorf("an order after the restore: %+v", w)
	}
	obeyed = fmt.Sprintf("&renewal=%d&nonce=%s", given.ID, orderNonce(t, cl, given.ID))
	if w := <-watchWith(t, cl, having(now(t, cl))+obeyed+"&wait=0"); w.Renewal != nil {
		t.Errorf("told again: %+v", w.Renewal)
	}
}

// orderNonce waits until the holder is told of the order with the id, and returns its nonce.
func orderNonce(t testing.TB, cl *client, id int64) string {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if w := <-watchWith(t, cl, fmt.Sprintf("wait=0&renewal=%d", id-1)); w.Renewal != nil && w.Renewal.ID == id {
			return w.Renewal.Nonce
		}
	}
	t.Fatalf("order %d is not told", id)
	return ""
}

// TestForceRenewalSelects: each field of an order restricts it, and what cannot be meant is
// an error that records nothing.
func TestForceRenewalSelects(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	mine := enrol(t, c, "storage", "storage")
	first := renewed(t, c, mine)
	enrol(t, c, "ingester", "ingester")
	issuer, err := x509.ParseCertificate(mine.Certificate[1])
	if err != nil {
		t.Fatal(err)
	}
	rec := openRecord(t, c)
	for name, o := range map[string]struct {
		order stepapi.RenewalOrder
		want  int
	}{
		"all":                {stepapi.RenewalOrder{}, 2},
		"by issuer's name":   {stepapi.RenewalOrder{Issuer: issuer.Subject.CommonName}, 2},
		"its fingerprint":    {stepapi.RenewalOrder{Issuer: certs.Fingerprint(issuer)}, 2},
		"its key id":         {stepapi.RenewalOrder{Issuer: hexID(issuer)}, 2},
		"by service":         {stepapi.RenewalOrder{Service: "ingester"}, 1},
		"by kind of key":     {stepapi.RenewalOrder{KeyType: "EC-P256"}, 2},
		"one":                {stepapi.RenewalOrder{Serial: certs.Serial(first.Leaf)}, 1},
		"its first":          {stepapi.RenewalOrder{Serial: mine.Leaf.SerialNumber.String()}, 1},
		"service and issuer": {stepapi.RenewalOrder{Service: "storage", Issuer: hexID(issuer)}, 1},
	} {
		o.order.Within, o.order.DryRun = "1m", true
		if s, err := rec.ForceRenewal(t.Context(), o.order); err != nil || s.Matched != o.want {
			t.Errorf("%s: %+v %v", name, s, err)
		}
	}
	for name, o := range map[string]struct {
		order stepapi.RenewalOrder
		want  error
	}{
		"no time":         {stepapi.RenewalOrder{}, ca.ErrOrder},
		"too long":        {stepapi.RenewalOrder{Within: "31d"}, ca.ErrOrder},
		"a kind of key":   {stepapi.RenewalOrder{Within: "1m", KeyType: "EC-P521"}, ca.ErrOrder},
		"nobody":          {stepapi.RenewalOrder{Within: "1m", KeyType: "Ed25519"}, ca.ErrNoHolders},
		"unknown service": {stepapi.RenewalOrder{Within: "1m", Service: "nobody"}, ca.ErrNoHolders},
		"unknown issuer":  {stepapi.RenewalOrder{Within: "1m", Issuer: "nobody"}, record.ErrNotFound},
		"unknown serial":  {stepapi.RenewalOrder{Within: "1m", Serial: "4711"}, record.ErrNotFound},
	} {
		if _, err := rec.ForceRenewal(t.Context(), o.order); !errors.Is(err, o.want) {
			t.Errorf("%s: %v, want %v", name, err, o.want)
		}
	}
	for range 100 {
		if _, err := rec.ForceRenewal(t.Context(), stepapi.RenewalOrder{Within: "1h"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := rec.ForceRenewal(t.Context(), stepapi.RenewalOrder{Within: "1h"}); !errors.Is(err, ca.ErrTooManyOrders) {
		t.Errorf("one order too many: %v", err)
	}
	if list, err := rec.Renewals(t.Context()); err != nil || len(list) != 100 || list[0].ID < list[99].ID {
		t.Errorf("%d orders, %v", len(list), err)
	}
}

// TestForceRenewalOverHTTP: an operator orders, and no other service does. An order that
// everybody has followed is closed when its time is over.
func TestForceRenewalOverHTTP(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles(), Edit: func(b []byte) []byte { return append(b, "operators: [ingester]\n"...) }})
	mine := enrol(t, c, "storage", "storage")
	by := newClient(t, c, enrol(t, c, "ingester", "ingester"))
	order := stepapi.RenewalOrder{Service: "storage", Within: "1s"}
	for _, method := range []string{"GET", "POST"} {
		if status, body := newClient(t, c, mine).do(method, "/renewals", order); status != http.StatusForbidden || !strings.Contains(message(t, body), "operator") {
			t.Errorf("%s of another service: %d %s", method, status, body)
		}
		if status, _ := newClient(t, c, nil).do(method, "/renewals", order); status != http.StatusUnauthorized {
			t.Errorf("%s without a certificate: %d", method, status)
		}
	}
	waiting := watchWith(t, newClient(t, c, mine), having(now(t, by)))
	awaitWatchers(t, c, 1)
	status, body := by.do("POST", "/1.0/renewals", order)
	var given stepapi.RenewalStatus
	if err := json.Unmarshal(body, &given); err != nil || status != http.StatusCreated || given.Matched != 1 || !strings.HasPrefix(given.Caller, "certificate ingester/") {
		t.Fatalf("%d %s %v", status, body, err)
	}
	if got := <-waiting; got.Renewal == nil || got.Renewal.ID != given.ID {
		t.Errorf("the service that waits: %+v", got)
	}
	for request, want := range map[*stepapi.RenewalOrder]int{
		{Service: "storage"}:                             http.StatusBadRequest,
		{Service: "nobody", Within: "1m"}:                http.StatusNotFound,
		{Serial: "4711", Within: "1m"}:                   http.StatusNotFound,
		{Service: "storage", Within: "1m", DryRun: true}: http.StatusOK,
	} {
		if status, body := by.do("POST", "/renewals", request); status != want {
			t.Errorf("%+v: %d %s, want %d", request, status, body, want)
		}
	}
	// A field that is spelled wrong would order what nobody has asked for.
	for path, body := range map[string]any{
		"/renewals": map[string]any{"within": "1m", "services": "storage"}, // all services
		"/trust":    map[string]any{"step": stepapi.StepAdd, "dryRun": true},
	} {
		if status, answer := by.do("POST", path, body); status != http.StatusBadRequest || !strings.Contains(message(t, answer), "does not know") {
			t.Errorf("%s %v: %d %s", path, body, status, answer)
		}
	}
	renewed(t, c, mine)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var open []stepapi.RenewalStatus
		status, body := by.do("GET", "/renewals", nil)
		if err := json.Unmarshal(body, &open); err != nil || status != http.StatusOK {
			t.Fatalf("%d %s %v", status, body, err)
		}
		if len(open) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the order is open still: %+v", open)
		}
	}
	c.Check(t)
}

// TestForceRenewalReplicas: an order at one replica is told at another.
func TestForceRenewalReplicas(t *testing.T) {
	t.Parallel()
	three := replicas(t, catest.Options{})
	cl := newClient(t, three[1], enrol(t, three[0], "storage", "storage"))
	waiting := watchWith(t, cl, having(now(t, cl)))
	awaitWatchers(t, three[1], 1)
	given, err := openRecord(t, three[2]).ForceRenewal(t.Context(), stepapi.RenewalOrder{Within: "30s"})
	if err != nil {
		t.Fatal(err)
	}
	if got := <-waiting; got.Renewal == nil || got.Renewal.ID != given.ID {
		t.Errorf("%+v", got)
	}
}

// TestForceRenewalOfAFleet: 200 services with one profile are told at once, and do all that
// a service does then at the same moment: nobody is refused by a limit, and all have
// followed.
func TestForceRenewalOfAFleet(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	const fleet = 200
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	certificates, anonymous := make([]*tls.Certificate, fleet), newClient(t, c, nil)
	for i := range certificates { // over one connection: the others are for those who wait
		key := newKey(t)
		status, body := anonymous.do("POST", "/1.0/sign", signRequest(t, c.Token(t, "storage", "storage"), key, "storage", "storage"))
		if status != http.StatusCreated {
			t.Fatalf("sign: %d %s", status, body)
		}
		certificates[i] = pair(t, body, key)
	}
	have := having(now(t, newClient(t, c, certificates[0])))
	var group sync.WaitGroup
	for _, cert := range certificates {
		cl := newClient(t, c, cert)
		told := watchWith(t, cl, have)
		group.Go(func() {
			if got := <-told; got.Renewal == nil {
				t.Errorf("not told: %+v", got)
			}
			for _, request := range [][2]string{{"POST", "/1.0/renew"}, {"GET", "/1.0/roots"}, {"GET", "/1.0/revoked"}, {"GET", "/1.0/watch?wait=0"}} {
				if status, body := cl.do(request[0], request[1], nil); status >= http.StatusBadRequest {
					t.Errorf("%s: %d %.200s", request[1], status, body)
				}
			}
		})
	}
	awaitWatchers(t, c, fleet)
	if _, err := openRecord(t, c).ForceRenewal(t.Context(), stepapi.RenewalOrder{Service: "storage", Within: "30s"}); err != nil {
		t.Fatal(err)
	}
	group.Wait()
	if s := onlyOrder(t, c); s.Renewed != fleet || len(s.Pending) != 0 {
		t.Errorf("%d of %d have renewed", s.Renewed, s.Matched)
	}
}
