package main

import (
	"bufio"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/bench/internal/frame"
)

// compared are the modules whose versions decide what the tables say.
const compared = "sigs.k8s.io/controller-runtime github.com/spiffe/go-spiffe/v2 google.golang.org/grpc google.golang.org/grpc/security/advancedtls github.com/prometheus/exporter-toolkit github.com/prometheus/common k8s.io/client-go"

func printHeader(w io.Writer, o options) error {
	t := newTable(w)
	title, machine := frame.Header("rotation")
	t.line("%s", title)
	t.line("machine\t%s, %s", machine, cpuModel())
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

func printLoad(w io.Writer, when string) error {
	t := newTable(w)
	t.line("load %s\t%s (1, 5, 15 min)", when, frame.Load())
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
		if slices.Contains(strings.Fields(compared), m.Path) {
			out = append(out, m.Path[strings.LastIndex(strings.TrimSuffix(m.Path, "/v2"), "/")+1:]+" "+m.Version)
		}
	}
	return out
}
