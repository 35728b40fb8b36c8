package arch_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/internal/arch"
)

// The budgets of CONTRIBUTING.md.
const (
	mostExported     = 20
	mostFiles        = 25
	mostCommandFiles = 40 // cmd/artstore-pki has one file for each command
	mostUpShare      = 0.1
	leastComments    = 0.13 // of the lines that are not blank
	mostComments     = 0.20
	smallPackage     = 300 // lines; below, the documentation of a few names is a large part
)

// Packages that are above a budget, with the number that they may reach. These
// numbers only get smaller: lower one when its package got smaller, remove it
// when its package fits.
var (
	manyExported = map[string]int{}
	manyFiles    = map[string]int{}
)

// What there should be none of, by the same rule.
var (
	knownTwins = []string{
		"audit/cert: Parse",
		"audit/internal/format: parse",
		"audit/internal/javastore: text",
		"audit/report: counts",
		"audit/source: named",
		"audit: anchors",
		"audit: check",
		"ca: marker",
		"ca: sign",
		"ingestclient/spool: Open",
		"internal/pkitest: Network",
		"rotation/enroll: Renew",
		"rotation/enroll: isDenied",
		"rotation/enroll: keepAccess",
		"rotation: digestOf",
	}
	knownBuiltins = []string{
		"internal/fattest: mounted.close",
		"internal/pkitest: socket.close",
		"rotation: pool.close",
	}
)

// mechanisms says where each mechanism belongs, and which files elsewhere still
// have one of their own.
var mechanisms = []struct {
	of        arch.Mechanism
	leaf      string
	elsewhere []string
}{
	{arch.CertPool, "internal/certs", nil},
	{arch.Recover, "internal/panics", nil},
	{arch.ShiftedWait, "internal/backoff", nil},
}

func shapes(t *testing.T) []arch.Shape {
	t.Helper()
	all, err := arch.Shapes(root(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("found only %d packages", len(all))
	}
	return all
}

// TestRoomsAreSmall: a reader sees a package at a glance.
func TestRoomsAreSmall(t *testing.T) {
	for _, s := range shapes(t) {
		most := mostFiles
		if s.Package == "cmd/artstore-pki" {
			most = mostCommandFiles
		}
		within(t, counted{s.Package, "Go files", s.Files}, most, manyFiles)
		if slices.Contains([]string{"internal/stepapi", "ca/internal/problem", "ca/internal/denial"}, s.Package) {
			continue // the words of a protocol
		}
		within(t, counted{s.Package, "exported names", s.Exported}, mostExported, manyExported)
	}
}

// Packages with more comments than mostComments, because the comments are the
// documentation of a public API that is larger than the code behind it.
var documented = []string{
	"ca/translog",      // the arithmetic of RFC 9162, for programs that check a log on their own
	"httpserver",       // limits and shutdown of a server that users configure
	"rotation/rotgrpc", // the contract between rotation and gRPC
}

// Packages with fewer comments than leastComments, with the share that they have.
// These numbers only get larger: raise one when its package got comments, remove it
// when its package fits.
var fewComments = map[string]float64{
	"audit/internal/format":          0.115,
	"ca/backup":                      0.124,
	"ca/doctor":                      0.105,
	"ca/internal/acmesrv":            0.110,
	"ca/internal/keytype":            0.125,
	"cmd/artstore-pki":               0.060,
	"cmd/artstore-pki/internal/demo": 0.126,
	"internal/fattest":               0.128,
}

// TestCommentsAreEnough: a reader is told why, and is not told everything twice.
func TestCommentsAreEnough(t *testing.T) {
	for _, s := range shapes(t) {
		share := s.CommentShare()
		least := leastComments
		if known, ok := fewComments[s.Package]; ok {
			if share >= leastComments {
				t.Logf("%s has %.1f %% comments: remove it from the table", s.Package, 100*share)
			}
			least = known
		}
		switch {
		case share < least:
			t.Errorf("%s has %.1f %% comment lines, fewer than %.1f %%: say why, and what each function returns", s.Package, 100*share, 100*least)
		case share > mostComments && s.Lines > smallPackage && !slices.Contains(documented, s.Package):
			t.Errorf("%s has %.1f %% comment lines, more than %.0f %%: drop those that repeat the code", s.Package, 100*share, 100*mostComments)
		}
	}
}

func TestCommentsCount(t *testing.T) {
	for name, c := range map[string]struct {
		text  string
		lines int
		share float64
	}{
		"lines":      {"// P is a package.\npackage p\n\n// f\nfunc f() {}\n", 4, 2.0 / 4},
		"behind":     {"package p\n\nconst a = 1 // why\n", 2, 0.5 / 2},
		"block":      {"/*\nP is\n\na package.\n*/\npackage p\n", 5, 4.0 / 5},
		"strings":    {"package p\n\nconst a = `\n// no comment\n\n/* neither */\n`\n\nconst b = \"a // b\"\n", 6, 0},
		"windows":    {"package p\r\n\r\n// f\r\nfunc f() {}\r\n", 3, 1.0 / 3},
		"no newline": {"package p // x", 1, 0.5},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			plant(t, dir, "p/a.go", c.text)
			plant(t, dir, "p/a_test.go", "// P is a package.\npackage p\n")
			plant(t, dir, "p/b.go", "// Code generated by hand. DO NOT EDIT.\n\npackage p\n")
			all, err := arch.Shapes(dir)
			must(t, err)
			if len(all) != 1 || all[0].Lines != c.lines || all[0].CommentShare() != c.share {
				t.Errorf("got %+v with a share of %v, want %d lines and %v", all, all[0].CommentShare(), c.lines, c.share)
			}
		})
	}
	if share := (arch.Shape{}).CommentShare(); share != 0 {
		t.Errorf("an empty package has a share of %v", share)
	}
}

