package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// expandTargets replaces each @FILE among the arguments by the targets in that file.
func expandTargets(args []string) (out []string, err error) {
	for _, a := range args {
		path, isList := strings.CutPrefix(a, "@")
		if !isList {
			out = append(out, a)
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, ui.WithHint(fmt.Errorf("reading a list of targets: %w", err), "@FILE names a list, one target a line; a path that begins with @ is ./@…")
		}
		list := targetList(string(data))
		if len(list) == 0 {
			return nil, ui.UsageErrorf("%s: there is no target in this list", a)
		}
		out = append(out, list...)
	}
	return out, nil
}

// targetList takes one target from each line: blanks around it, empty lines and
// those that begin with # do not count. A list names no further lists.
func targetList(text string) (out []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			out = append(out, line)
		}
	}
	return out
}
