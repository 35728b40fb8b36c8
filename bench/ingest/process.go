package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/bench/internal/frame"
)

// job is what a process of the comparison gets on its standard input.
type job struct {
	Client, Server string // directories with identities
	URL            string // of the server
	TLS, TCP       string // addresses of the bare sinks
	File           string
	Size           int64
	Sums           map[int64]string // SHA-256 of the content by its size
	Files, Workers int
}

// measurement is what a process says about itself, and what the kernel says.
type measurement struct {
	Seconds     float64    // of the transfer, without the start of the process
	frame.Usage `json:"-"` // of the whole process
}

// lane is one way to do it, as a process of its own.
type lane struct {
	name string
	run  func(context.Context) (measurement, error)
}

// runRole runs one process of the comparison.
func runRole(ctx context.Context, name string, in io.Reader, out io.Writer) error {
	var j job
	if err := json.NewDecoder(in).Decode(&j); err != nil {
		return err
	}
	if name == "server" {
		return serve(ctx, j, in, out)
	}
	send, ok := senders[name]
	if !ok {
		return fmt.Errorf("no lane %q", name)
	}
	seconds, err := send(ctx, j)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(measurement{Seconds: seconds})
}

// own is a lane that is this program.
func own(name, as string, j job) lane {
	return lane{name, func(ctx context.Context) (measurement, error) {
		self, err := os.Executable()
		if err != nil {
			return measurement{}, err
		}
		in, err := json.Marshal(j)
		if err != nil {
			return measurement{}, err
		}
		cmd := exec.CommandContext(ctx, self, "-be", as) //nolint:gosec // G204: itself
		cmd.Stdin = bytes.NewReader(in)
		out, t, err := measured(cmd)
		if err == nil {
			err = json.Unmarshal(out, &t)
		}
		return t, err
	}}
}

// curl is a lane that is curl, told to do what j says.
func curl(name, version string, j job) lane {
	return lane{name, func(ctx context.Context) (measurement, error) {
		cmd := exec.CommandContext(ctx, "curl", "--silent", "--show-error", version, "--tlsv1.3", //nolint:gosec // G204: paths of this program
			"--cacert", j.Client+"/ca.crt", "--cert", j.Client+"/tls.crt", "--key", j.Client+"/tls.key",
			"--form", "file=@"+j.File, "--header", "Authorization: Bearer bench",
			"--output", os.DevNull, "--write-out", "%{http_code} %{http_version} %{time_total}", j.URL+uploadPath)
		out, t, err := measured(cmd)
		if err != nil {
			return t, err
		}
		f := strings.Fields(string(out))
		if len(f) != 3 || f[0] != "201" || "--http"+f[1] != version && "--http"+f[1]+".0" != version {
			return t, fmt.Errorf("curl says %q", out)
		}
		t.Seconds, err = strconv.ParseFloat(f[2], 64)
		return t, err
	}}
}

func measured(cmd *exec.Cmd) ([]byte, measurement, error) {
	var out bytes.Buffer
	cmd.Stdout = &out
	u, err := frame.Measure(cmd)
	return out.Bytes(), measurement{Usage: u}, err
}

// start runs the server until stop, and fills in where it listens.
func start(ctx context.Context, j *job) (stop func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-be", "server") //nolint:gosec // G204: itself
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() error {
		_ = in.Close() // the server ends by it
		return cmd.Wait()
	}
	if err := errors.Join(json.NewEncoder(in).Encode(j), json.NewDecoder(out).Decode(j)); err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// interleave runs each lane once in each round.
func (b *bench) interleave(ctx context.Context, lanes []lane) ([][]measurement, error) {
	return frame.Rounds(b.order, b.rounds, len(lanes), func(i int) (measurement, error) {
		t, err := lanes[i].run(ctx)
		if err != nil {
			err = fmt.Errorf("%s: %w", lanes[i].name, err)
		}
		return t, err
	})
}

// since is the time from start in seconds.
func since(start time.Time) float64 { return time.Since(start).Seconds() }
