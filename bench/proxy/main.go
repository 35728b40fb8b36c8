// Proxy measures what package rotation/proxy costs: for TCP beside a bare copy over crypto/tls,
// rotation's server with such a copy, and ghostunnel; for HTTP beside the reverse proxy of the
// standard library with a fixed configuration of TLS. See ../README.md for the method and for how to
// read the tables.
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
	requests   int
	ghostunnel string
	seed       uint64
	quick      bool

	be, dir, to string // of a process that is measured
}

// tables in the order they are printed.
const tables = "up down handshakes http-up http-down http-handshakes requests1 requests2"

func parse(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("proxy", flag.ContinueOnError)
	o.table.Flag(fs, tables)
	fs.IntVar(&o.rounds, "rounds", 11, "rounds; every lane has one turn in each, in random order")
	fs.IntVar(&o.mib, "mib", 512, "MiB that one turn sends through one connection")
	fs.IntVar(&o.handshakes, "n", 500, "connections of one turn, one after the other, each with a full handshake and one byte")
	fs.IntVar(&o.requests, "requests", 4000, "requests of one turn, 16 at a time over connections that stay open")
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
		o.rounds, o.mib, o.handshakes, o.requests = 1, 4, 5, 20
	}
	switch {
	case len(fs.Args()) > 0:
		return o, fmt.Errorf("unexpected argument %q", fs.Args()[0])
	case min(o.rounds, o.mib, o.handshakes, o.requests) < 1:
		return o, errors.New("-rounds, -mib, -n and -requests must be at least 1")
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
	p.Print("%s\nmachine   %s\nflags     rounds %d, mib %d, n %d, requests %d, seed %d\nload before  %s\n", title, machine, o.rounds, o.mib, o.handshakes, o.requests, o.seed, frame.Load())
	size := int64(o.mib) << 20
	steps := map[string]func(context.Context) error{
		"up": func(context.Context) error {
			return r.transfers(p, r.tcp, "up through one connection", func(l lane) error { return r.send(l, 'u', size) })
		},
		"down": func(context.Context) error {
			return r.transfers(p, r.tcp, "down through one connection", func(l lane) error { return r.send(l, 'd', size) })
		},
		"handshakes": func(context.Context) error {
			return r.connections(p, r.tcp, "connections with a full handshake and a byte", r.connect)
		},
		"http-up": func(ctx context.Context) error {
			return r.transfers(p, r.http, "up in one request", r.uploads(ctx, size))
		},
		"http-down": func(ctx context.Context) error {
			return r.transfers(p, r.http, "down in one answer", r.downloads(ctx, size))
		},
		"http-handshakes": func(ctx context.Context) error {
			return r.connections(p, r.http, "connections with a full handshake and a request", r.firstRequests(ctx))
		},
		"requests1": func(ctx context.Context) error { return r.manyRequests(ctx, p, false) },
		"requests2": func(ctx context.Context) error { return r.manyRequests(ctx, p, true) },
	}
	if err := o.table.Run(ctx, tables, steps); err != nil {
		return err
	}
	p.Print("\nload after   %s\n", frame.Load())
	return p.Err
}
