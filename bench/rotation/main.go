// Rotation measures what keeping a TLS identity fresh costs, and what it breaks,
// for artstore-pki's rotation package and for the code that others use: see
// ../README.md for the method and for how to read the tables.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/bench/internal/frame"
	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

func main() { frame.Main("rotation", run) }

// options are the flags.
type options struct {
	table     frame.Tables
	rounds, n int
	network   string
	rotations int
	procs     int
	seed      uint64
	quick     bool
}

// tables in the order they are printed.
const tables = "handshakes callback requests load behaviour"

func parse(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("rotation", flag.ContinueOnError)
	o.table.Flag(fs, tables)
	fs.IntVar(&o.rounds, "rounds", 300, "rounds of the handshake tables; every variant runs once in each, in random order")
	fs.IntVar(&o.n, "n", 8, "handshakes of each variant in a round")
	fs.StringVar(&o.network, "network", "both", "mem, tcp or both")
	fs.IntVar(&o.rotations, "rotations", 20, "rotations under load")
	fs.IntVar(&o.procs, "procs", 1, "GOMAXPROCS of the handshake tables: with one, idle processors do not spin on the account of whoever is measured")
	fs.Uint64Var(&o.seed, "seed", 1, "of the order of the rounds and of the bootstrap")
	fs.BoolVar(&o.quick, "quick", false, "a smoke test of less than half a minute; its figures mean nothing")
	behaviour := fs.Bool("behaviour", false, "the same as -table behaviour")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if *behaviour {
		o.table = "behaviour"
	}
	if o.quick {
		o.rounds, o.n, o.rotations = min(o.rounds, 5), min(o.n, 2), min(o.rotations, 2)
	}
	return o, o.check(fs.Args())
}

func (o options) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case o.rounds < 1 || o.n < 1 || o.rotations < 1 || o.procs < 1:
		return errors.New("-rounds, -n, -rotations and -procs must be at least 1")
	case o.network != inMemory && o.network != loopback && o.network != "both":
		return fmt.Errorf("unknown network %q", o.network)
	}
	if o.table == "all" {
		return nil
	}
	for name := range strings.SplitSeq(string(o.table), ",") {
		if !slices.Contains(strings.Fields(tables), name) {
			return fmt.Errorf("unknown table %q", name)
		}
	}
	return nil
}

func run(ctx context.Context, w io.Writer, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "rotation-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // temporary, and nothing depends on it
	log.SetLogger(logr.Discard())            // controller-runtime prints a stack trace until it has one
	if err := printHeader(w, o); err != nil {
		return err
	}
	table := func(measure func(context.Context, io.Writer, string, options) error) func(context.Context) error {
		return func(ctx context.Context) error { return measure(ctx, w, dir, o) }
	}
	if err := o.table.Run(ctx, tables, map[string]func(context.Context) error{
		"handshakes": table(handshakes), "callback": table(callbacks), "requests": table(requests), "load": table(load), "behaviour": table(behaviour),
	}); err != nil {
		return err
	}
	return printLoad(w, "after")
}

func handshakes(ctx context.Context, w io.Writer, dir string, o options) error {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(o.procs))
	r, err := newRig(dir + "/handshakes")
	if err != nil {
		return err
	}
	for _, network := range []string{inMemory, loopback} {
		if o.network != "both" && o.network != network {
			continue
		}
		for _, resumed := range []bool{false, true} {
			p := plan{rounds: o.rounds, n: o.n, network: network, resumed: resumed, rng: frame.Order(o.seed)}
			if err := handshakeTable(ctx, w, r, p); err != nil {
				return err
			}
		}
	}
	return nil
}

func callbacks(ctx context.Context, w io.Writer, dir string, o options) error {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(o.procs))
	r, err := newRig(dir + "/callback")
	if err != nil {
		return err
	}
	all, err := variants(ctx, r)
	if err != nil {
		return err
	}
	defer stopAll(all)
	return callbackTable(w, all, o.quick)
}
