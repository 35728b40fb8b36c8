// Command ingest measures what an upload through ingestclient costs beside the
// limits of TCP and crypto/tls, curl and the usual ways to write it in Go, and
// what token caches do in an outage and under a rotation: see ../README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"

	"github.com/artstore/artstore-pki/bench/internal/frame"
)

// options are the flags.
type options struct {
	table  frame.Tables
	role   string
	size   int64
	files  int
	rounds int
	seed   uint64
}

// tables in the order they are printed.
const tables = "large small outage rotation hits"

func main() { frame.Main("ingest", run) }

func parse(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("ingest", flag.ContinueOnError)
	o.table.Flag(fs, tables)
	fs.Int64Var(&o.size, "size", 1<<30, "bytes of the large file")
	fs.IntVar(&o.files, "files", 10_000, "small files of 4 KiB")
	fs.IntVar(&o.rounds, "rounds", 5, "rounds; every lane runs once in each, in random order")
	fs.Uint64Var(&o.seed, "seed", 1, "of the order of the rounds")
	fs.StringVar(&o.role, "be", "", "be this process of the comparison, with a job on standard input; for the program itself")
	quick := fs.Bool("quick", false, "a smoke test; its figures mean nothing")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if *quick {
		o.size, o.files, o.rounds = min(o.size, 8<<20), min(o.files, 200), 1
	}
	if o.size < smallSize || o.files < 1 || o.rounds < 1 || fs.NArg() > 0 {
		return o, fmt.Errorf("-size must be at least %d, -files and -rounds 1, and there are no arguments", smallSize)
	}
	return o, nil
}

func run(ctx context.Context, w io.Writer, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.role != "" {
		return runRole(ctx, o.role, os.Stdin, w)
	}
	// Nothing of this may be slow because a disk is.
	dir, err := os.MkdirTemp(memory(), "ingest-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // temporary, and nothing depends on it
	b := &bench{Printer: frame.Printer{W: w}, dir: dir, options: o, order: frame.Order(o.seed)}
	title, machine := frame.Header("ingest")
	b.Print("%s\nmachine %s, load %s\n", title, machine, frame.Load())
	if version, err := exec.CommandContext(ctx, "curl", "--version").Output(); err == nil {
		b.Print("%s\n", strings.SplitN(string(version), " (", 2)[0])
	}
	if err := o.table.Run(ctx, tables, map[string]func(context.Context) error{
		"large": b.large, "small": b.small, "outage": b.outage, "rotation": b.rotation, "hits": b.hits,
	}); err != nil {
		return err
	}
	b.Print("\nload after %s\n", frame.Load())
	return b.Err
}

// bench is one run of the program.
type bench struct {
	options
	frame.Printer
	dir   string
	order *rand.Rand
}

// memory is a directory in memory, if there is one.
func memory() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}
