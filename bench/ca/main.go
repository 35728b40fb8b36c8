// Command ca measures what the authority costs beside step-ca on the same keys:
// requests and CPU time of the server for /sign and /renew, the same in process,
// the list of a million certificates, a hundred thousand revocations, and what
// strangers can do to it. See ../README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"github.com/artstore/artstore-pki/bench/internal/frame"
)

// options are the flags.
type options struct {
	table    frame.Tables
	stepCA   string
	ours     string
	before   string
	requests int
	clients  int
	rounds   int
	rows     int
	revoked  int
	attacks  int
	seed     uint64
	profile  string
}

// tables in the order they are printed.
const tables = "sign renew inprocess list crl abuse"

func main() { frame.Main("ca", run) }

func parse(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("ca", flag.ContinueOnError)
	o.table.Flag(fs, tables)
	fs.StringVar(&o.ours, "artstore-pki", "", "our binary, for sign, renew and abuse")
	fs.StringVar(&o.before, "before", "", "our binary of another commit, for sign and renew, which ratios are then by; empty leaves the lane out")
	fs.StringVar(&o.stepCA, "step-ca", "", "step-ca binary to compare with; empty leaves its lanes out")
	fs.IntVar(&o.requests, "n", 4000, "requests of a lane in each round")
	fs.IntVar(&o.clients, "clients", 16, "clients, each on a connection of its own")
	fs.IntVar(&o.rounds, "rounds", 5, "rounds; every lane runs once in each, in random order")
	fs.IntVar(&o.rows, "rows", 1_000_000, "certificates in the record for list")
	fs.IntVar(&o.revoked, "revoked", 100_000, "revocations for crl")
	fs.IntVar(&o.attacks, "attacks", 60_000, "requests of each kind for abuse")
	fs.Uint64Var(&o.seed, "seed", 1, "of the order of the rounds")
	fs.StringVar(&o.profile, "cpuprofile", "", "file for a profile of inprocess")
	quick := fs.Bool("quick", false, "a smoke test; its figures mean nothing")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if *quick {
		o.requests, o.rounds, o.rows, o.revoked, o.attacks = 64, 1, 1000, 200, 200
	}
	if o.requests < o.clients || o.clients < 1 || o.rounds < 1 || fs.NArg() > 0 {
		return o, errors.New("-n must be at least -clients, -clients and -rounds 1, and there are no arguments")
	}
	if o.table.Want("renew") && o.clients+o.requests/renewals > mostConns {
		return o, fmt.Errorf("-clients and one for each %d of -n are more than %d: an address has no more connections", renewals, mostConns)
	}
	if o.ours == "" && (o.table.Want("sign") || o.table.Want("renew") || o.table.Want("abuse")) {
		return o, errors.New("-artstore-pki is missing: the path of the binary")
	}
	return o, nil
}

// bench is one run of the program.
type bench struct {
	options
	frame.Printer
	dir   string // on a disk: durability is part of what is measured
	order *rand.Rand
}

func run(ctx context.Context, w io.Writer, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "ca-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // temporary, and nothing depends on it
	b := &bench{Printer: frame.Printer{W: w}, dir: dir, options: o, order: frame.Order(o.seed)}
	title, machine := frame.Header("ca")
	b.Print("%s\nmachine %s, load %s\n", title, machine, frame.Load())
	if err := o.table.Run(ctx, tables, map[string]func(context.Context) error{
		"sign": b.sign, "renew": b.renew, "inprocess": b.inProcess, "list": b.list, "crl": b.crl, "abuse": b.measureAttacks,
	}); err != nil {
		return err
	}
	b.Print("\nload after %s\n", frame.Load())
	return b.Err
}
