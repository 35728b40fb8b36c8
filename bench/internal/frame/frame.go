// Package frame is what the programs of bench have in common: how they begin,
// choose their tables and print, let lanes take turns, and read what a process costs.
//
//	func main() { frame.Main("ca", run) }
//
//	all, err := frame.Rounds(frame.Order(seed), rounds, len(lanes), turn) // all[lane][round]
//	b.Print("%.2f\n", frame.Paired(all[i], all[0], took.rate))
//
// It knows none of them, and of modules only the standard library: what one program does in
// a way of its own, such as rotation's statistics, stays there.
package frame

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"time"
)

// Main is the main of a program: it runs it until it ends, and cancels its context
// at an interrupt. An error is printed behind the name and makes the status 1; the
// help that was asked for (flag.ErrHelp) is no error.
func Main(name string, run func(ctx context.Context, out io.Writer, args []string) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt) //nolint:forbidigo // the first context of the process
	err := run(ctx, os.Stdout, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1) //nolint:forbidigo // for main, after the work is undone
	}
}

// Printer prints to W and keeps the first failure in Err, so that a program asks once, at its end.
type Printer struct {
	W   io.Writer
	Err error
}

// Print formats as fmt.Fprintf does.
func (p *Printer) Print(format string, args ...any) {
	if _, err := fmt.Fprintf(p.W, format, args...); err != nil && p.Err == nil {
		p.Err = err
	}
}

// Header is the title of a run ("ca bench, 2026-11-26 05:33 UTC") and the machine
// ("go1.26.8 linux/amd64, 2 CPUs").
func Header(name string) (title, machine string) {
	return name + " bench, " + time.Now().UTC().Format("2006-01-02 15:04 MST"),
		fmt.Sprintf("%s %s/%s, %d CPUs", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
}

// Load is how many processes wanted to run, on average over 1, 5 and 15 minutes
// ("5.72 6.13 8.09"): above the CPUs, absolute figures are noise. "unknown" where
// the machine does not say it.
func Load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if f := strings.Fields(string(text)); err == nil && len(f) >= 3 {
		return strings.Join(f[:3], " ")
	}
	return "unknown"
}

// Tables is the value of -table: "all", or names separated by commas.
type Tables string

// Flag defines -table, of which names, separated by spaces, are the choices.
func (t *Tables) Flag(fs *flag.FlagSet, names string) {
	fs.StringVar((*string)(t), "table", "all", "what to measure: all, or some of "+strings.ReplaceAll(names, " ", ",")+", separated by commas")
}

// Want reports whether a table is to be printed.
func (t Tables) Want(name string) bool {
	for one := range strings.SplitSeq(string(t), ",") {
		if one == name || one == "all" {
			return true
		}
	}
	return false
}

// Run measures and prints the tables that are wanted, of the names in their order, up to the
// first that fails. Each name has its step.
func (t Tables) Run(ctx context.Context, names string, steps map[string]func(context.Context) error) error {
	for name := range strings.FieldsSeq(names) {
		if !t.Want(name) {
			continue
		}
		if err := steps[name](ctx); err != nil {
			return fmt.Errorf("measuring %s: %w", name, err)
		}
	}
	return nil
}
