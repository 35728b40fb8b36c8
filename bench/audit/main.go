// Command audit measures "artstore-pki audit" against the least that a program in
// Go can do, and against other tools: CPU-seconds of whole processes, which other
// load on the machine moves little, and peak memory.
//
//	go run ./audit          # in bench/: 20 000 certificates, 7 rounds
//	go run ./audit -quick   # 500, 2 rounds: does it work?
//
// Contenders take turns within each round; each figure is the smallest of all
// rounds. The walker runs twice under two names: by how much the two differ is how
// far the ratios can be trusted. A bar that is missed makes the command fail.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/artstore/artstore-pki/bench/internal/frame"
)

type options struct {
	size, rounds int
	peers, bars  bool
	// What the program is told when it is a process of the comparison.
	make, walk, root string
}

func main() { frame.Main("audit bench", run) }

func parse(args []string) (options, error) {
	var opt options
	fs := flag.NewFlagSet("audit", flag.ContinueOnError)
	quick := fs.Bool("quick", false, "few certificates and rounds: a smoke test")
	fs.IntVar(&opt.size, "size", 20_000, "certificates")
	fs.IntVar(&opt.rounds, "rounds", 7, "rounds")
	fs.BoolVar(&opt.peers, "peers", true, "install other tools and measure them too")
	fs.StringVar(&opt.walk, "walk", "", "be the walker over this path")
	fs.StringVar(&opt.make, "make", "", "only write the certificates into this directory")
	fs.StringVar(&opt.root, "root", "", "with -walk: verify signatures by this certificate")
	err := fs.Parse(args)
	if *quick {
		opt.size, opt.rounds, opt.peers = 500, 2, false
	}
	opt.bars = !*quick // the program itself is most of what a small audit costs
	return opt, err
}

func run(ctx context.Context, w io.Writer, args []string) error {
	opt, err := parse(args)
	switch {
	case err != nil:
		return err
	case opt.make != "":
		return corpusIn(opt.make, opt.size).generate()
	case opt.walk != "":
		return walker(w, opt.walk, opt.root)
	}
	return compare(ctx, &frame.Printer{W: w}, opt)
}

func compare(ctx context.Context, out *frame.Printer, opt options) (err error) {
	dir, err := os.MkdirTemp("", "bench-audit-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ours := filepath.Join(dir, "artstore-pki")
	build := exec.CommandContext(ctx, "go", "build", "-C", "..", "-o", ours, "./cmd/artstore-pki") //nolint:gosec // G204: a path of this program
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building artstore-pki: %w: %s", err, text)
	}
	c := corpusIn(dir, opt.size)
	// In a process of its own: what the kernel calls the peak of a child begins with that of its parent.
	self, _ := os.Executable() // where it fails, starting it fails with a reason
	if _, err := measure(ctx, self, "-make", dir, "-size", strconv.Itoa(opt.size)); err != nil {
		return fmt.Errorf("making certificates: %w", err)
	}
	peers := map[string]string{}
	if opt.peers {
		peers = install(ctx, out, filepath.Join(dir, "bin"))
	}
	var missed error
	for _, b := range comparisons(c, ours, peers) {
		if !opt.bars {
			b.bar = bar{}
		}
		err := b.run(ctx, out, opt.rounds)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			missed = errors.Join(missed, fmt.Errorf("%s: %w", b.name, err))
		}
	}
	if err := (fleet{ours, dir, min(1000, 2*opt.size)}).run(ctx, out); err != nil {
		return err
	}
	return errors.Join(missed, out.Err)
}

// comparisons are what the bars are about. The first contender of each is what
// the others are divided by.
func comparisons(c corpus, ours string, peers map[string]string) []comparison {
	self, _ := os.Executable() // where it fails, starting it fails with a reason
	dates := "--only=expired --only=expiring --only=not-yet-valid --only=never-valid --only=renewal-overdue"
	alone := "--disable=chain-incomplete --disable=untrusted --disable=chain-invalid --disable=chain-order --disable=not-judged"
	size := strconv.Itoa(c.size)
	return []comparison{
		{size + " files, by their dates", bar{1.7, 64}, append([]contender{
			command("walker", self, "-walk", c.files), command("walker again", self, "-walk", c.files),
			command(ourName, ours, words("audit -o json "+dates, c.files)...),
			command("artstore-pki, a table", ours, words("audit "+dates, c.files)...),
			command("artstore-pki, all but chains", ours, words("audit -o json "+alone, c.files)...),
		}, filePeers(c, peers)...)},
		{size + " files, with their chains", bar{1.3, 64}, []contender{
			command("walker, signatures", self, "-walk", c.files, "-root", c.root), command("walker again", self, "-walk", c.files, "-root", c.root),
			command(ourName, ours, words("audit -o json --ca-cert "+c.root, c.files)...),
			command("artstore-pki, a table", ours, words("audit --ca-cert "+c.root, c.files)...),
		}},
		{"one bundle of " + size + ", with their chains", bar{1.3, 128}, append([]contender{
			command("walker, signatures", self, "-walk", c.bundle, "-root", c.root), command("walker again", self, "-walk", c.bundle, "-root", c.root),
			command(ourName, ours, words("audit -o json --ca-cert "+c.root, c.bundle)...),
		}, bundlePeers(c, peers)...)},
	}
}
