package main

import (
	"bytes"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// eachCommand calls f for every command that does something, with the words that call it.
func eachCommand(app *cli.App, f func(c *cli.Command, words []string)) {
	var walk func(list []*cli.Command, words []string)
	walk = func(list []*cli.Command, words []string) {
		for _, c := range list {
			called := append(slices.Clone(words), c.Name)
			walk(c.Subcommands, called)
			if !help.IsGroup(c) {
				f(c, called)
			}
		}
	}
	walk(app.Commands, []string{app.Name})
}

func testApp() *cli.App {
	return newApp(ui.New(ui.Streams{Getenv: func(string) string { return "" }}))
}

func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), ui.Streams{In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: func(string) string { return "" }}, args)
	return code, out.String(), errs.String()
}

var endsInStatuses = regexp.MustCompile(`\n   130  interrupted[a-z ]*\n$`)

// Every command: help on stdout that ends in the exit statuses; an unknown flag,
// also after an argument, is status 2 with the right usage on stderr.
func TestEveryCommand(t *testing.T) {
	count := 0
	eachCommand(testApp(), func(c *cli.Command, words []string) {
		count++
		name := strings.Join(words, " ")
		code, out, errs := call(t, append(slices.Clone(words), "--help")...)
		if code != ui.ExitOK || errs != "" || !strings.Contains(out, "\nUSAGE:\n   "+name) ||
			!strings.Contains(out, "\nEXIT STATUS:\n") || !endsInStatuses.MatchString(out) {
			t.Errorf("%s --help: status %d, stderr %q\n%s", name, code, errs, out)
		}
		for _, sub := range c.Subcommands {
			if !strings.Contains(out, "\n   "+sub.Name+" ") {
				t.Errorf("%s --help does not name %s", name, sub.Name)
			}
		}
		for _, more := range [][]string{{"argument", "--help"}, {"--help", "argument"}, {"-h"}} {
			if code, same, errs := call(t, append(slices.Clone(words), more...)...); code != ui.ExitOK || same != out || errs != "" {
				t.Errorf("%s %s: status %d, stderr %q, another text than --help alone: %t", name, more, code, errs, same != out)
			}
		}
		code, out, errs = call(t, append(slices.Clone(words), "argument", "--no-such-flag")...)
		if code != ui.ExitUsage || out != "" || !strings.Contains(errs, "no-such-flag") || !strings.Contains(errs, "usage: "+name) {
			t.Errorf("%s argument --no-such-flag: status %d, stdout %q, stderr %q", name, code, out, errs)
		}
	})
	if count < 15 {
		t.Errorf("only %d commands found", count)
	}
	for _, args := range [][]string{{"nonsense"}, {"dev", "nonsense"}, {"dev"}, {}, {"--nonsense"}} {
		code, out, errs := call(t, append([]string{"artstore-pki"}, args...)...)
		if code != ui.ExitUsage || out != "" || !strings.Contains(errs, "usage: artstore-pki") {
			t.Errorf("%q: status %d, stdout %q, stderr %q", args, code, out, errs)
		}
	}
}

// A flag that must be given and is not: status 2 and one line, like any wrong command line.
func TestMissingFlags(t *testing.T) {
	for _, words := range [][]string{{"dev", "storage", "--dir", "x", "--allow", "y"}, {"dev", "admin", "--dir", "x"}, {"access-token", "serve"}} {
		code, out, errs := call(t, append([]string{"artstore-pki"}, words...)...)
		if code != ui.ExitUsage || out != "" || !strings.Contains(errs, "error: missing --") || !strings.Contains(errs, "--help") {
			t.Errorf("%q: status %d, stdout %q, stderr %q", words, code, out, errs)
		}
	}
}

// Every flag of every command is accepted behind an argument.
func TestFlagsAfterArguments(t *testing.T) {
	app := testApp()
	eachCommand(app, func(c *cli.Command, words []string) {
		for _, f := range c.Flags {
			for _, name := range f.Names() {
				given := []string{strings.Repeat("-", min(2, len(name))) + name}
				if _, isBool := f.(*cli.BoolFlag); !isBool {
					given = append(given, "value")
				}
				got, err := help.FlagsFirst(app, slices.Concat(words, []string{"argument"}, given))
				if want := slices.Concat(words, given, []string{"--", "argument"}); err != nil || !slices.Equal(got, want) {
					t.Errorf("%q, %v; want %q", got, err, want)
				}
			}
		}
	})
}

func TestFlagsFirst(t *testing.T) {
	app := newApp(ui.New(ui.Streams{Getenv: func(string) string { return "" }}))
	for _, c := range []struct{ in, want string }{
		{"artstore-pki", "artstore-pki"},
		{"artstore-pki --help", "artstore-pki --help"},
		{"artstore-pki token ingester --dir d", "artstore-pki token --dir d -- ingester"},
		{"artstore-pki token ingester --dir=d a b", "artstore-pki token --dir=d -- ingester a b"},
		{"artstore-pki token --dir d -- --odd", "artstore-pki token --dir d -- --odd"},
		{"artstore-pki renew id -- sh --if-due -- x", "artstore-pki renew --exec -- id sh --if-due -- x"},
		{"artstore-pki renew --if-due -- id", "artstore-pki renew --if-due -- id"},
		{"artstore-pki renew id --", "artstore-pki renew -- id"},
		{"artstore-pki issue x --out o --force y", "artstore-pki issue --out o --force -- x y"},
		{"artstore-pki dev admin --listen :0 a", "artstore-pki dev admin --listen :0 -- a"},
		{"artstore-pki nonsense --flag x", "artstore-pki nonsense --flag x"},
	} {
		got, err := help.FlagsFirst(app, strings.Fields(c.in))
		if err != nil || !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("flagsFirst(%q) = %q, %v; want %q", c.in, got, err, c.want)
		}
	}
	_, err := help.FlagsFirst(app, []string{"artstore-pki", "token", "x", "--dir"})
	if _, usage := errors.AsType[*ui.UsageError](err); !usage {
		t.Errorf("a flag without its value: %v, want a usage error", err)
	}
}
