// Proxy measures what package rotation/proxy costs beside a bare copy over crypto/tls, beside
// rotation's server with such a copy, and beside ghostunnel: see ../README.md for the method
// and for how to read the tables.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/artstore/artstore-pki/bench/internal/frame"
)

func main() { frame.Main("proxy", run) }

// options are the flags.
type options struct {
	table      frame.Tables
	rounds     int
	mib        int
	handshakes int
	ghostunnel string
	seed       uint64
	quick      bool

	be, dir, to string // of a process that is measured
}

// tables in the order they are printed.
const tables = "up down handshakes"

func parse(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("proxy", flag.ContinueOnError)
	o.table.Flag(fs, tables)
	fs.IntVar(&o.rounds, "rounds", 11, "rounds; every lane has one turn in each, in random order")
	fs.IntVar(&o.mib, "mib", 512, "MiB that one turn sends through one connection")
	fs.IntVar(&o.handshakes, "n", 500, "connections of one turn, one after the other, each with a full handshake and one byte")
	fs.StringVar(&o.ghostunnel, "ghostunnel", "", "`PATH` of a binary of ghostunnel; without it that lane is left out")
	fs.Uint64Var(&o.seed, "seed", 1, "of the order of the rounds")
	fs.BoolVar(&o.quick, "quick", false, "a smoke test; its figures mean nothing")
	fs.StringVar(&o.be, "be", "", "lane to be, for the processes that this program starts")
	fs.StringVar(&o.dir, "dir", "", "certificates of that lane")
	fs.StringVar(&o.to, "to", "", "service behind that lane")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if o.quick {
		o.rounds, o.mib, o.handshakes = 1, 4, 5
	}
	switch {
	case len(fs.Args()) > 0:
		return o, fmt.Errorf("unexpected argument %q", fs.Args()[0])
	case o.rounds < 1 || o.mib < 1 || o.handshakes < 1:
		return o, errors.New("-rounds, -mib and -n must be at least 1")
	}
	return o, nil
}

func run(ctx context.Context, w io.Writer, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.be != "" {
		return beLane(ctx, w, o)
	}
	dir, err := os.MkdirTemp("", "proxy-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // temporary, and nothing depends on it
	r, err := newRig(ctx, dir, o)
	if err != nil {
		return err
	}
	defer r.close()
	p := &frame.Printer{W: w}
	title, machine := frame.Header("proxy")
	p.Print("%s\nmachine   %s\nflags     rounds %d, mib %d, n %d, seed %d\nload before  %s\n", title, machine, o.rounds, o.mib, o.handshakes, o.seed, frame.Load())
	steps := map[string]func(context.Context) error{
		"up":         func(ctx context.Context) error { return r.transfers(ctx, p, "up", 'u') },
		"down":       func(ctx context.Context) error { return r.transfers(ctx, p, "down", 'd') },
		"handshakes": func(ctx context.Context) error { return r.connections(ctx, p) },
	}
	if err := o.table.Run(ctx, tables, steps); err != nil {
		return err
	}
	p.Print("\nload after   %s\n", frame.Load())
	return p.Err
}
