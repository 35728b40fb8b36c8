package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
)

// printed runs the command and returns what it printed.
func printed(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if err := run(t.Context(), &out, args); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, &out)
	}
	t.Log(out.String())
	return out.String()
}

var gap = regexp.MustCompile(`  +`)

// row finds the line of a table whose title begins with the given words.
func row(t *testing.T, out, title, name string) []string {
	t.Helper()
	_, body, found := strings.Cut(out, "\n"+title)
	if !found {
		t.Fatalf("no table %q", title)
	}
	body, _, _ = strings.Cut(body, "\n\n")
	for line := range strings.SplitSeq(body, "\n") {
		if cells := gap.Split(strings.TrimSpace(line), -1); cells[0] == name {
			return cells
		}
	}
	t.Fatalf("no row %q in table %q", name, title)
	return nil
}

// TestHandshakes holds what does not depend on a clock: who resumes.
func TestHandshakes(t *testing.T) {
	out := printed(t, "-quick", "-rounds", "1", "-n", "1", "-table", "handshakes")
	for _, table := range []string{"Handshakes, full, over mem", "Handshakes, resumed, over mem", "Handshakes, full, over tcp", "Handshakes, resumed, over tcp"} {
		for name, want := range map[string]string{
			limitName: "19/20", controlName: "19/20", oursName: "19/20",
			"controller-runtime certwatcher": "19/20", "grpc advancedtls + pemfile": "0/20",
		} {
			cells := row(t, out, table, name)
			if got, _, _ := strings.Cut(cells[len(cells)-1], " "); got != want {
				t.Errorf("%s: %s resumes %s, want %s", table, name, got, want)
			}
		}
	}
	if !strings.Contains(out, "\nbar: ours ") {
		t.Error("no verdict")
	}
}

func TestCallbackOfOursAllocatesNothing(t *testing.T) {
	cells := row(t, printed(t, "-quick", "-table", "callback"), "The callback alone", oursName)
	if allocs := cells[len(cells)-1]; allocs != "0" {
		t.Errorf("%s allocations", allocs)
	}
}

// TestRequests: each server is measured, and only one with Handler is asked.
func TestRequests(t *testing.T) {
	out := printed(t, "-quick", "-table", "requests")
	for _, table := range []string{"Requests over one connection, HTTP/2 false", "Requests over one connection, HTTP/2 true"} {
		if cells := row(t, out, table, "without Handler"); len(cells) != 5 {
			t.Errorf("without Handler: %q", cells)
		}
		for _, name := range []string{"Handler, AllowNames of 1", "Handler, AllowNames of 1001"} {
			if cells := row(t, out, table, name); len(cells) != 6 {
				t.Errorf("%s: %q", name, cells)
			}
		}
	}
}

// TestLoad: ours loses nothing, and the harness sees it when others do.
func TestLoad(t *testing.T) {
	out := printed(t, "-quick", "-table", "load")
	for _, table := range []string{"Rotation under load, HTTP/2", "Rotation under load, HTTP/1.1"} {
		cells := row(t, out, table, oursName)
		if got := strings.Join(cells[3:6], " "); got != "0 0 finished" || !strings.HasSuffix(cells[6], "(0)") {
			t.Errorf("%s: failed, stale, stream, left: %v", table, cells[3:])
		}
		if cells := row(t, out, table, "GetClientCertificate (certwatcher)"); cells[4] == "0" {
			t.Errorf("%s: a client that keeps its connections sent nothing on the old identity: %v", table, cells)
		}
	}
	if cells := row(t, out, "Rotation under load, HTTP/2", "client-go transport (CloseAll)"); cells[5] != "BROKEN" {
		t.Errorf("CloseAll left the long stream alone: %v", cells)
	}
}

func TestBehaviour(t *testing.T) {
	out := printed(t, "-quick", "-behaviour")
	cells := row(t, out, "A client that resumes", oursName)
	if got := strings.Join(cells[2:], ", "); got != "refused, refused, 5 of 5 served" {
		t.Errorf("ours: %s", got)
	}
	if cells := row(t, out, "A client that resumes", "VerifyConnection on a live pool"); cells[4] != "0 of 5 served" {
		t.Errorf("the recipe that does not heal: %v", cells)
	}
	cells = row(t, out, "A change on disk", oursName)
	if len(cells) != 6 || cells[5] != "last good, 2 / new, 2" {
		t.Errorf("ours: %v", cells)
	}
	for _, seen := range cells[1:5] {
		if !strings.HasSuffix(seen, " ms") {
			t.Errorf("a change was seen after %s", seen)
		}
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		args string
		want string // part of the error; "" is none
	}{
		{"", ""},
		{"-table load,callback -network tcp", ""},
		{"-table nonsense", `unknown table "nonsense"`},
		{"-network udp", `unknown network "udp"`},
		{"-rounds 0", "must be at least 1"},
		{"-n 0", "must be at least 1"},
		{"-rotations 0", "must be at least 1"},
		{"-procs 0", "must be at least 1"},
		{"more", `unexpected argument "more"`},
	} {
		_, err := parse(strings.Fields(c.args))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.args, err, c.want)
		}
	}
	o, err := parse([]string{"-behaviour", "-quick"})
	if err != nil || !o.table.Want("behaviour") || o.table.Want("load") || o.rounds > 5 {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		low, high float64
		want      string
	}{{0.98, 1.02, "met"}, {1.04, 1.06, "NOT MET"}, {0.9, 1.1, "undecided, more rounds are needed"}} {
		if got := (summary{low: c.low, high: c.high}).against(bar); got != c.want {
			t.Errorf("[%g %g]: %s, want %s", c.low, c.high, got, c.want)
		}
	}
}
