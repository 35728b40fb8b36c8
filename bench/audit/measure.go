package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/bench/internal/frame"
)

// contender runs once as a process of its own. part is the share of the corpus
// that it looks at, for tools that nobody wants to wait for.
type contender struct {
	name string
	part float64
	run  func(context.Context) (frame.Usage, error)
}

type comparison struct {
	name       string
	contenders []contender
}

func words(text string, more ...string) []string { return append(strings.Fields(text), more...) }

// command is a contender that ends by itself. Its output is read and thrown away.
func command(name, program string, args ...string) contender {
	return contender{name, 1, func(ctx context.Context) (frame.Usage, error) { return measure(ctx, program, args...) }}
}

func measure(ctx context.Context, program string, args ...string) (frame.Usage, error) {
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // G204: the contenders are in this program
	cmd.Stdout = io.Discard                           // a pipe that is read: to make the output is part of the work
	return frame.Measure(cmd)
}

// run lets contenders take turns, and prints the best of each.
func (c comparison) run(ctx context.Context, out *frame.Printer, rounds int) error {
	best := make([]frame.Usage, len(c.contenders))
	failed := make([]error, len(c.contenders))
	for range rounds {
		for i, one := range c.contenders {
			if failed[i] != nil {
				continue
			}
			u, err := one.run(ctx)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			failed[i] = err
			u.CPU = time.Duration(float64(u.CPU) / one.part)
			if best[i].CPU == 0 || u.CPU < best[i].CPU {
				best[i].CPU = u.CPU
			}
			best[i].Memory = max(best[i].Memory, u.Memory)
		}
	}
	out.Print("\n%s\n  %-40s %9s %8s %9s\n", c.name, "", "CPU s", "ratio", "RSS MiB")
	for i, one := range c.contenders {
		name := one.name
		if one.part < 1 {
			name += fmt.Sprintf(" (from %.2g %%)", 100*one.part)
		}
		if failed[i] != nil {
			out.Print("  %-40s failed: %v\n", name, failed[i])
			continue
		}
		out.Print("  %-40s %9.3f %8.2f %9.1f\n", name, best[i].CPU.Seconds(), best[i].CPU.Seconds()/best[0].CPU.Seconds(), best[i].MiB())
	}
	return failed[0]
}
