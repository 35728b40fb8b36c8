package ingestclient_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
)

// jwt is an unsigned token with the given claims: the client never verifies one.
func jwt(claims string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

func boundTo(n int, thumb string) string {
	return jwt(fmt.Sprintf(`{"jti":"%d","cnf":{"x5t#S256":%q}}`, n, thumb))
}

func TestBoundTokenIsFetchedBeforeTheSwitch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{token: boundTo}
		r := ingestclient.NewFakeIdentity(e.generation(1))
		c := over(t, config(), r)
		if err := touch(t, c); err != nil {
			t.Fatal(err)
		}
		e.set(func() { e.latency = 5 * time.Second })
		r.Set(e.generation(2))
		synctest.Wait()
		begun := time.Now()
		if err := touch(t, c); err != nil || e.lastSeen() != boundTo(1, "thumb-1") || time.Since(begun) != 0 {
			t.Fatalf("while the new token is fetched: %v, %s", err, e.lastSeen())
		}
		time.Sleep(5*time.Second + ingestclient.Spacing)
		synctest.Wait()
		if err := touch(t, c); err != nil || e.lastSeen() != boundTo(2, "thumb-2") {
			t.Fatalf("after it: %v, %s", err, e.lastSeen())
		}
		if e.count() != 2 || e.thumbs[1] != "thumb-2" {
			t.Errorf("asked over %v", e.thumbs)
		}
		if r.Leased(1) != 0 || r.Leased(2) != 1 {
			t.Errorf("leases: %d of the old, %d of the new", r.Leased(1), r.Leased(2))
		}
	})
}

// TestRequestInFlightKeepsItsPair expects that a request ends with the credential with
// which it began, however long that takes.
func TestRequestInFlightKeepsItsPair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		e := &fakeServers{token: boundTo}
		e.storage = func(_ *http.Request, token string) (int, string) {
			if token == boundTo(1, "thumb-1") {
				<-release
			}
			return 200, `{"file_id":"f1","size":1}`
		}
		r := ingestclient.NewFakeIdentity(e.generation(1))
		c := over(t, config(), r)
		done := make(chan error, 1)
		go func() { done <- touch(t, c) }()
		synctest.Wait()
		r.Set(e.generation(2))
		time.Sleep(time.Second)
		if err := touch(t, c); err != nil {
			t.Fatal(err)
		}
		if r.Leased(1) != 1 {
			t.Errorf("the old lease was given back under a request")
		}
		close(release)
		if err := <-done; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if r.Leased(1) != 0 {
			t.Errorf("the old lease was kept")
		}
	})
}

func TestUnboundTokenIsCarriedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{token: func(int, string) string { return jwt(`{"sub":"x"}`) }}
		r := ingestclient.NewFakeIdentity(e.generation(1))
		c := over(t, config(), r)
		for n := uint64(1); n <= 5; n++ {
			r.Set(e.generation(n))
			synctest.Wait()
			if err := touch(t, c); err != nil {
				t.Fatal(err)
			}
		}
		if e.count() != 1 || r.Leased(5) != 1 || c.Stats().Swaps != 4 {
			t.Errorf("%d fetches for 4 rotations of an unbound token, %+v", e.count(), c.Stats())
		}
	})
}

func TestRotationBeforeTheFirstTokenFetchesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{}
		r := ingestclient.NewFakeIdentity(e.generation(1))
		c := over(t, config(), r)
		r.Set(e.generation(2))
		synctest.Wait()
		if e.count() != 0 || r.Leased(1) != 0 {
			t.Errorf("%d fetches, %d old leases", e.count(), r.Leased(1))
		}
		if err := touch(t, c); err != nil || e.thumbs[0] != "thumb-2" {
			t.Errorf("%v over %v", err, e.thumbs)
		}
	})
}

func TestWrongBindingIsAnErrorOfTheFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{token: func(n int, _ string) string { return boundTo(n, "thumb-of-a-proxy") }}
		c := over(t, config(), ingestclient.NewFakeIdentity(e.generation(1)))
		if err := touch(t, c); !errors.Is(err, ingestclient.ErrTokenBinding) {
			t.Errorf("got %v", err)
		}
		if len(e.seen) != 0 {
			t.Error("a token that cannot work was sent")
		}
	})
}

// TestFailedTakeoverKeepsTheOldPairWhileItsCertificateLives expects that the old
// credential is used and refreshed while the endpoint refuses the new certificate, and
// that the client moves when the old certificate ends.
func TestFailedTakeoverKeepsTheOldPairWhileItsCertificateLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{life: "60", token: boundTo}
		first := e.generation(1)
		first.NotAfter = time.Now().Add(10 * time.Minute)
		r := ingestclient.NewFakeIdentity(first)
		c := over(t, config(), r)
		if err := touch(t, c); err != nil {
			t.Fatal(err)
		}
		refusing := &fakeServers{status: 503}
		second := refusing.generation(2)
		second.Storage = first.Storage
		r.Set(second)
		for range 59 {
			time.Sleep(10 * time.Second)
			if err := touch(t, c); err != nil {
				t.Fatalf("on the old pair: %v", err)
			}
		}
		if n := refusing.count(); n < 10 || n > 100 {
			t.Errorf("the new certificate was tried %d times in 10 min", n)
		}
		time.Sleep(20 * time.Second)
		if err := touch(t, c); !errors.Is(err, ingestclient.ErrTokenEndpoint) {
			t.Errorf("after the old certificate's end: %v", err)
		}
		synctest.Wait()
		if r.Leased(1) != 0 || r.Leased(2) != 1 {
			t.Errorf("leases: %d, %d", r.Leased(1), r.Leased(2))
		}
		refusing.set(func() { refusing.status = 0 })
		time.Sleep(time.Minute)
		if err := touch(t, c); err != nil {
			t.Error(err)
		}
	})
}

// TestNextRotationEndsTheWait expects that a newer certificate ends the pause of the one
// before.
func TestNextRotationEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{token: boundTo}
		r := ingestclient.NewFakeIdentity(e.generation(1))
		c := over(t, config(), r)
		if err := touch(t, c); err != nil {
			t.Fatal(err)
		}
		refusing := &fakeServers{status: 401}
		r.Set(refusing.generation(2))
		time.Sleep(time.Second)
		r.Set(e.generation(3))
		time.Sleep(ingestclient.Spacing)
		synctest.Wait()
		if err := touch(t, c); err != nil || e.thumbs[1] != "thumb-3" || c.Stats().Swaps != 1 {
			t.Errorf("%v over %v", err, e.thumbs)
		}
		if r.Leased(1) != 0 || r.Leased(2) != 0 || r.Leased(3) != 1 {
			t.Errorf("leases: %d %d %d", r.Leased(1), r.Leased(2), r.Leased(3))
		}
	})
}

// TestDayOfRotations rotates each minute for a day, with bound tokens and requests all
// the time. Every request has the token of its own certificate, and each rotation costs
// one token request.
func TestDayOfRotations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{token: boundTo, life: "300", latency: 100 * time.Millisecond}
		r := ingestclient.NewFakeIdentity(e.generation(1))
		c := over(t, config(), r)
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for ctx.Err() == nil {
					if err := touch(t, c); err != nil {
						t.Error(err)
					}
					time.Sleep(7 * time.Second)
				}
			})
		}
		rotations := 0
		for ctx.Err() == nil {
			time.Sleep(time.Minute)
			if ctx.Err() == nil {
				rotations++
				r.Set(e.generation(uint64(rotations + 1)))
			}
		}
		wg.Wait()
		st := c.Stats()
		if st.Rejected != 0 || st.Retries != 0 || st.TokenFetches != int64(rotations+1) || st.Swaps != int64(rotations) {
			t.Errorf("%d rotations: %+v", rotations, st)
		}
	})
}
