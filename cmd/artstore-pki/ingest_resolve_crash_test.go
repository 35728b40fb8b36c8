//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
	"github.com/artstore/artstore-pki/ingestclient/spool"
)

// TestResolveCrashes cuts ingest resolve at the system calls that change the disk,
// as TestIngestCrashMatrix does with ingest. Called again, it goes on, and the file
// is at the element once and where --on-success says. Without the environment
// variable of that test a few points are drawn.
func TestResolveCrashes(t *testing.T) {
	afterKills(t)
	all := os.Getenv(crashEnv) != ""
	needTracing(t)
	for _, mode := range []spool.SourceAction{spool.DeleteSource, spool.MoveSource, spool.KeepSource} {
		for decision, fault := range map[string]ingesttest.Fault{
			"--auto":   {Kind: "reset", AfterStore: true},
			"--resend": {Kind: "status", Status: 500, AfterBytes: 2000},
		} {
			t.Run(string(mode)+decision, func(t *testing.T) {
				t.Parallel()
				c := &resolveCrash{resolveFixture: newResolveFixture(t), mode: mode, decision: decision, fault: fault}
				if all {
					for _, kind := range changing {
						for n, cut := 1, true; cut; n++ {
							cut = c.cut(kind, n)
						}
					}
					return
				}
				for cuts := 0; cuts < 2; {
					if c.cut(changing[rand.IntN(len(changing))], 1) {
						cuts++
					}
				}
			})
		}
	}
}

type resolveCrash struct {
	*resolveFixture
	mode     spool.SourceAction
	decision string
	fault    ingesttest.Fault
	cases    int
}

// cut settles one file in a new box, killed at the nth call of a kind. It is false
// if the command ended before.
func (c *resolveCrash) cut(kind string, n int) bool {
	c.Helper()
	c.cases++
	name := fmt.Sprintf("file-%d", c.cases)
	c.in = c.TempDir()
	c.put(c.mode, name, c.fault)
	line := "artstore-pki ingest resolve " + c.quoted() + " " + c.decision + " --yes"
	log := filepath.Join(c.bin, "strace")
	out, status := c.sh("exec strace " + strings.Join(killAt(log, kind, kind, n), " ") + " " + line)
	at := fmt.Sprintf("%s %d", kind, n)
	cut := status == -1
	if !cut && status != ui.ExitOK {
		c.Fatalf("%s: status %d:\n%s", at, status, out)
	}
	if out, status := c.sh(line); status != ui.ExitOK {
		c.Fatalf("%s: called again, status %d:\n%s", at, status, out)
	}
	c.ingest(c.mode, ui.ExitOK)
	c.ingest(c.mode, ui.ExitOK)
	copies := 0
	for _, f := range c.stack.Files() {
		if f.Name == name {
			copies++
		}
	}
	if copies != 1 {
		c.Errorf("%s: %d copies", at, copies)
	}
	if got := c.advice(); len(got) != 0 {
		c.Errorf("%s: left aside: %v", at, got)
	}
	inDir, inDone := exists(c.T, filepath.Join(c.in, name)), exists(c.T, filepath.Join(c.in, spool.StateDir, "done", name))
	if inDir != (c.mode == spool.KeepSource) || inDone != (c.mode == spool.MoveSource) {
		c.Errorf("%s: waits %t, in done %t", at, inDir, inDone)
	}
	return cut
}
