//go:build linux

package workload

import (
	"errors"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/artstore/artstore-pki/internal/unixsocket"
)

// TestRulesChange: new rules are for the streams that are open, without a new connection, and a
// stream whose caller gets what it had before gets no message.
func TestRulesChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	storage, web := w.add("storage"), w.add("web")
	w.serve(ownRule("storage"))
	next := w.svids()
	want := func(serial string) {
		t.Helper()
		msg, err := next()
		must(t, err)
		if got := serials(t, msg); got != serial {
			t.Errorf("serials %s, want %s", got, serial)
		}
	}
	want(storage.serial())
	must(t, w.rules.Set([]Rule{{User: "12345", Identities: []string{"web"}}, ownRule("storage")})) // nothing for this caller
	must(t, w.rules.Set([]Rule{ownRule("storage", "web")}))
	want(storage.serial() + " " + web.serial())
	if err := w.rules.Set([]Rule{{}}); err == nil {
		t.Error("a rule for nobody was accepted")
	}
	web.rotate(t) // the rules before a bad one go on
	want(storage.serial() + " " + web.serial())
	must(t, w.rules.Set([]Rule{ownRule("web")}))
	want(web.serial())
	must(t, w.rules.Set(nil))
	_, err := next()
	wantStatus(t, "without a rule", err, codes.PermissionDenied, "no rule gives an identity")
	_, err = w.svids()()
	wantStatus(t, "a new caller without a rule", err, codes.PermissionDenied, "no rule gives an identity")
	w.placesAreCounted(t)
}

// placesAreCounted looks whether connections that went from one rule to another were counted for the
// rule that they had at their end.
func (w *world) placesAreCounted(t *testing.T) {
	t.Helper()
	w.rules.mu.Lock()
	defer w.rules.mu.Unlock()
	for l := range w.rules.servers {
		l.mu.Lock()
		open := map[int]int{}
		for c := range l.open {
			open[c.rule]++
		}
		for rule, n := range l.byRule {
			if n != open[rule] {
				t.Errorf("rule %d has %d connections, and %d are counted", rule, open[rule], n)
			}
		}
		l.mu.Unlock()
	}
}

// TestRulesWithExecutable: new rules keep what is known of a process, because its file may have been
// replaced since; a rule with another file asks again.
func TestRulesWithExecutable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	storage := w.add("storage")
	self, err := os.Executable()
	must(t, err)
	program := program(t)
	rule := Rule{User: numeral(os.Geteuid()), Executable: self, Identities: []string{"storage"}}
	w.serve(rule)
	next := w.svids()
	_, err = next()
	must(t, err)
	other := rule
	other.Executable = program
	must(t, w.rules.Set([]Rule{other, rule}))
	storage.rotate(t)
	if msg, err := next(); err != nil || serials(t, msg) != storage.serial() {
		t.Errorf("after a rule with another file: %v", err)
	}
	must(t, w.rules.Set([]Rule{other}))
	_, err = next()
	wantStatus(t, "another file only", err, codes.PermissionDenied, "no rule gives an identity")
}

// asked is a connection that calls do when its process is asked for.
type asked struct {
	net.Conn
	do func()
}

// SyscallConn implements [syscall.Conn].
func (a asked) SyscallConn() (syscall.RawConn, error) {
	a.do()
	return nil, errors.New("it is no socket")
}

// TestRulesRace: a connection whose rules are replaced while it is judged has what the newest ones give.
func TestRulesRace(t *testing.T) {
	t.Parallel()
	file := ownRule("a")
	file.Executable = "/bin/true"
	l := &listener{rules: rulesOf(t, file, ownRule("b")), decided: func() {}, byRule: map[int]int{}, byUser: map[uint32]int{}, open: map[*conn]bool{}}
	defer l.rules.tell(l)()
	c := &conn{listener: l, Peer: unixsocket.Peer{UID: uint32(os.Geteuid())}}
	c.Conn = asked{do: func() { must(t, l.rules.Set([]Rule{ownRule("c")})) }}
	if !l.enter(c) {
		t.Fatal("over the limits")
	}
	if got, _ := l.decide(c); !slices.Equal(got, []string{"c"}) || !slices.Equal(c.names(), got) {
		t.Errorf("judged to get %q, and it gets %q", got, c.names())
	}
}

// TestClosedIdentity: an identity that is closed is served until it is replaced, so that its owner can
// open it anew while streams are open.
func TestClosedIdentity(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	storage := w.add("storage")
	w.serve(ownRule("storage"))
	must(t, storage.id.Close())
	next := w.svids()
	if msg, err := next(); err != nil || serials(t, msg) != storage.serial() {
		t.Errorf("after its end: %v", err)
	}
	other := w.prepare("storage")
	w.ids.Put("storage", other.id)
	if msg, err := next(); err != nil || serials(t, msg) != other.serial() {
		t.Errorf("its successor: %v", err)
	}
}
