package compare_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/audit/compare"
)

func row(state, kind, place, name, fingerprint, findings string) string {
	return fmt.Sprintf(`{"schema_version":2,"state":%q,"kind":%q,"place":%q,"name":%q,"fingerprint_sha256":%q,"findings":[%s]`, state, kind, place, name, fingerprint, findings)
}

const (
	end     = `{"schema_version":2,"summary":{},"complete":true}`
	expired = `{"check":"expired","severity":"crit","text":"expired 1d ago"}`
	soon    = `{"check":"expiring","severity":"warn","text":"expires in 25d"}`
	soonest = `{"check":"expiring","severity":"crit","text":"expires in 2d"}`
	noted   = `{"check":"key-exchange","severity":"info","text":"X25519"}`
)

func lines(rows ...string) string {
	var b strings.Builder
	for _, r := range rows {
		b.WriteString(r + "}\n")
	}
	return b.String() + end
}

func read(t *testing.T, text string) *compare.Report {
	t.Helper()
	r, err := compare.Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDiff(t *testing.T) {
	before := read(t, lines(
		row("OK", "file", "/same", "a", "1", ""), row("OK", "file", "/renewed", "b", "2", ""), row("WARN", "file", "/worse", "c", "3", soon),
		row("EXPIRED", "file", "/better", "d", "4", expired), row("OK", "file", "/gone", "e", "5", ""), row("OK", "file", "/unread", "f", "6", ""),
		row("OK", "file", "/a/ca.crt", "Root", "7", "")+`,"ca":true`, row("OK", "endpoint", "h:1", "g", "8", ""),
	))
	now := read(t, lines(
		row("OK", "file", "/same", "a", "1", ""), row("OK", "file", "/renewed", "b", "2b", ""), row("CRIT", "file", "/worse", "c", "3", soonest),
		row("OK", "file", "/better", "d", "4b", ""), row("ERROR", "file", "/unread", "", "", "")+`,"error":"cut off"`,
		row("OK", "file", "/b/ca.crt", "Root", "7", "")+`,"ca":true`, row("OK", "endpoint", "h:1", "g", "8", noted), row("WARN", "file", "/new", "h", "9", soon),
	))
	changes := compare.Diff(before, now)
	var got []string
	for _, c := range changes.List {
		got = append(got, fmt.Sprint(c.Change, " ", c.Place, " ", c.Was, ">", c.Is, " ", c.Severity, " ", c.Unread, " ", c.Findings, c.Gone))
	}
	const want = `worse /worse WARN>CRIT crit false [expiring: expires in 2d] []
better /better EXPIRED>OK  false [] [expired]
worse /unread OK>ERROR  true [] []
worse h:1 OK>OK info false [key-exchange: X25519] []
appeared /new >WARN warn false [expiring: expires in 25d] []
vanished /gone OK>  false [] []`
	if text := strings.Join(got, "\n"); text != want {
		t.Errorf("got:\n%s\nwant:\n%s", text, want)
	}
	if changes.Same != 3 || changes.Renewed != 3 {
		t.Errorf("%d the same, %d renewed", changes.Same, changes.Renewed)
	}
	for least, want := range map[string]int{"info": 3, "warn": 2, "crit": 1} {
		if worse, unread := changes.Count(least); worse != want || unread != 1 {
			t.Errorf("%s: %d worse, %d unread", least, worse, unread)
		}
	}
	if same := compare.Diff(now, now); len(same.List) != 0 || same.Renewed != 0 {
		t.Errorf("a report differs from itself: %+v", same.List)
	}
}

func TestRead(t *testing.T) {
	one := row("OK", "file", "/a", "a", "1", "")
	asJSON := `{"schema_version":2,"rows":[` + one + `}],"judged_at":"2026-03-01T12:00:00Z","summary":{},"complete":true}`
	if changes := compare.Diff(read(t, asJSON), read(t, lines(one))); len(changes.List) != 0 || changes.Same != 1 {
		t.Errorf("JSON differs from NDJSON: %+v", changes)
	}
	for text, want := range map[string]error{
		"":                     compare.ErrIncomplete,
		one + "}\n":            compare.ErrIncomplete,
		asJSON[:len(asJSON)-9]: compare.ErrIncomplete,
		strings.Replace(lines(one), "true", "false", 1):                        compare.ErrIncomplete,
		strings.Replace(asJSON, `"schema_version":2`, `"schema_version":1`, 1): compare.ErrSchema,
		"[]":                                     nil,
		lines(one) + end:                         nil,
		lines(`{"schema_version":2,"place":"x"`): nil,
	} {
		if _, err := compare.Read(strings.NewReader(text)); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%.80q: %v, want %v", text, err, want)
		}
	}
}

func TestReadTooMuch(t *testing.T) {
	text := lines(row("OK", "file", "/a", "a", "1", ""))
	if _, err := compare.ReadUpTo(strings.NewReader(text), int64(len(text))); err != nil {
		t.Error(err)
	}
	if _, err := compare.ReadUpTo(strings.NewReader(text), int64(len(text))-1); !errors.Is(err, compare.ErrTooLarge) {
		t.Error(err)
	}
}

// Contract: any input is a report or an error, and a report does not differ from itself.
func FuzzRead(f *testing.F) {
	f.Add(lines(row("OK", "file", "/a", "a", "1", expired), row("OK", "file", "/a", "a", "1", "")))
	f.Add(`{"schema_version":2,"rows":[{"state":"OK","kind":"file"}],"summary":{},"complete":true}`)
	f.Fuzz(func(t *testing.T, text string) {
		r, err := compare.Read(strings.NewReader(text))
		if err != nil {
			return
		}
		if c := compare.Diff(r, r); len(c.List) != 0 {
			t.Errorf("%+v", c.List)
		}
	})
}
