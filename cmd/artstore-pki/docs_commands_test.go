package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// Every command line in the documents is one that the program has, with the flags that it has.
// Text in the form of code is looked at, in blocks, in sentences and in tables; other text is not.
func TestDocsNameRealCommands(t *testing.T) {
	app, count := newApp(ui.New(ui.Streams{Getenv: func(string) string { return "" }})), 0
	for _, path := range documents(t) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range commandLines(app, string(data)) {
			count++
			if text := wrongCommand(app, line); text != "" {
				t.Errorf("%s: %s: %s", path, strings.Join(line.words, " "), text)
			}
		}
	}
	for _, hint := range hintTexts(t) {
		for _, line := range callsIn(hint, false) {
			if text := wrongCommand(app, line); text != "" {
				t.Errorf("a hint: %s: %s", hint, text)
			}
		}
	}
	if count < 120 {
		t.Errorf("only %d command lines found", count)
	}
}

// The command lines in a text are found, and nothing else.
func TestCommandLines(t *testing.T) {
	app := newApp(ui.New(ui.Streams{Getenv: func(string) string { return "" }}))
	doc := "Run `artstore-pki rotate --now`.\n\n| a | `revoke --fil` | `list` |\n\n```\n$ artstore-pki token a b --dirr ca >t  # -x\n" +
		"artstore-pki show SERIAL --output \\\n   --bad; x=\"$(artstore-pki doctor --dir ca more)\"\n```\n\n" +
		"    go run ./cmd/artstore-pki log prove\n\n`artstore-pki COMMAND --help`, `revoke`, `artstore-pki`, `restore it --all`\n"
	var wrong []string
	for _, line := range commandLines(app, doc) {
		if text := wrongCommand(app, line); text != "" {
			wrong = append(wrong, text)
		}
	}
	want := []string{
		`no command "rotate"`, `no flag "--fil"`, `no flag "--dirr"`, `no flag "--bad"`, `it takes no arguments, and "more" is one`, `no command "log prove"`,
		`no flag "--all"`,
	}
	slices.Sort(wrong)
	slices.Sort(want)
	if !slices.Equal(wrong, want) {
		t.Errorf("found %q\nwant  %q", wrong, want)
	}
}

func documents(t *testing.T) (paths []string) {
	t.Helper()
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md", "compose/*.md", "bench/*.md"} {
		found, err := filepath.Glob(filepath.Join("..", "..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	return slices.DeleteFunc(paths, func(p string) bool { return filepath.Base(p) == "CHANGELOG.md" }) // tells of what was, too
}

// docLine is a call of the program: its words, and whether it is meant to be typed
// as it stands, so that its arguments count.
type docLine struct {
	words []string
	whole bool
}

var (
	codeSpan    = regexp.MustCompile("`+([^`\n]+(?:\n[^`\n]+)?)`+")
	programCall = regexp.MustCompile(`(?:^|[\s"'(=$]|/bin/|\./cmd/)artstore-pki((?:\s+\S+)+)`)
	quoted      = regexp.MustCompile(`\s"[^"]*"|\s'[^']*'`)
	name        = regexp.MustCompile(`^[a-z][a-z-]*$`)
)

func commandLines(app *cli.App, doc string) (out []docLine) {
	block := false
	var prose strings.Builder
	for line := range strings.Lines(strings.ReplaceAll(doc, "\\\n", " ")) {
		fence := strings.HasPrefix(strings.TrimSpace(line), "```")
		if fence {
			block = !block
		}
		if block || fence || strings.HasPrefix(line, "    ") {
			out = append(out, callsIn(line, true)...)
			prose.WriteString("\n")
			continue
		}
		prose.WriteString(line)
	}
	for _, m := range codeSpan.FindAllStringSubmatch(prose.String(), -1) {
		words := strings.Fields(m[1])
		// Tables and sentences leave the program's name out; a flag shows that a call is meant.
		short := len(words) > 1 && app.Command(words[0]) != nil &&
			slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, "--") })
		if short {
			out = append(out, docLine{words: cutCall(words)})
			continue
		}
		out = append(out, callsIn(m[1], false)...)
	}
	return out
}

func callsIn(text string, whole bool) (out []docLine) {
	text = strings.ReplaceAll(text, "an artstore-pki", "a program") // prose
	for m := programCall.FindStringSubmatchIndex(text); m != nil; m = programCall.FindStringSubmatchIndex(text) {
		rest := quoted.ReplaceAllStringFunc(text[m[2]:m[3]], func(q string) string { return " " + strings.ReplaceAll(q[1:], " ", "_") })
		if words := cutCall(strings.Fields(rest)); len(words) > 0 {
			out = append(out, docLine{words, whole})
		}
		text = text[m[2]:]
	}
	return out
}

// cutCall ends a call where the shell would: at a pipe, a redirection, the next
// command, a comment, the end of a substitution.
func cutCall(words []string) []string {
	for i, w := range words {
		if strings.ContainsAny(w[:1], "|>&;#<") || w == "2>&1" || strings.HasPrefix(w, "2>") {
			return words[:i]
		}
		if end := strings.IndexAny(w, ";)|"); end >= 0 && !strings.ContainsAny(w[:end], "('") {
			return append(slices.Clone(words[:i]), w[:end])
		}
	}
	return words
}

// placeholder is a word in place of what belongs there: COMMAND, […], ….
var placeholder = regexp.MustCompile(`^[\[…]|^[A-Z]+$`)

func wrongCommand(app *cli.App, line docLine) string {
	words := line.words
	if !name.MatchString(words[0]) { // COMMAND, --version, "$@"
		return ""
	}
	path, last, rest := help.CommandPath(app, append([]string{app.Name}, words...))
	switch {
	case last == nil:
		return `no command "` + words[0] + `"`
	case last.Name == "complete":
		return ""
	case len(last.Subcommands) > 0 && last.ArgsUsage == "" && len(rest) > 0 && !placeholder.MatchString(rest[0]) && !strings.HasPrefix(rest[0], "-"):
		return `no command "` + strings.Join(append(path[1:], rest[0]), " ") + `"`
	}
	for _, w := range rest {
		if hasFlag(last, help.Exec) && (w == "--" || w == "--"+help.Exec) { // the words of another program follow
			break
		}
		flag, _, _ := strings.Cut(strings.TrimLeft(strings.Trim(w, "[]"), "-"), "=")
		flag = strings.TrimRight(flag, ".,:")
		if strings.HasPrefix(strings.Trim(w, "[]"), "-") && flag != "" && flag != "help" && !hasFlag(last, flag) {
			return `no flag "` + w + `"`
		}
	}
	if _, positional, err := help.SplitArgs(last.Flags, rest); line.whole && err == nil && last.ArgsUsage == "" && len(positional) > 0 && !placeholder.MatchString(positional[0]) {
		return `it takes no arguments, and "` + positional[0] + `" is one`
	}
	return ""
}

func hasFlag(c *cli.Command, name string) bool {
	return slices.ContainsFunc(c.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
}
