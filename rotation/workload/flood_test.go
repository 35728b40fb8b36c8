//go:build linux

package workload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	pb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// connect opens a connection that says nothing.
func (w *world) connect() net.Conn {
	w.t.Helper()
	c, err := new(net.Dialer).DialContext(w.t.Context(), "unix", w.path)
	must(w.t, err)
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// as runs f with the effective user of one thread, which connect asks.
func as(t *testing.T, uid uintptr, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	set := func(uid uintptr) {
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), uid, ^uintptr(0)); errno != 0 {
			t.Fatal(errno)
		}
	}
	set(uid)
	defer set(0)
	f()
}

// keeps reports whether the server keeps a connection open. Its settings come first (RFC 9113
// section 3.4), unless the connection is over the limits.
func keeps(t *testing.T, c net.Conn) bool {
	t.Helper()
	_, err := c.Read(make([]byte, 1))
	return err == nil
}

// One user has a share of the connections, and gets each of them back.
func TestFloodOfConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.add("storage")
	w.serve(ownRule("storage"))
	var open []net.Conn
	for range connsPerUser {
		c := w.connect()
		if !keeps(t, c) {
			t.Fatalf("connection %d is closed", len(open)+1)
		}
		open = append(open, c)
	}
	if keeps(t, w.connect()) {
		t.Error("a connection over the limit is kept")
	}
	if w.count(Limited) != 1 || !strings.Contains(w.logs.String(), "connection over the limits closed") {
		t.Errorf("outcomes %v, log %s", w.outcomes, w.logs)
	}
	must(t, open[0].Close())
	waitFor(t, "room after a connection has gone", func() bool { return keeps(t, w.connect()) })
}

// flood opens connections of one user after another, and returns how many each of them keeps.
func (w *world) flood(users, each int) (kept map[int]int, all int) {
	w.t.Helper()
	kept = map[int]int{}
	for i := range users {
		as(w.t, uintptr(stranger+i), func() {
			for range each {
				if keeps(w.t, w.connect()) {
					kept[i]++
					all++
				}
			}
		})
		if kept[i] == 0 && all == 0 {
			w.t.Error("no connection was kept at all")
		}
	}
	return kept, all
}

// The users of one rule have a share of the connections together, and take none of another rule.
func TestFloodOfAGroup(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	w := newWorld(t)
	w.add("storage")
	w.serve(ownRule("storage"), Rule{Group: numeral(os.Getegid()), Identities: []string{"storage"}}) // as leaves the group as it is
	kept, all := w.flood(2+connsPerRule/connsPerUser, connsPerUser+2)
	if all != connsPerRule || kept[0] != connsPerUser {
		t.Errorf("connections %v, want %d of each user and %d of all", kept, connsPerUser, connsPerRule)
	}
	if _, err := w.svids()(); err != nil {
		t.Errorf("the user of another rule: %v", err)
	}
}

// Users without a rule have few connections, all of them together. They take none from others.
func TestFloodOfStrangers(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	w := newWorld(t)
	w.add("storage")
	w.serve(ownRule("storage"))
	kept, all := w.flood(2+connsOfStrangers/connsPerStranger, connsPerStranger+2)
	if all != connsOfStrangers || kept[0] != connsPerStranger {
		t.Errorf("connections %v, want %d of each user and %d of all", kept, connsPerStranger, connsOfStrangers)
	}
	if _, err := w.svids()(); err != nil {
		t.Errorf("the user of the rule: %v", err)
	}
}

// One user has a share of the streams, however many connections it has.
func TestFloodOfStreams(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.add("storage")
	w.serve(ownRule("storage"))
	var cancels []context.CancelFunc
	var client pb.SpiffeWorkloadAPIClient
	open := func() error {
		if len(cancels)%callsPerConn == 0 {
			_, client = w.dial()
		}
		ctx, cancel := context.WithCancel(limited(t))
		cancels = append(cancels, cancel)
		stream, err := client.FetchX509SVID(ctx, &pb.X509SVIDRequest{})
		must(t, err)
		_, err = stream.Recv()
		return err
	}
	for i := range streamsPerUser {
		if err := open(); err != nil {
			t.Fatalf("stream %d: %v", i+1, err)
		}
	}
	wantStatus(t, "a stream over the limit", open(), codes.ResourceExhausted, fmt.Sprintf("has %d streams open already", streamsPerUser))
	cancels[0]()
	waitFor(t, "room after a stream has ended", func() bool { return open() == nil })
	for _, cancel := range cancels {
		cancel()
	}
}

