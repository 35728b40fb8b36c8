package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/rotation/agent"
)

// agentFleetEnv has the number of identities. 200 is the size of which the bounds are meant.
const agentFleetEnv = "ARTSTORE_AGENT_FLEET"

// TestAgentFleet keeps many identities in one process, and looks at its memory, at what it uses
// while nothing happens, and at how it tells its service manager.
func TestAgentFleet(t *testing.T) {
	const (
		mostRSS  = 42 << 10 // KiB, without pages of the program: 60 MiB less the 18 of a build without the authority
		mostIdle = 1        // percent of a core
	)
	identities := 40
	if text := os.Getenv(agentFleetEnv); text != "" {
		n, err := strconv.Atoi(text)
		must(t, err)
		identities = n
	}
	long(t, "it starts a fleet")
	if raceEnabled {
		t.Skip("-race: the detector takes most of the memory")
	}
	t.Parallel()
	w := &killFixture{dir: t.TempDir()}
	w.program = selfAs(t, w.dir)
	w.ok(t, "init", "--dir", "ca", "--plain-keys", "--dns", "localhost", "--dns", "127.0.0.1")
	w.start(t, "serve", "--dir", "ca", "--listen", "127.0.0.1:0", "--ready-file", "ca.url")
	var config bytes.Buffer
	fmt.Fprintf(&config, "ca_url: %s\nsocket: %s/s\nidentities:\n", w.url(t, "ca.url"), w.dir)
	for n := range identities {
		fmt.Fprintf(&config, "- {name: id-%d, service: ingester, dir: %[2]s/ids/%[1]d, token_file: %[2]s/token-%[1]d, hook: {command: [\"true\"]}}\n", n, w.dir)
		w.ok(t, "token", "--dir", "ca", "--out", fmt.Sprintf("token-%d", n), "ingester")
	}
	must(t, os.WriteFile(filepath.Join(w.dir, "agent.yaml"), config.Bytes(), 0o600))
	p := w.start(t, "agent", "--config", "agent.yaml")
	pid := p.cmd.Process.Pid
	w.allDelivered(t, p, identities)
	before, since := cpuOf(t, pid), time.Now()
	time.Sleep(5 * time.Second) // what is measured is a time in which nothing happens
	used, passed := cpuOf(t, pid)-before, time.Since(since)
	percent := 100 * used.Seconds() / passed.Seconds()
	rss := statusField(t, pid, "RssAnon")
	t.Logf("%d identities: %d KiB resident and %d of the program, idle %.2f %% of a core", identities, rss, statusField(t, pid, "RssFile"), percent)
	if rss > mostRSS {
		t.Errorf("%d KiB resident, at most %d", rss, mostRSS)
	}
	if percent > mostIdle {
		t.Errorf("idle takes %.2f %% of a core, at most %d", percent, mostIdle)
	}
	must(t, p.cmd.Process.Signal(syscall.SIGTERM))
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the agent ended with %v:\n%s", err, p.out)
	}
}

// allDelivered waits until the agent has delivered all identities, and the authority tells each of
// changes.
func (w *killFixture) allDelivered(t *testing.T, p *process, identities int) {
	t.Helper()
	for limit := time.Now().Add(5 * time.Minute); ; time.Sleep(200 * time.Millisecond) { // another process
		cmd := exec.CommandContext(t.Context(), w.program, "agent", "status", "--socket", filepath.Join(w.dir, "s"), "-o", "json")
		out, err := cmd.Output()
		var s agent.Status
		if err == nil {
			err = json.Unmarshal(out, &s)
		}
		done := 0
		for _, i := range s.Identities {
			if i.Delivery.State == "delivered" && i.Watching {
				done++
			}
		}
		if done == identities {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%d of %d are delivered: %v\n%s", done, identities, errors.Join(err), p.out)
		}
	}
}

// statusField returns a figure of /proc/PID/status, in KiB.
func statusField(t *testing.T, pid int, name string) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			must(t, err)
			return n
		}
	}
	t.Fatalf("no %s", name)
	return 0
}

// cpuOf returns the CPU time of a process.
func cpuOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	ticks := 0
	for _, field := range fields[11:13] { // utime and stime (proc(5)), in hundredths of a second
		n, err := strconv.Atoi(field)
		must(t, err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
