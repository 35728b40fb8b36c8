package main

import (
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// Every command that serves, has metrics, or reads the settings of an upload and
// does something with them can be told what to log.
func TestLongCommandsHaveLogFlags(t *testing.T) {
	count := 0
	eachCommand(testApp(), func(c *cli.Command, words []string) {
		name := strings.Join(words[1:], " ")
		if !hasFlag(c, flags.ReadyFile) && !hasFlag(c, serving.MetricsName) && !hasFlag(c, "config") || name == "config show" || name == "agent check" {
			return
		}
		count++
		for flag := range ui.LogChoices() {
			if !hasFlag(c, flag) {
				t.Errorf("%s has no --%s", name, flag)
			}
		}
	})
	if count < 6 {
		t.Errorf("only %d commands found", count)
	}
}