// counted is what a package has of something.
type counted struct {
	pkg, what string
	names     []string
}

// within fails if the package has more than the budget, and more than it had.
// Less than it had is no failure: two branches may lower one number at a time.
func within(t *testing.T, c counted, budget int, known map[string]int) {
	t.Helper()
	n, most := len(c.names), max(budget, known[c.pkg])
	if n > most {
		t.Errorf("%s has %d %s, more than %d: make a package of some of them: %s", c.pkg, n, c.what, most, strings.Join(c.names, " "))
	}
	if known[c.pkg] > n {
		t.Logf("%s has %d %s: lower the %d in the table, or remove it", c.pkg, n, c.what, known[c.pkg])
	}
}

// TestOneWordOneMeaning: within a package a name means one thing.
func TestOneWordOneMeaning(t *testing.T) {
	var twins, builtins []string
	for _, s := range shapes(t) {
		for _, name := range s.Twins {
			twins = append(twins, s.Package+": "+name)
		}
		for _, name := range s.Builtins {
			builtins = append(builtins, s.Package+": "+name)
		}
	}
	atMost(t, "names are a method and a type or function", twins, knownTwins)
	atMost(t, "functions and methods are named like a builtin", builtins, knownBuiltins)
}

// TestMechanismsHaveOneHome: what the whole project does in one way is done in
// one package.
func TestMechanismsHaveOneHome(t *testing.T) {
	all := shapes(t)
	for _, m := range mechanisms {
		var files []string
		for _, s := range all {
			if s.Package != m.leaf {
				files = append(files, s.Uses(m.of)...)
			}
		}
		atMost(t, "files use "+string(m.of)+" outside "+m.leaf, files, m.elsewhere)
	}
}

// atMost fails if there are more than are known. A move changes names, so a known
// one may be replaced by another; the list is there to tell which one is new.
func atMost(t *testing.T, what string, found, known []string) {
	t.Helper()
	unknown := slices.DeleteFunc(slices.Clone(found), func(s string) bool { return slices.Contains(known, s) })
	gone := slices.DeleteFunc(slices.Clone(known), func(s string) bool { return slices.Contains(found, s) })
	if len(found) > len(known) {
		t.Errorf("%d %s, more than %d; new are:\n\t%s", len(found), what, len(known), strings.Join(unknown, "\n\t"))
	}
	if len(gone) > 0 {
		t.Logf("%s: remove from the list %q", what, gone)
	}
}

