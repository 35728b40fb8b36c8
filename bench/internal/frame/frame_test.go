package frame

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestMain lets TestMeasure find a program with Main: it is what the tests are.
func TestMain(m *testing.M) {
	if len(os.Args) != 3 || os.Args[1] != "-be" {
		m.Run()
		return
	}
	Main("frame", func(_ context.Context, out io.Writer, args []string) error {
		_, _ = io.WriteString(out, "seen")
		return map[string]error{"good": nil, "help": flag.ErrHelp, "bad": errors.New("no luck")}[args[1]]
	})
}

func TestMeasure(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for as, want := range map[string]string{"good": "", "help": "", "bad": "exit status 1: frame: no luck\n"} {
		var out bytes.Buffer
		cmd := exec.CommandContext(t.Context(), self, "-be", as)
		cmd.Stdout = &out
		u, err := Measure(cmd)
		if out.String() != "seen" {
			t.Errorf("%s printed %q", as, out.String())
		}
		switch {
		case want != "" && (err == nil || err.Error() != want):
			t.Errorf("%s: %v, want %q", as, err, want)
		case want == "" && (err != nil || u.CPU <= 0 || u.Memory < 1<<20):
			t.Errorf("%s: %+v, %v", as, u, err)
		}
	}
}

func TestRunning(t *testing.T) {
	for begin := OwnCPU(); OwnCPU()-begin < 3*tick; { // so that there is something to see
		continue
	}
	u, err := Running(os.Getpid())
	if own := OwnCPU(); err != nil || u.CPU <= 0 || u.CPU > own+tick || u.MiB() < 1 {
		t.Errorf("%+v, %v; %v by getrusage", u, err, own)
	}
	if _, err := Running(-1); err == nil {
		t.Error("a process that cannot be was read")
	}
}

func TestFreeAddress(t *testing.T) {
	address, err := FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

type full struct{ n int }

func (f *full) Write([]byte) (int, error) {
	f.n++
	return 0, errors.New(strings.Repeat("full", f.n))
}

func TestPrinterKeepsTheFirstFailure(t *testing.T) {
	p := Printer{W: &full{}}
	p.Print("%d", 1)
	p.Print("%d", 2)
	if p.Err == nil || p.Err.Error() != "full" {
		t.Error(p.Err)
	}
}

func TestHeader(t *testing.T) {
	title, machine := Header("ca")
	if !regexp.MustCompile(`^ca bench, \d{4}-\d\d-\d\d \d\d:\d\d UTC$`).MatchString(title) {
		t.Error(title)
	}
	if !regexp.MustCompile(`^go\S+ \w+/\w+, \d+ CPUs$`).MatchString(machine) {
		t.Error(machine)
	}
	if !regexp.MustCompile(`^(unknown|\d+\.\d+ \d+\.\d+ \d+\.\d+)$`).MatchString(Load()) {
		t.Error(Load())
	}
}

func TestTables(t *testing.T) {
	var ran []string
	steps := map[string]func(context.Context) error{}
	for name, err := range map[string]error{"a": nil, "b": nil, "c": io.EOF} {
		steps[name] = func(context.Context) error { ran = append(ran, name); return err }
	}
	for args, want := range map[string]string{"": "abc", "-table=b": "b", "-table=b,a": "ab", "-table=x": "", "-table=c,all": "abc"} {
		ran = nil
		fs, tables := flag.NewFlagSet("x", flag.ContinueOnError), Tables("")
		tables.Flag(fs, "a b c")
		if err := fs.Parse(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		err := tables.Run(t.Context(), "a b c", steps)
		if got := strings.Join(ran, ""); got != want || strings.Contains(want, "c") != errors.Is(err, io.EOF) {
			t.Errorf("%q ran %q, %v; want %q", args, got, err, want)
		}
	}
}

func TestRounds(t *testing.T) {
	var ran []int
	all, err := Rounds(rand.New(rand.NewPCG(1, 2)), 200, 7, func(lane int) (int, error) {
		ran = append(ran, lane)
		return len(ran) - 1, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	first := map[int]int{}
	for round := range 200 {
		order := ran[7*round : 7*round+7]
		if !slices.Equal(slices.Sorted(slices.Values(order)), []int{0, 1, 2, 3, 4, 5, 6}) {
			t.Fatalf("not every lane once: %v", order)
		}
		first[order[0]]++
		for lane := range 7 {
			if at := all[lane][round]; at/7 != round || ran[at] != lane {
				t.Fatalf("lane %d has in round %d what turn %d returned", lane, round, at)
			}
		}
	}
	for lane := range 7 {
		if n := first[lane]; n < 10 || n > 60 {
			t.Errorf("lane %d was first in %d of 200 rounds", lane, n)
		}
	}
	if _, err := Rounds(Order(1), 2, 2, func(int) (int, error) { return 0, io.EOF }); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// The median of the ratios is not the ratio of the medians: pairing must come first.
func TestPaired(t *testing.T) {
	itself := func(v float64) float64 { return v }
	for _, c := range []struct {
		of, by []float64
		want   float64
	}{
		{[]float64{3}, []float64{2}, 1.5},
		{[]float64{2, 20, 110}, []float64{1, 10, 100}, 2},
		{[]float64{1, 2, 3, 8}, []float64{1, 1, 1, 1}, 2.5},
	} {
		if got := Paired(c.of, c.by, itself); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("Paired(%v, %v) = %v, want %v", c.of, c.by, got, c.want)
		}
	}
}

func TestTogether(t *testing.T) {
	var done atomic.Int64
	took, err := Together(10, 3, func() error { done.Add(1); <-time.After(time.Millisecond); return nil })
	if err != nil || done.Load() != 10 || took < 4*time.Millisecond { // 4 is the least that three can do it in
		t.Errorf("%d in %v, %v", done.Load(), took, err)
	}
	if _, err := Together(3, 2, func() error { return io.EOF }); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}
