package audit

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/secret"
)

const (
	defaultTimeout  = 5 * time.Second
	defaultParallel = 128
	stdinName       = "-"
)

// Targets are files, directories and live TLS servers. It is a [Source].
type Targets struct {
	// Names are paths, and addresses: HOST:PORT, which speaks TLS at once, or
	// https://, postgres:// or smtp://HOST[:PORT], where the last two ask for TLS as
	// their protocols do. What exists on disk is a path, whatever it looks like. "-"
	// is Stdin.
	Names []string
	// Stdin is read where a name is "-", as a file is; nil is empty.
	Stdin io.Reader
	// Bundle judges every chain. Empty: for files the nearest ca.crt, ca.pem or
	// root_ca.crt beside a certificate or above it, up to the path that was named;
	// for servers there is none, and their chains are not judged.
	Bundle []*x509.Certificate
	// Include and Exclude choose among the files in directories: "*.crt" by their
	// name, "prod/**/*.pem" by their path below the directory that was named. No
	// Include means all; a directory that is excluded is not looked into. A bad
	// pattern (of package doublestar) matches nothing.
	Include, Exclude []string
	// Timeout bounds the wait for the first word of a server, and then the rest of
	// what it has to say. 0 means 5 s.
	Timeout time.Duration
	// Parallel is how many servers that answer are talked to at a time. 0 means 128.
	// Those that keep silent cost nothing but their time, and hold up nobody: up to
	// 1024 connections are open.
	Parallel int
	// ServerName is asked for in place of the host of an address, and is the name
	// that its certificate must have. Empty: the host.
	ServerName string
	// Certificates are what a server that asks for one gets, once it passed Bundle:
	// without a Bundle none does, and none is needed to see what TLS 1.3 shows.
	Certificates []tls.Certificate
	// Passwords are tried on stores (PKCS #12) in turn, after the empty one.
	Passwords []secret.String
	// Documents has requests, revocation lists and tokens reported as well, for
	// [Row] to explain.
	Documents bool
}

// collection is one Collect: what its paths and servers share.
type collection struct {
	*opening
	ctx    context.Context //nolint:containedctx // one call, cut into methods
	pieces *inOrder[[]Subject]
	files  chan struct{} // room for pieces of files
	talks  chan struct{} // room for servers that answer
	wants  filter
	bundle []*Certificate // that was given; nil if none was
}

const (
	// maxAnswers bounds the servers whose answers wait for their turn.
	maxAnswers = 4 << 10
	// maxConnected bounds connections that are open. Each dead one takes the whole
	// timeout, so the last of them should begin soon after the first.
	maxConnected = 1 << 10
)

// Collect implements [Source]: paths first, then servers, both in the order in
// which they were named. A server is connected to once; under TLS 1.3 it shows
// its certificate before it asks for one.
func (t Targets) Collect(ctx context.Context, yield func(Subject)) {
	if t.Timeout == 0 {
		t.Timeout = defaultTimeout
	}
	if t.Parallel == 0 {
		t.Parallel = defaultParallel
	}
	c := &collection{
		opening: &opening{known: &authorities{}, passwords: t.Passwords, documents: t.Documents}, ctx: ctx, files: make(chan struct{}, 2*runtime.GOMAXPROCS(0)),
		talks: make(chan struct{}, t.Parallel), wants: filter{t.Include, t.Exclude}, pieces: newInOrder(func(s []Subject) { handOn(s, yield) }),
	}
	for _, b := range t.Bundle {
		c.bundle = append(c.bundle, c.known.one(fromX509(b)))
	}
	answers, connected := make(chan struct{}, maxAnswers), make(chan struct{}, maxConnected)
	paths, servers := apart(t.Names)
	for _, name := range paths {
		if name == stdinName {
			c.pieces.do(c.files, func() []Subject { return c.stdin(t.Stdin) })
			continue
		}
		// One that does not exist gets its row there.
		w := &walk{collection: c, root: filepath.Clean(name)}
		w.start()
	}
	// Nothing in this loop waits while there is room: the clock of a dead server begins with its turn here.
	for _, address := range servers {
		c.pieces.do(answers, func() []Subject {
			connected <- struct{}{}
			defer func() { <-connected }()
			return t.answer(c, address)
		})
	}
	c.pieces.wait()
}

// isServer reports whether a target is to be connected to.
func isServer(name string) bool {
	if _, _, err := parseAddress(name); err != nil {
		return false
	}
	_, err := os.Lstat(name)
	return err != nil
}

// apart tells paths from servers, which come after them: what they show is
// compared with all that lies on disk.
func apart(names []string) (paths, servers []string) {
	for _, name := range names {
		if isServer(name) {
			servers = append(servers, name)
		} else {
			paths = append(paths, name)
		}
	}
	return paths, servers
}

// prepare implements [preparer].
func (t Targets) prepare(_ context.Context, v *view) Source {
	v.wire = v.wire || slices.ContainsFunc(t.Names, isServer)
	return t
}

// handOn yields subjects, and in turn those that were put off.
func handOn(subjects []Subject, yield func(Subject)) {
	if len(subjects) == 0 {
		return
	}
	seen := subjects[0].seen
	one := func(s Subject) {
		if seen != nil {
			*seen = true
		}
		s.seen = nil
		yield(s)
	}
	for _, s := range subjects {
		if s.later != nil {
			s.later(one)
			continue
		}
		one(s)
	}
}

// answer is what a server shows: its certificate, and the authorities it sends.
func (t Targets) answer(c *collection, address string) []Subject {
	s := t.look(c, address)
	out := []Subject{s}
	for _, sent := range s.Chain {
		if sent.isCA { // what else is sent, no client looks at
			out = append(out, Subject{Kind: kindEndpoint, Place: s.Place, Cert: sent})
		}
	}
	return out
}

// stdin has no place beside which a bundle or a key could lie.
func (c *collection) stdin(in io.Reader) []Subject {
	f := &file{path: stdinName}
	if in == nil {
		f = failed(stdinName, errEmpty)
	} else if data, err := io.ReadAll(io.LimitReader(in, maxFile+1)); err != nil {
		f = failed(stdinName, plain(err))
	} else if len(data) > maxFile {
		f = failed(stdinName, errTooLarge)
	} else {
		f.parts = parse(data, c.opening)
	}
	c.follow(f)
	if f.holds() == 0 && f.err() == nil {
		f.parts = []parsed{{err: errNoCert}}
	}
	w := &walk{collection: c, root: "."}
	return w.report(f, place{bundle: c.bundle})
}