func TestShapesCount(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "go.mod", "module "+module+"\n")
	plant(t, dir, "p/a.go", `package p

import pki "crypto/x509"

type T struct{}
type hidden[K any] struct{}
type WrongError struct{}

const A, B = 1, 2

var ErrX error

func (T) Exported()     {}
func (*T) close()       {}
func (h *hidden[K]) Do() { h.Do() }
func Do()               { _ = pki.NewCertPool() }
func min() int          { return 1 << min() }
func run()              { defer func() { _ = recover() }() }
func (T) run()          {}
func (T) Got() (*Got, error) { return nil, nil }

type Got struct{}
`)
	plant(t, dir, "p/b.go", "// Code generated by hand. DO NOT EDIT.\n\npackage p\n\nconst C = 1\n")
	plant(t, dir, "p/a_test.go", "package p\n\nfunc F() {}\n")
	plant(t, dir, "p/a_windows.go", "package p\n\nfunc Do() {}\n")
	all, err := arch.Shapes(dir)
	must(t, err)
	if len(all) != 1 || all[0].Package != "p" {
		t.Fatalf("got %+v", all)
	}
	for what, lists := range map[string][2][]string{
		"files":    {all[0].Files, {"a.go", "a_windows.go"}},
		"exported": {all[0].Exported, {"A", "B", "Do", "Got", "T"}},
		"twins":    {all[0].Twins, {"Do"}},
		"builtins": {all[0].Builtins, {"T.close", "min"}},
		"pools":    {all[0].Uses(arch.CertPool), {"p/a.go"}},
		"recovers": {all[0].Uses(arch.Recover), {"p/a.go"}},
		"shifts":   {all[0].Uses(arch.ShiftedWait), {"p/a.go"}},
	} {
		if !slices.Equal(lists[0], lists[1]) {
			t.Errorf("%s: %q, want %q", what, lists[0], lists[1])
		}
	}
	plant(t, dir, "p/c.go", "not Go")
	if _, err := arch.Shapes(dir); err == nil || !strings.Contains(err.Error(), "c.go") {
		t.Errorf("error %v, want one that names the file", err)
	}
}

// TestFilesHaveAnOrder: in the packages with most files, references lead from
// one file to another in one direction in nine of ten cases.
func TestFilesHaveAnOrder(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles what the packages import")
	}
	graphs, err := arch.Graphs(t.Context(), root(t), slices.Collect(maps.Keys(mostUp))...)
	if err != nil {
		t.Fatal(err)
	}
	if len(graphs) != len(mostUp) {
		t.Fatalf("%d graphs of %d packages", len(graphs), len(mostUp))
	}
	for _, g := range graphs {
		t.Logf("%s: %d of %d arrows lead up", g.Package, len(g.Up), g.Arrows)
		if most := max(mostUpShare, mostUp["./"+g.Package]); g.UpShare() > most {
			t.Errorf("%s: %d of %d arrows between files lead up, more than %.0f %%; go run ./internal/arch/report ./%s names them", g.Package, len(g.Up), g.Arrows, 100*most, g.Package)
		}
	}
}

// mostUp are the packages that are looked at, with a share above the budget where one may still have it.
var mostUp = map[string]float64{"./ca": 0, "./audit": 0, "./cmd/artstore-pki": 0, "./rotation": 0, "./rotation/enroll": 0, "./ingestclient": 0, "./ingestclient/spool": 0}

func TestGraphsCount(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, "go.mod", "module "+module+"\n\ngo 1.26\n")
	plant(t, dir, "p/high.go", "package p\n\nimport \"sync/atomic\"\n\nvar current atomic.Pointer[low]\n\nfunc high() { current.Load().middle(); current.Load().middle(); _ = low{}.field }\n")
	plant(t, dir, "p/low.go", "package p\n\ntype low struct{ field int }\n\nfunc (low) up() { high() }\n")
	plant(t, dir, "p/middle.go", "package p\n\nfunc (*low) middle() { var local low; _ = local }\n")
	graphs, err := arch.Graphs(t.Context(), dir, "./p")
	must(t, err)
	if len(graphs) != 1 {
		t.Fatalf("got %+v", graphs)
	}
	g := graphs[0]
	// high uses low, its field and middle; middle uses low; low uses high.
	if g.Arrows != 5 || !slices.Equal(g.Order, []string{"low.go", "middle.go", "high.go"}) {
		t.Errorf("%d arrows in the order %q", g.Arrows, g.Order)
	}
	if want := []arch.Arrow{{From: "low.go", To: "high.go", Name: "high"}}; !slices.Equal(g.Up, want) || g.UpShare() != 0.2 {
		t.Errorf("up: %v, a share of %v", g.Up, g.UpShare())
	}
	plant(t, dir, "p/wrong.go", "package p\n\nvar wrong int = high\n")
	if _, err := arch.Graphs(t.Context(), dir, "./p"); err == nil {
		t.Error("a package that does not compile has arrows?")
	}
}
