package main

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Which scripts run where, and on which build of the program:
//
//   - Without -race and -short, all of them run.
//   - Under -race, a script whose programs only run one after the other is left out:
//     the detector sees one process, and each command of such a script ends before
//     the next begins. Scripts that start a program beside others (&) stay, and so do
//     those with a command that serves in its own process. In them, what runs beside
//     others is always the program with the detector. What serves in its own process is
//     that program the first time it stands in a script, and another command the first
//     time it stands in any of them. All others are the program without the detector,
//     which takes a tenth of the time where keys are made or encrypted.
//   - Under -short, the cheapest scripts run that together call each command.
//
// A script that is left out is a test that is skipped, and says why.

// ownServers are commands that serve in their own process.
var ownServers = []string{"demo", "dev certs"}

// plainProgram is the name of the program without the race detector.
const plainProgram = "artstore-pki-plain"

// script is a file of testdata/script.
type script struct {
	path  string
	calls []scriptCall
}

func (s script) name() string { return strings.TrimSuffix(filepath.Base(s.path), ".txtar") }

// scriptCall is a line that runs the program.
type scriptCall struct {
	line    int
	command string // its first two words: "audit", "log verify"
	beside  bool   // it runs beside what follows
}

// family is the first word of the command.
func (c scriptCall) family() string { f, _, _ := strings.Cut(c.command, " "); return f }

// concurrent reports whether the command runs beside others or serves in its own process.
func (c scriptCall) concurrent() bool { return c.beside || slices.Contains(ownServers, c.command) }

var (
	callLine = regexp.MustCompile(`^\s*(?:\[[^\]]*\]\s*)*[!?]?\s*(?:exec|status \d+|eventually \S+) artstore-pki(?: (.*))?$`)
	lastAmp  = regexp.MustCompile(`&\w*&?$`)
	wordOnly = regexp.MustCompile(`^[a-z]+(?:-[a-z]+)*$`)
)

// groups are the commands that are named by two words, as the program has them.
func groups() map[string][]string {
	out := map[string][]string{}
	for _, c := range testApp().Commands {
		for _, sub := range c.Subcommands {
			out[c.Name] = append(out[c.Name], sub.Name)
		}
	}
	return out
}

// parseScript finds the calls in the commands of a script; its files do not count.
func parseScript(path, text string) script {
	s, subs := script{path: path}, groups()
	for i, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "-- ") {
			break
		}
		m := callLine.FindStringSubmatch(strings.TrimRight(line, " "))
		if m == nil {
			continue
		}
		call := scriptCall{line: i, beside: lastAmp.MatchString(m[1])}
		words := strings.Fields(m[1])
		if len(words) > 0 && wordOnly.MatchString(words[0]) {
			call.command = words[0]
			if len(words) > 1 && slices.Contains(subs[words[0]], words[1]) {
				call.command += " " + words[1]
			}
		}
		s.calls = append(s.calls, call)
	}
	return s
}

func readScripts(t *testing.T) (out []script) {
	t.Helper()
	paths, err := filepath.Glob("testdata/script/*.txtar")
	must(t, err)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		must(t, err)
		out = append(out, parseScript(path, string(text)))
	}
	return out
}

// leftOut returns why scripts do not run here, by their names.
func leftOut(all []script, raced, short bool) map[string]string {
	out := map[string]string{}
	if short {
		keep := cheapest(all)
		for _, s := range all {
			if !slices.Contains(keep, s.name()) {
				out[s.name()] = "-short: cheaper scripts call the same commands"
			}
		}
	}
	for _, s := range all {
		if raced && !slices.ContainsFunc(s.calls, scriptCall.concurrent) {
			out[s.name()] = "-race: its programs run one after the other, and none of them serves"
		}
	}
	return out
}

// cheapest chooses scripts that together call each family of commands.
func cheapest(all []script) (names []string) {
	order := slices.Clone(all)
	slices.SortStableFunc(order, func(a, b script) int { return cmp.Compare(len(a.calls), len(b.calls)) })
	callers := map[string]int{}
	var chosen []script
	for _, s := range order {
		fresh := slices.ContainsFunc(s.calls, func(c scriptCall) bool { return callers[c.family()] == 0 })
		if fresh {
			chosen = append(chosen, s)
			for f := range s.families() {
				callers[f]++
			}
		}
	}
	for _, s := range slices.Backward(chosen) { // later ones may have made earlier ones superfluous, and the other way round
		needed := false
		for f := range s.families() {
			needed = needed || callers[f] == 1
		}
		if needed {
			names = append(names, s.name())
			continue
		}
		for f := range s.families() {
			callers[f]--
		}
	}
	return names
}

func (s script) families() map[string]bool {
	out := map[string]bool{}
	for _, c := range s.calls {
		out[c.family()] = true
	}
	return out
}

// withPlain returns the text of a script for -race. raced has the commands that earlier
// scripts have called with the detector, and gets those of this one.
func (s script) withPlain(text string, raced map[string]bool) string {
	lines := strings.Split(text, "\n")
	for _, c := range s.calls {
		once := c.command
		if c.concurrent() {
			once += " in " + s.name()
		}
		if raced[once] && !c.beside {
			lines[c.line] = strings.Replace(lines[c.line], "artstore-pki", plainProgram, 1)
		}
		raced[once] = true
	}
	return strings.Join(lines, "\n")
}

