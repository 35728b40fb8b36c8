package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/bench/internal/frame"
)

// startWait is how long a lane may take to accept connections.
const startWait = 30 * time.Second

// lane is a proxy that runs as a process of its own.
type lane struct {
	name, addr string
	cmd        *exec.Cmd
}

// rig is a service, the proxies in front of it, and a client.
type rig struct {
	o       options
	service net.Listener
	client  *tls.Config
	lanes   []lane // the bare one first, and then the same again
}

func newRig(ctx context.Context, dir string, o options) (r *rig, err error) {
	if err := makePKI(dir); err != nil {
		return nil, err
	}
	r = &rig{o: o}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.client, err = config(filepath.Join(dir, client)); err != nil {
		return nil, err
	}
	if r.service, err = net.Listen("tcp", "127.0.0.1:0"); err != nil { //nolint:noctx // of loopback
		return nil, err
	}
	go serve(r.service)
	for _, l := range [][2]string{{"bare crypto/tls copy", bare}, {"bare again (control)", bare}, {"rotation with that copy", copied}, {"artstore rotation/proxy", ours}} {
		if err := r.startOwn(ctx, l[0], l[1], filepath.Join(dir, "server")); err != nil {
			return r, err
		}
	}
	if o.ghostunnel != "" {
		err = r.startGhostunnel(ctx, filepath.Join(dir, "server"))
	}
	return r, err
}

func (r *rig) startOwn(ctx context.Context, name, be, dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "-be", be, "-dir", dir, "-to", r.service.Addr().String()) //nolint:gosec // G204: itself
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	r.lanes = append(r.lanes, lane{name, "", cmd})
	addr, err := bufio.NewReader(out).ReadString('\n')
	r.lanes[len(r.lanes)-1].addr = strings.TrimSpace(addr)
	return err
}

// startGhostunnel starts it with what its users give it, and without its log of connections,
// because no other lane has one.
func (r *rig) startGhostunnel(ctx context.Context, dir string) error {
	addr, err := frame.FreeAddress()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, r.o.ghostunnel, "server", "--listen", addr, "--target", r.service.Addr().String(), //nolint:gosec // G204: of the command line
		"--cert", filepath.Join(dir, "tls.crt"), "--key", filepath.Join(dir, "tls.key"), "--cacert", filepath.Join(dir, "ca.crt"), "--allow-dns", client, "--quiet", "all")
	if err := cmd.Start(); err != nil {
		return err
	}
	r.lanes = append(r.lanes, lane{"ghostunnel", addr, cmd})
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for {
		err := r.connect(r.lanes[len(r.lanes)-1])
		if err == nil {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("waiting for ghostunnel: %w", err)
		}
	}
}

func (r *rig) close() {
	for _, l := range r.lanes {
		_ = l.cmd.Process.Kill() // it may have ended
		_ = l.cmd.Wait()         // its status is that of the kill
	}
	if r.service != nil {
		_ = r.service.Close() // nothing is under way
	}
}

// serve is the service: one letter says what to do, and eight bytes how much.
func serve(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = c.Close() }() // over in any case
			var head [9]byte
			if _, err := io.ReadFull(c, head[:]); err != nil {
				return
			}
			n := int64(binary.BigEndian.Uint64(head[1:])) //nolint:gosec // G115: of this program
			if head[0] == 'd' {
				_, _ = io.CopyN(c, zeros{}, n)
				return
			}
			if _, err := io.CopyN(io.Discard, c, n); err == nil {
				_, _ = c.Write([]byte{1})
			}
		}()
	}
}

// zeros is endless.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func (r *rig) dial(l lane) (*tls.Conn, error) {
	return tls.Dial("tcp", l.addr, r.client) //nolint:noctx // of loopback
}

// send asks for n bytes in a direction and passes them.
func (r *rig) send(l lane, direction byte, n int64) (err error) {
	c, err := r.dial(l)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()                                    // all has arrived
	head := binary.BigEndian.AppendUint64([]byte{direction}, uint64(n)) //nolint:gosec // G115: positive
	if _, err := c.Write(head); err != nil {
		return err
	}
	if direction == 'd' {
		_, err = io.CopyN(io.Discard, c, n)
		return err
	}
	if _, err = io.CopyN(c, zeros{}, n); err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	return err
}

// connect makes one connection with a full handshake, and waits for a byte of the service.
func (r *rig) connect(l lane) error { return r.send(l, 'u', 0) }

// turn is what one lane did in one round.
type turn struct{ wall, cpu float64 } // seconds

// measure runs do, and reads what it took and what the process of the lane used.
func measure(l lane, do func() error) (turn, error) {
	before, err := frame.Running(l.cmd.Process.Pid)
	if err != nil {
		return turn{}, err
	}
	began := time.Now()
	if err := do(); err != nil {
		return turn{}, fmt.Errorf("%s: %w", l.name, err)
	}
	wall := time.Since(began)
	after, err := frame.Running(l.cmd.Process.Pid)
	return turn{wall.Seconds(), max(after.CPU-before.CPU, 5*time.Millisecond).Seconds()}, err
}

func (r *rig) rounds(do func(lane) error) ([][]turn, error) {
	return frame.Rounds(frame.Order(r.o.seed), r.o.rounds, len(r.lanes), func(i int) (turn, error) {
		return measure(r.lanes[i], func() error { return do(r.lanes[i]) })
	})
}

func wall(t turn) float64 { return 1 / t.wall }
func cpu(t turn) float64  { return 1 / t.cpu }

// transfers prints the throughput of one connection in one direction.
func (r *rig) transfers(_ context.Context, p *frame.Printer, name string, direction byte) error {
	all, err := r.rounds(func(l lane) error { return r.send(l, direction, int64(r.o.mib)<<20) })
	if err != nil {
		return err
	}
	p.Print("\n%d MiB %s through one connection: throughput by the clock, and by the processor of the proxy\n", r.o.mib, name)
	p.Print("%-26s %8s %8s %12s %8s\n", "proxy", "MiB/s", "ratio", "MiB/CPU-s", "ratio")
	for i, l := range r.lanes {
		p.Print("%-26s %8.0f %8.3f %12.0f %8.3f\n", l.name, float64(r.o.mib)*middle(all[i], wall), frame.Paired(all[i], all[0], wall), float64(r.o.mib)*middle(all[i], cpu), frame.Paired(all[i], all[0], cpu))
	}
	return nil
}

// connections prints how many connections a second of the processor makes.
func (r *rig) connections(_ context.Context, p *frame.Printer) error {
	n := r.o.handshakes
	all, err := r.rounds(func(l lane) error {
		for range n {
			if err := r.connect(l); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.Print("\n%d connections with a full handshake and a byte, one after the other: by the processor of the proxy\n", n)
	p.Print("%-26s %10s %8s\n", "proxy", "per CPU-s", "ratio")
	for i, l := range r.lanes {
		p.Print("%-26s %10.0f %8.3f\n", l.name, float64(n)*middle(all[i], cpu), frame.Paired(all[i], all[0], cpu))
	}
	return nil
}

// middle is the median of a figure.
func middle(all []turn, figure func(turn) float64) float64 {
	one := make([]turn, len(all))
	for i := range one {
		one[i] = turn{1, 1}
	}
	return frame.Paired(all, one, figure)
}
