package devstack_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/devstack"
)

// A flood of wrong secrets of one peer: after some, 429 comes before the
// comparison, and at no time is more than one secret of the peer compared. So the
// request of another peer waits for one comparison at most, on any machine.
func TestWrongSecretsHoldNobodyElse(t *testing.T) {
	const flood = 60
	s := start(t, devstack.AdminConfig{BcryptCost: 9}, devstack.StorageConfig{}) // some ten milliseconds each
	intruder := &http.Client{Transport: transport(t, s.ca, "intruder")}
	ask := func(client *http.Client, id, plain string) (int, string) {
		body := fmt.Sprintf(`{"client_id":%q,"client_secret":%q}`, id, plain)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.adminURL+devstack.TokenPath, strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		_ = resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("Retry-After")
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	statuses := make(map[int]int)
	began := time.Now()
	for range flood {
		wg.Go(func() {
			status, after := ask(intruder, s.id, "wrong")
			mu.Lock()
			defer mu.Unlock()
			statuses[status]++
			if (status == http.StatusTooManyRequests) != (after != "") {
				t.Errorf("%d with Retry-After %q", status, after)
			}
		})
	}
	over := make(chan struct{})
	go func() { wg.Wait(); close(over) }()
	for most := 0; ; {
		select {
		case <-over:
		case <-time.After(time.Millisecond): // the queue can only be looked at
			most = max(most, s.admin.Comparing())
			continue
		}
		if most > 1 {
			t.Errorf("%d secrets of one peer were compared at once", most)
		}
		break
	}
	refilled := 1 + int(time.Since(began)/devstack.AccountRefill) // how long it takes depends on the machine
	if n := statuses[http.StatusUnauthorized]; n < devstack.AccountGuesses || n > devstack.AccountGuesses+refilled || statuses[http.StatusTooManyRequests] != flood-n {
		t.Errorf("%d wrong secrets were answered %v, want %d times 401, up to %d more for the time it took, and 429", flood, statuses, devstack.AccountGuesses, refilled)
	}
	if status, _ := ask(s.client, s.id, s.secret.Expose()); status != http.StatusOK {
		t.Errorf("the account's own peer after the flood: %d", status)
	}
	for tries := 1; ; tries++ { // a guess may come free between two requests
		for status := 0; status != http.StatusTooManyRequests; {
			if status, _ = ask(intruder, s.id, "wrong"); status == 0 {
				t.FailNow()
			}
		}
		status, _ := ask(intruder, s.id, s.secret.Expose())
		if status == http.StatusTooManyRequests {
			break
		}
		if tries == 5 {
			t.Fatalf("the right secret of a peer that guessed: %d, want 429: else the next guess may be right", status)
		}
	}
}

func TestGuessesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := devstack.NewGuesses()
		wrong := func(peer, id string, n int) (compared int) {
			for range n {
				g.Try(t.Context(), peer, id, func() bool { compared++; return false })
			}
			return compared
		}
		if n := wrong("a", "x", 50); n != devstack.AccountGuesses {
			t.Errorf("%d guesses for one account, want %d", n, devstack.AccountGuesses)
		}
		if ok, _ := g.Try(t.Context(), "b", "x", func() bool { return true }); !ok {
			t.Error("another peer is not affected")
		}
		total := 0
		for i := range 100 { // names that nobody has
			total += wrong("c", fmt.Sprint("made up ", i), 1)
		}
		if total != devstack.PeerGuesses {
			t.Errorf("%d guesses of one peer for many accounts, want %d", total, devstack.PeerGuesses)
		}
		_, wait := g.Try(t.Context(), "a", "x", func() bool { return true })
		if wait <= 0 || wait > devstack.AccountRefill {
			t.Errorf("wait %s", wait)
		}
		time.Sleep(wait)
		if ok, wait := g.Try(t.Context(), "a", "x", func() bool { return true }); !ok {
			t.Errorf("after the wait it is to wait %s more", wait)
		}
		for range 100 { // right ones are free
			if ok, _ := g.Try(t.Context(), "d", "x", func() bool { return true }); !ok {
				t.Fatal("a right secret was counted")
			}
		}
	})
}