// plainScripts writes the scripts for -race into a directory, and builds the program
// that they call besides; bin is its directory.
func plainScripts(t *testing.T, scripts []script) (paths []string, bin string) {
	t.Helper()
	dir, raced := t.TempDir(), map[string]bool{}
	for _, s := range scripts {
		text, err := os.ReadFile(s.path)
		must(t, err)
		path := filepath.Join(dir, filepath.Base(s.path))
		must(t, os.WriteFile(path, []byte(s.withPlain(string(text), raced)), 0o600))
		paths = append(paths, path)
	}
	bin = filepath.Join(dir, "bin")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(bin, plainProgram), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as .ci/run builds everything else: it compiles nothing anew
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the program without the detector: %v\n%s", err, out)
	}
	return paths, bin
}

// The rule above, on scripts that are made for it.
func TestScriptRule(t *testing.T) {
	alone := parseScript("alone.txtar", "exec artstore-pki list\n! exec artstore-pki --version\nstatus 3 artstore-pki log verify --dir d\n-- f --\nexec artstore-pki demo\n")
	beside := parseScript("beside.txtar", "exec artstore-pki list\nexec artstore-pki serve &authority&\neventually x artstore-pki list\nexec artstore-pki serve &\n[linux] exec artstore-pki list --dir x\nkill authority\nexec sh -c 'artstore-pki list'\n")
	demo := parseScript("demo.txtar", "exec artstore-pki demo\nexec artstore-pki demo\nexec artstore-pki serve &\nexec artstore-pki list\nexec artstore-pki log verify\n")
	var commands []string
	for _, c := range alone.calls {
		commands = append(commands, c.command)
	}
	if !slices.Equal(commands, []string{"list", "", "log verify"}) {
		t.Errorf("commands %q", commands)
	}
	all := []script{alone, beside, demo}
	if out := leftOut(all, false, false); len(out) != 0 {
		t.Errorf("without a flag, left out: %v", out)
	}
	if out := leftOut(all, true, false); len(out) != 1 || !strings.Contains(out["alone"], "-race") {
		t.Errorf("under -race, left out: %v", out)
	}
	if out := leftOut(all, false, true); len(out) != 1 || !strings.Contains(out["beside"], "-short") {
		t.Errorf("under -short, left out: %v", out)
	}
	first, second := parseScript("first.txtar", firstText), parseScript("second.txtar", secondText)
	raced := map[string]bool{}
	for _, c := range []struct{ got, want string }{
		{first.withPlain(firstText, raced), firstRaced}, {second.withPlain(secondText, raced), secondRaced},
	} {
		if c.got != c.want {
			t.Errorf("under -race:\n%s\nwant\n%s", c.got, c.want)
		}
	}
}

// Two scripts, and what becomes of them under -race.
const (
	firstText = `exec artstore-pki list
exec artstore-pki serve &authority&
eventually x artstore-pki list
exec artstore-pki demo
exec artstore-pki demo
exec artstore-pki serve &
`
	firstRaced = `exec artstore-pki list
exec artstore-pki serve &authority&
eventually x artstore-pki-plain list
exec artstore-pki demo
exec artstore-pki-plain demo
exec artstore-pki serve &
`
	secondText = `exec artstore-pki list
exec artstore-pki demo
exec artstore-pki serve &
exec artstore-pki serve
`
	secondRaced = `exec artstore-pki-plain list
exec artstore-pki demo
exec artstore-pki serve &
exec artstore-pki serve
`
)

// The rule on the scripts that there are: each runs somewhere, -race keeps each that
// starts a service, and -short each family of commands in a part of the calls.
func TestScriptsAreChosen(t *testing.T) {
	all := readScripts(t)
	raced, short := leftOut(all, true, false), leftOut(all, false, true)
	families, kept, calls, shortCalls := map[string]bool{}, map[string]bool{}, 0, 0
	for _, s := range all {
		text, err := os.ReadFile(s.path)
		must(t, err)
		if head, _, _ := strings.Cut(string(text), "\n-- "); raced[s.name()] != "" && regexp.MustCompile(`(?m)^exec artstore-pki .*&\w*&?$`).MatchString(head) {
			t.Errorf("%s starts a service and is left out under -race", s.name())
		}
		calls += len(s.calls)
		for f := range s.families() {
			families[f] = true
		}
		if short[s.name()] == "" {
			shortCalls += len(s.calls)
			for f := range s.families() {
				kept[f] = true
			}
		}
	}
	if len(all) < 40 || len(families) < 25 || len(kept) != len(families) {
		t.Errorf("%d scripts, %d families of commands, %d of them under -short", len(all), len(families), len(kept))
	}
	if shortCalls*3 > calls {
		t.Errorf("%d of %d calls under -short", shortCalls, calls)
	}
	t.Logf("%d scripts with %d calls; -race leaves out %d scripts, -short %d and makes %d calls", len(all), calls, len(raced), len(short), shortCalls)
}