// A loop that opens and cancels calls gets no further than its places in the limits let it, be
// the calls good or bad.
func TestFloodOfCalls(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]string{"good": "true", "bad": "false"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.add("storage")
			var seen atomic.Int64
			w.onOutcome = func(string) { seen.Add(1) }
			w.serve(ownRule("storage"))
			_, c := w.dial()
			ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), securityHeader, header), patience)
			defer cancel()
			began := time.Now()
			for range 4 * callsPerConn {
				call, cancel := context.WithCancel(ctx)
				before := seen.Load()
				if _, err := c.FetchX509SVID(call, &pb.X509SVIDRequest{}); err != nil {
					t.Fatal(err)
				}
				waitFor(t, "a call", func() bool { return seen.Load() > before })
				cancel()
			}
			rounds := int64(time.Since(began)/callTime) + 1
			if got := seen.Load(); got > callsPerConn*rounds {
				t.Errorf("%d calls in %d times %s, want %d at most", got, rounds, callTime, callsPerConn*rounds)
			}
		})
	}
}

// The end does not wait for callers that do not read, or say nothing. The others are told.
func TestStopWithSlowReaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	storage := w.add("storage")
	w.serve(ownRule("storage"))
	silent := w.connect()
	_, c := w.dial()
	slow, err := c.FetchX509SVID(limited(t), &pb.X509SVIDRequest{})
	must(t, err)
	_, err = slow.Recv()
	must(t, err)
	for range 300 { // more than finds room on the way
		storage.rotate(t)
	}
	next := w.svids()
	_, err = next()
	must(t, err)
	must(t, w.stop())
	waitFor(t, "the end of a stream", func() bool { _, err = next(); return err != nil })
	wantStatus(t, "a reader at the end", err, codes.Unavailable, "")
	waitFor(t, "the end of a connection", func() bool { return !keeps(t, silent) })
	for _, name := range []string{w.path, w.path + ".lock"} {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
}

// A client that has a source goes on after the server has ended and begun again.
func TestServerComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	storage := w.add("storage")
	w.serve(ownRule("storage"))
	src := w.source()
	must(t, w.stop())
	storage.rotate(t)
	w.serve(ownRule("storage"))
	waitFor(t, "the rotation that the client has missed", func() bool {
		svid, err := src.GetX509SVID()
		must(t, err)
		return svid.Certificates[0].SerialNumber.Text(16) == storage.serial()
	})
}

// A server whose context has ended already serves nobody.
func TestServeAfterTheEnd(t *testing.T) {
	t.Parallel()
	ln, err := Listen(t.Context(), Socket{Path: filepath.Join(publicDir(t), "s")})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, Serve(ctx, ln, Config{Identities: &Identities{}, Rules: rulesOf(t, ownRule("a"))}))
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is open: %v", err)
	}
}

// The file system does not choose callers, but it must not let others take the place of the server.
func TestListen(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	path := filepath.Join(dir, "s")
	gid := os.Getegid()
	if gid == 0 {
		gid = 12345
	}
	for _, c := range []struct {
		group int
		mode  fs.FileMode
	}{{0, 0o666}, {gid, 0o660}} {
		ln, err := Listen(t.Context(), Socket{Path: path, Group: c.group})
		must(t, err)
		info, err := os.Lstat(path)
		must(t, err)
		if info.Mode().Perm() != c.mode {
			t.Errorf("group %d: mode %04o, want %04o", c.group, info.Mode().Perm(), c.mode)
		}
		if _, err := Listen(t.Context(), Socket{Path: path}); !errors.Is(err, ErrBusy) {
			t.Errorf("a second server: %v", err)
		}
		must(t, ln.Close())
	}
	for _, mode := range []fs.FileMode{0o777, 0o777 | fs.ModeSticky} {
		must(t, os.Chmod(dir, mode))
		if _, err := Listen(t.Context(), Socket{Path: path}); err == nil || !strings.Contains(err.Error(), dir+" has mode 0777, want 0755") {
			t.Errorf("in a directory of everyone with mode %s: %v", mode, err)
		}
	}
}
