package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// rig is a service of TCP and one of HTTP, the proxies in front of them, and a client. The first
// lane of each list is what the others are compared with, and the second one is the same again.
type rig struct {
	o         options
	service   net.Listener
	web       *http.Server
	client    *tls.Config
	tcp, http []lane
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
	webAddr, err := r.startWeb()
	if err != nil {
		return nil, err
	}
	dir = filepath.Join(dir, "server")
	for _, l := range []ownLane{{"bare crypto/tls copy", bare}, {"bare again (control)", bare}, {"rotation with that copy", copied}, {"artstore rotation/proxy", ours}} {
		if err := r.startOwn(ctx, &r.tcp, l, dir, r.service.Addr().String()); err != nil {
			return r, err
		}
	}
	for _, l := range []ownLane{{"ReverseProxy, crypto/tls", reverse}, {"the same again (control)", reverse}, {"rotation, ReverseProxy", reversed}, {"artstore rotation/proxy", oursHTTP}} {
		if err := r.startOwn(ctx, &r.http, l, dir, webAddr); err != nil {
			return r, err
		}
	}
	if o.ghostunnel != "" {
		err = r.startGhostunnel(ctx, dir)
	}
	return r, err
}

// ownLane is a lane that is this program: its name in the tables, and the value of -be.
type ownLane struct{ name, be string }

func (r *rig) startOwn(ctx context.Context, lanes *[]lane, l ownLane, dir, to string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "-be", l.be, "-dir", dir, "-to", to) //nolint:gosec // G204: itself
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	*lanes = append(*lanes, lane{l.name, "", cmd})
	addr, err := bufio.NewReader(out).ReadString('\n')
	(*lanes)[len(*lanes)-1].addr = strings.TrimSpace(addr)
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
	r.tcp = append(r.tcp, lane{"ghostunnel", addr, cmd})
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for {
		err := r.connect(r.tcp[len(r.tcp)-1])
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
	for _, l := range slices.Concat(r.tcp, r.http) {
		_ = l.cmd.Process.Kill() // it may have ended
		_ = l.cmd.Wait()         // its status is that of the kill
	}
	if r.service != nil {
		_ = r.service.Close() // nothing is under way
	}
	if r.web != nil {
		_ = r.web.Close() // as above
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

func (r *rig) rounds(lanes []lane, do func(lane) error) ([][]turn, error) {
	return frame.Rounds(frame.Order(r.o.seed), r.o.rounds, len(lanes), func(i int) (turn, error) {
		return measure(lanes[i], func() error { return do(lanes[i]) })
	})
}

func wall(t turn) float64 { return 1 / t.wall }
func cpu(t turn) float64  { return 1 / t.cpu }

// transfers prints the throughput of one connection.
func (r *rig) transfers(p *frame.Printer, lanes []lane, what string, do func(lane) error) error {
	all, err := r.rounds(lanes, do)
	if err != nil {
		return err
	}
	p.Print("\n%d MiB %s: throughput by the clock, and by the processor of the proxy\n", r.o.mib, what)
	table(p, lanes, all, "MiB", float64(r.o.mib))
	return nil
}

// connections prints how many connections a second of the processor makes.
func (r *rig) connections(p *frame.Printer, lanes []lane, what string, do func(lane) error) error {
	n := r.o.handshakes
	all, err := r.rounds(lanes, func(l lane) error {
		for range n {
			if err := do(l); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.Print("\n%d %s, one after the other: by the clock, and by the processor of the proxy\n", n, what)
	table(p, lanes, all, "", float64(n))
	return nil
}

// table prints how much of a unit each lane did, by the clock and by the processor, and its ratios to the first one.
func table(p *frame.Printer, lanes []lane, all [][]turn, unit string, amount float64) {
	p.Print("%-26s %8s %8s %12s %8s\n", "proxy", unit+"/s", "ratio", unit+"/CPU-s", "ratio")
	for i, l := range lanes {
		p.Print("%-26s %8.0f %8.3f %12.0f %8.3f\n", l.name, amount*middle(all[i], wall), frame.Paired(all[i], all[0], wall), amount*middle(all[i], cpu), frame.Paired(all[i], all[0], cpu))
	}
}

// middle is the median of a figure.
func middle(all []turn, figure func(turn) float64) float64 {
	one := make([]turn, len(all))
	for i := range one {
		one[i] = turn{1, 1}
	}
	return frame.Paired(all, one, figure)
}
