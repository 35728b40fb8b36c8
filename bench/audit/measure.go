package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// contender runs once as a process of its own. part is the share of the corpus
// that it looks at, for tools that nobody wants to wait for.
type contender struct {
	name string
	part float64
	run  func(context.Context) (usage, error)
}

// usage is what a process cost.
type usage struct {
	cpu  time.Duration // user and system
	peak int64         // resident set, bytes
}

type comparison struct {
	name       string
	contenders []contender
}

func words(text string, more ...string) []string { return append(strings.Fields(text), more...) }

// command is a contender that ends by itself. Its output is read and thrown away.
func command(name, program string, args ...string) contender {
	return contender{name, 1, func(ctx context.Context) (usage, error) { return measure(ctx, program, args...) }}
}

func measure(ctx context.Context, program string, args ...string) (usage, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return usage{}, err
	}
	if err := cmd.Start(); err != nil {
		return usage{}, err
	}
	_, copied := io.Copy(io.Discard, pipe)
	if err := errors.Join(copied, cmd.Wait()); err != nil {
		return usage{}, fmt.Errorf("%w: %.300s", err, complaint.String())
	}
	return cost(cmd.ProcessState), nil
}

// cost reads what the kernel kept of a process that has ended.
func cost(p *os.ProcessState) usage {
	u := usage{cpu: p.UserTime() + p.SystemTime()}
	if r, ok := p.SysUsage().(*syscall.Rusage); ok {
		u.peak = r.Maxrss << 10 // Linux counts in KiB
	}
	return u
}

// run lets contenders take turns, and prints the best of each.
func (c comparison) run(ctx context.Context, out io.Writer, rounds int) error {
	best := make([]usage, len(c.contenders))
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
			u.cpu = time.Duration(float64(u.cpu) / one.part)
			if best[i].cpu == 0 || u.cpu < best[i].cpu {
				best[i].cpu = u.cpu
			}
			best[i].peak = max(best[i].peak, u.peak)
		}
	}
	_, _ = fmt.Fprintf(out, "\n%s\n  %-40s %9s %8s %9s\n", c.name, "", "CPU s", "ratio", "RSS MiB")
	for i, one := range c.contenders {
		name := one.name
		if one.part < 1 {
			name += fmt.Sprintf(" (from %.2g %%)", 100*one.part)
		}
		if failed[i] != nil {
			_, _ = fmt.Fprintf(out, "  %-40s failed: %v\n", name, failed[i])
			continue
		}
		_, err := fmt.Fprintf(out, "  %-40s %9.3f %8.2f %9.1f\n", name, best[i].cpu.Seconds(), best[i].cpu.Seconds()/best[0].cpu.Seconds(), float64(best[i].peak)/(1<<20))
		if err != nil {
			return err
		}
	}
	return failed[0]
}
