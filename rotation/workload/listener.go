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

// listener accepts connections within the limits, and knows the caller of each.
type listener struct {
	net.Listener
	rules   *Rules
	log     *slog.Logger
	limited func() // is called for each connection that is over the limits
	decided func() // is called after new rules have been applied
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
		c := &conn{Conn: raw, listener: l, Peer: peer, rule: firstRule(l.rules.current(), peer)}
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
func firstRule(rules *[]rule, p unixsocket.Peer) int {
	if rules == nil {
		return strangers
	}
	if i := slices.IndexFunc(*rules, func(r rule) bool { return r.mayMatch(p) }); i >= 0 {
		return i
	}
	return strangers
}

func (l *listener) enter(c *conn) bool {
	rule, uid := c.rule, c.UID
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
	l.byRule[c.rule]--
	if l.byUser[c.UID]--; l.byUser[c.UID] == 0 {
		delete(l.byUser, c.UID)
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

// decide says by the rules in effect what the caller of a connection gets. why has what speaks
// against rules whose ids match. It may read files, so Accept does not call it.
//
// Rules that are set meanwhile count: either their decideAll finds this connection open and decides
// after this, or the comparison here finds them.
func (l *listener) decide(c *conn) (names []string, why []error) {
	for {
		rules := l.rules.current()
		names, why = c.matching(rules)
		l.mu.Lock()
		if l.rules.current() != rules {
			l.mu.Unlock()
			continue
		}
		c.identities = names
		if l.open[c] { // more than the limit may stay of those that the rule before let in
			l.byRule[c.rule]--
			c.rule = firstRule(rules, c.Peer)
			l.byRule[c.rule]++
		}
		l.mu.Unlock()
		return names, why
	}
}

// decideAll applies new rules to the connections that are open.
func (l *listener) decideAll() {
	l.mu.Lock()
	open := slices.Collect(maps.Keys(l.open))
	l.mu.Unlock()
	for _, c := range open {
		_, _ = l.decide(c) // a caller that gets nothing is told so by its calls
	}
	l.decided()
}

// conn is a connection with its caller. It gives its place back when it is closed.
type conn struct {
	net.Conn
	unixsocket.Peer

	listener *listener

	// The mutex of the listener guards these.
	rule       int              // the first one whose ids match, or strangers; it has the connection
	identities []string         // in the order in which they are sent; none before the handshake
	verdicts   map[string]error // why the process does not run a file; decided once for a connection
}

// Close closes the connection.
func (c *conn) Close() error {
	defer c.listener.leave(c)
	return c.Conn.Close()
}

// names returns the names of the identities that the caller gets now.
func (c *conn) names() []string {
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	return c.identities
}

// matching returns the identities of all rules that match, each once.
func (c *conn) matching(rules *[]rule) (names []string, why []error) {
	if rules == nil {
		return nil, nil
	}
	for _, r := range *rules {
		if !r.mayMatch(c.Peer) {
			continue
		}
		if err := c.runs(r.executable); err != nil {
			why = append(why, err)
			continue
		}
		for _, name := range r.identities {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names, why
}

// runs is processRuns for the process of c, decided at the first question; "" is every file. A
// file that was replaced since does not take from a process what it had.
func (c *conn) runs(path string) error {
	if path == "" {
		return nil
	}
	c.listener.mu.Lock()
	verdict, known := c.verdicts[path]
	c.listener.mu.Unlock()
	if known {
		return verdict
	}
	raw, err := c.Conn.(syscall.Conn).SyscallConn() // PeerOf has used it
	if err != nil {
		return err
	}
	if controlled := raw.Control(func(fd uintptr) { verdict = processRuns(int(fd), c.PID, path) }); controlled != nil {
		return controlled
	}
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	if c.verdicts == nil {
		c.verdicts = map[string]error{}
	}
	c.verdicts[path] = verdict
	return verdict
}
