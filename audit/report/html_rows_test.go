package report_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/report"
)

// A page has the worst 50 000 rows, in whatever order they come. It never holds more, and
// says how many are missing.
func TestHTMLOfMoreThanItHolds(t *testing.T) {
	const room, over = 50_000, 7
	now := time.Now()
	var b bytes.Buffer
	out, err := report.New("html", &b, report.Terminal{})
	if err != nil {
		t.Fatal(err)
	}
	row := func(place, state string, findings ...audit.Finding) {
		if err := out.Row(&audit.Row{Subject: audit.Subject{Kind: "file", Place: place}, State: state, Judged: now, Findings: findings}); err != nil {
			t.Fatal(err)
		}
		if held := report.Held(out); held > room {
			t.Fatalf("%d rows are held", held)
		}
	}
	for i := range room + over - 1 {
		row(fmt.Sprintf("/mild/%05d", i), "OK")
	}
	row("/last/and/worst", "CRIT", audit.Finding{Check: "expired", Severity: audit.Crit, Text: "expired"})
	if err := out.End(&audit.Summary{Now: now}); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	note := fmt.Sprintf("%d rows are, the mildest and longest-lived, in the verdict only: this page has room for %d", over, room)
	for text, want := range map[string]bool{note: true, "/mild/00000": true, "/mild/49998": true, "/mild/49999": false, "/mild/50005": false} {
		if strings.Contains(page, text) != want {
			t.Errorf("%q: want it there: %t", text, want)
		}
	}
	if worst, mild := strings.Index(page, "/last/and/worst"), strings.Index(page, "/mild/"); worst < 0 || worst > mild {
		t.Error("the worst row is not the first")
	}
	if first, all := strings.Count(page, "<tr class="), strings.Count(page, "\nok\tOK\t"); first != 500 || first+all != room {
		t.Errorf("%d rows in sight, and %d as text", first, all)
	}
}
