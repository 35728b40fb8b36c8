package store_test

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/record"
)

// whole is how the databases say that they read a whole table or sort a result.
var whole = regexp.MustCompile(`(?m)^SCAN \w+$|TEMP B-TREE|Seq Scan on (certificates|certificate_names|revocations)|Sort`)

// TestEveryPageIsARangeScan asks both databases how they would find each page
// that a query can ask for.
func TestEveryPageIsARangeScan(t *testing.T) { postgres.Engines(t, everyPageIsARangeScan) }

func everyPageIsARangeScan(t *testing.T, where string) {
	s := storetest.Open(t, where)
	issue := factory(t)
	for range 50 {
		if _, err := s.Commit(t.Context(), issue()); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 1 << 6 {
		q := record.Query{Now: time.Now()}
		set := func(bit int, set func()) {
			if n&(1<<bit) != 0 {
				set()
			}
		}
		set(0, func() { q.Service = "ingester" })
		set(1, func() { q.Name = "localhost" })
		set(2, func() { q.Issuer = "aa" })
		set(3, func() { q.ExpiresBefore = time.Now() })
		set(4, func() { q.SoonestFirst = true })
		set(5, func() { q.Cursor = "1.1" })
		for _, state := range []string{"", record.StateValid, record.StateExpired, record.StateRevoked} {
			q.State = state
			plan, err := s.Plan(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if found := whole.FindString(plan); found != "" {
				t.Errorf("%s in the plan of %s:\n%s", found, fmt.Sprintf("%+v", q), plan)
			}
		}
	}
}
