package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
)

func TestComplete(t *testing.T) {
	complete := help.Completer{App: testApp, Choices: auditChoices()}
	for _, c := range []struct{ words, want string }{
		{"", ""},
		{"au", "audit"},
		{"dev cer", "certs"},
		{"comple", "completion"}, // and not what the scripts call
		{"audit --base", "--baseline"},
		{"audit dir --write-b", "--write-baseline"},
		{"audit --disable weak-", "weak-key weak-signature"},
		{"audit -o n", "ndjson"},
		{"audit --output=table --fail", "--fail-on"},
		{"audit --record --fail", ""}, // a directory of that name
		{"audit --checks --fail", "--fail-on"},
		{"audit -- --fail", ""},
		{"audit dir", ""},
		{"inspect --p", "--password-file --pem"},
		{"ingest --on", "--on-close --on-success --once"}, // a command that has others below it
		{"ingest st", "status"},
		{"nonsense --fail", ""},
		{"dev nonsense c", ""},
	} {
		var words []string
		if c.words != "" {
			words = strings.Split(c.words, " ")
		}
		if got := strings.Join(complete.Words(words), " "); got != c.want {
			t.Errorf("%q: %q, want %q", c.words, got, c.want)
		}
	}
	if got := complete.Words([]string{""}); slices.Contains(got, "complete") || !slices.Contains(got, "audit") || len(got) < 15 {
		t.Error(got)
	}
}

// Every option of every command is completed, and its values are what the command takes.
func TestCompleteEverything(t *testing.T) {
	app := testApp()
	complete := help.Completer{App: func() *cli.App { return app }, Choices: auditChoices()}
	eachCommand(app, func(c *cli.Command, words []string) {
		got := complete.Words(append(slices.Clone(words[1:]), "-"))
		for _, f := range c.Flags {
			name := "--" + f.Names()[0]
			if !slices.Contains(got, name) {
				t.Errorf("%q does not complete %s", words, name)
			}
			for _, value := range complete.Words(append(slices.Clone(words[1:]), name, "")) {
				if _, isBool := f.(*cli.BoolFlag); !isBool && (value == "" || strings.ContainsAny(value, " \t")) {
					t.Errorf("%q %s completes %q", words, name, value)
				}
			}
		}
	})
}
