package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
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
	bar        bar
	contenders []contender
}

// bar is what artstore-pki may take at most; zero for no limit.
type bar struct {
	ratio float64 // of CPU time, to that of the first contender
	mib   float64 // of memory, at its peak
}

// ourName is the name of the contenders that a bar is for.
const ourName = "artstore-pki"

func (b bar) check(name string, ratio, mib float64) error {
	if b == (bar{}) || name != ourName || ratio <= b.ratio && mib <= b.mib {
		return nil
	}
	return fmt.Errorf("%s takes %.2f times the CPU time and %.0f MiB: want %.2f and %.0f", name, ratio, mib, b.ratio, b.mib)
}

func words(text string, more ...string) []string { return append(strings.Fields(text), more...) }

// command is a contender that ends by itself. Its output is read and thrown away.
func command(name, program string, args ...string) contender {
	return contender{name, 1, func(ctx context.Context) (frame.Usage, error) { return measure(ctx, program, args...) }}
}

// oneProcessor makes CPU time a measure of the work: side by side, threads slow each other down.
const oneProcessor = "GOMAXPROCS=1"

func measure(ctx context.Context, program string, args ...string) (frame.Usage, error) {
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // G204: the contenders are in this program
	cmd.Env = append(os.Environ(), oneProcessor)
	cmd.Stdout = io.Discard // a pipe that is read: to make the output is part of the work
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
	var missed error
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
		ratio := best[i].CPU.Seconds() / best[0].CPU.Seconds()
		out.Print("  %-40s %9.3f %8.2f %9.1f\n", name, best[i].CPU.Seconds(), ratio, best[i].MiB())
		missed = errors.Join(missed, c.bar.check(one.name, ratio, best[i].MiB()))
	}
	return errors.Join(failed[0], missed)
}
