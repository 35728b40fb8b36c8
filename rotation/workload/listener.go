package workload

import (
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/artstore/artstore-pki/internal/lograte"
	"github.com/artstore/artstore-pki/internal/unixsocket"
)

// Limits on connections. Each rule has connections of its own, so callers of one rule cannot take
// those of another. All users that no rule names share one small number.
const (
	connsPerRule     = 128
	connsPerUser     = 32
	connsOfStrangers = 32
	connsPerStranger = 8
)

// strangers is the place of a rule for callers that no rule names.
const strangers = -1

// caller is who has connected, and what it gets.
type caller struct {
	unixsocket.Peer
	rule       int      // the first one that may match, or strangers; it has the connection
	identities []string // in the order in which they are sent; none before the handshake
}

// listener accepts connections within the limits, and knows the caller of each.
type listener struct {
	net.Listener
	rules   []rule
	log     *slog.Logger
	limited func() // is called for each connection that is over the limits
	lines   lograte.Gate

	mu     sync.Mutex
	byRule map[int]int
	byUser map[uint32]int // connections of users, whichever rule they have
	open   map[*conn]bool
}

// Accept returns the next connection that is within the limits. It closes others at once, since
// they would keep those behind them waiting.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer, err := unixsocket.PeerOf(raw)
		if err != nil { // a client that is gone already, or no Unix socket
			if n := l.lines.Pass(time.Now()); n > 0 {
				l.log.Warn("connection without a peer closed", "times", n, "err", err)
			}
			_ = raw.Close() // nothing was written
			continue
		}
		c := &conn{Conn: raw, listener: l, caller: caller{Peer: peer, rule: l.firstRule(peer)}}
		if !l.enter(c) {
			l.limited()
			if n := l.lines.Pass(time.Now()); n > 0 {
				l.log.Warn("connection over the limits closed", "uid", peer.UID, "gid", peer.GID, "pid", peer.PID, "times", n)
			}
			_ = raw.Close() // nothing was written
			continue
		}
		return c, nil
	}
}

// firstRule returns the first rule whose ids match.
func (l *listener) firstRule(p unixsocket.Peer) int {
	for i, r := range l.rules {
		if r.mayMatch(p) {
			return i
		}
	}
	return strangers
}

func (l *listener) enter(c *conn) bool {
	rule, uid := c.caller.rule, c.caller.UID
	inAll, inUser := connsPerRule, connsPerUser
	if rule == strangers {
		inAll, inUser = connsOfStrangers, connsPerStranger
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byRule[rule] >= inAll || l.byUser[uid] >= inUser {
		return false
	}
	l.byRule[rule]++
	l.byUser[uid]++
	l.open[c] = true
	return true
}

// leave gives the place of a connection back, once.
func (l *listener) leave(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.open[c] {
		return
	}
	delete(l.open, c)
	l.byRule[c.caller.rule]--
	if l.byUser[c.caller.UID]--; l.byUser[c.caller.UID] == 0 {
		delete(l.byUser, c.caller.UID)
	}
}

// cutAll closes all connections.
func (l *listener) cutAll() {
	l.mu.Lock()
	open := slices.Collect(maps.Keys(l.open))
	l.mu.Unlock()
	for _, c := range open {
		_ = c.Close() // nothing more is written
	}
}

// identitiesOf returns what the rules give to the caller of a connection. why has what speaks
// against rules whose ids match. It may read files, so Accept does not call it.
func (l *listener) identitiesOf(c *conn) (names []string, why []error) {
	seen := map[string]bool{}
	for _, r := range l.rules {
		if !r.mayMatch(c.caller.Peer) {
			continue
		}
		if err := c.runs(r.executable); err != nil {
			why = append(why, err)
			continue
		}
		for _, name := range r.identities {
			if !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	return names, why
}

// conn is a connection with its caller. It gives its place back when it is closed.
type conn struct {
	net.Conn
	listener *listener
	caller   caller
}

// Close closes the connection.
func (c *conn) Close() error {
	defer c.listener.leave(c)
	return c.Conn.Close()
}

// runs is processRuns for the process of c; "" is every file.
func (c *conn) runs(path string) error {
	if path == "" {
		return nil
	}
	raw, err := c.Conn.(syscall.Conn).SyscallConn() // PeerOf has used it
	if err != nil {
		return err
	}
	if controlled := raw.Control(func(fd uintptr) { err = processRuns(int(fd), c.caller.PID, path) }); controlled != nil {
		return controlled
	}
	return err
}
