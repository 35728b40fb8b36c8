package main

import (
	"bufio"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// compared are the modules whose versions decide what the tables say.
const compared = "sigs.k8s.io/controller-runtime github.com/spiffe/go-spiffe/v2 google.golang.org/grpc google.golang.org/grpc/security/advancedtls github.com/prometheus/exporter-toolkit github.com/prometheus/common k8s.io/client-go"

func printHeader(w io.Writer, o options) error {
	t := newTable(w)
	t.line("rotation bench, %s", time.Now().UTC().Format("2006-01-02 15:04 MST"))
	t.line("machine\t%s %s/%s, %d CPUs, %s", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), cpuModel())
	t.line("flags\trounds %d, n %d, rotations %d, procs %d, seed %d", o.rounds, o.n, o.rotations, o.procs, o.seed)
	t.line("versions\t%s", strings.Join(versions(), ", "))
	if o.quick {
		t.line("quick\ta smoke test: the figures mean nothing")
	}
	if err := t.flush(); err != nil {
		return err
	}
	return printLoad(w, "before")
}

// printLoad says how busy the machine is: above its CPUs, absolute figures are noise.
func printLoad(w io.Writer, when string) error {
	t := newTable(w)
	load := "unknown"
	if data, err := os.ReadFile("/proc/loadavg"); err == nil {
		load = strings.Join(strings.Fields(string(data))[:3], " ")
	}
	t.line("load %s\t%s (1, 5, 15 min)", when, load)
	return t.flush()
}

func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	defer func() { _ = f.Close() }() // read only
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if key, value, ok := strings.Cut(sc.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}

func versions() []string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return []string{"unknown"}
	}
	var out []string
	for _, m := range info.Deps {
		if has(compared, " ", m.Path) {
			out = append(out, m.Path[strings.LastIndex(strings.TrimSuffix(m.Path, "/v2"), "/")+1:]+" "+m.Version)
		}
	}
	return out
}
