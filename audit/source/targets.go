package source

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/endpoint"
	"github.com/artstore/artstore-pki/audit/internal/format"
	"github.com/artstore/artstore-pki/audit/internal/ordered"
	"github.com/artstore/artstore-pki/secret"
)

const (
	defaultTimeout  = 5 * time.Second
	defaultParallel = 128
	stdinName       = "-"
)

// Targets are files, directories and live TLS servers. It is a [Source].
type Targets struct {
	// Names are paths, patterns of them (of package doublestar), and addresses:
	// HOST:PORT, which speaks TLS at once, or SCHEME://HOST[:PORT], where postgres,
	// mysql, smtp, imap, pop3, ldap and ftp ask for TLS as their protocols do; the
	// other schemes are in docs/audit-report.md. What exists on disk is a path,
	// whatever it looks like; else a name with ://, or with a colon and digits at its
	// end, is an address. "-" is Stdin.
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
	// Fast connects to each server once, and does not ask what it does for other
	// clients: which old versions it accepts, and which certificates it has for other
	// signature algorithms.
	Fast bool
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

	omit func(path, reason string) // nil: nobody counts
}

// collection is one Collect: what its paths and servers share.
type collection struct {
	*fileReader
	ctx         context.Context //nolint:containedctx // one call, cut into methods
	pieces      *ordered.Pool[batch]
	files       chan struct{} // room for pieces of files
	endpointSem chan struct{} // room for servers that answer
	pathFilter  filter
	bundle      []*cert.Certificate // that was given; nil if none was

	trees *trees // known to the goroutine that walks
	omit  func(path, reason string)
}

const (
	// maxAnswers bounds the servers whose answers wait for their turn.
	maxAnswers = 4 << 10
	// maxConnected bounds connections that are open. Each dead one takes the whole
	// timeout, so the last of them should begin soon after the first.
	maxConnected = 1 << 10
)

// Collect implements [Source]: paths first, then servers, both in the order in
// which they were named. Under TLS 1.3 a server shows its certificate before it
// asks for one.
func (t Targets) Collect(ctx context.Context, yield func(audit.Subject)) {
	if t.Timeout == 0 {
		t.Timeout = defaultTimeout
	}
	if t.Parallel == 0 {
		t.Parallel = defaultParallel
	}
	c := &collection{
		fileReader: &fileReader{Context: &format.Context{Known: &cert.Cache{}, Passwords: t.Passwords, Documents: t.Documents}}, ctx: ctx, files: make(chan struct{}, 2*runtime.GOMAXPROCS(0)),
		endpointSem: make(chan struct{}, t.Parallel), pathFilter: filter{t.Include, t.Exclude}, pieces: ordered.New(func(b batch) { b.yield(yield) }),
	}
	for _, b := range t.Bundle {
		c.bundle = append(c.bundle, c.Known.Canonical(cert.FromX509(b)))
	}
	answers, connected := make(chan struct{}, maxAnswers), make(chan struct{}, maxConnected)
	targets := splitTargets(t.Names)
	c.trees, c.omit = newTrees(targets.paths), t.omit
	if c.omit == nil {
		c.omit = func(string, string) {}
	}
	for _, name := range targets.paths {
		if err := targets.failed[name]; err != nil {
			c.pieces.Do(c.files, func() batch { return batchOf(audit.Subject{Place: name, Err: err}) })
			continue
		}
		if name == stdinName {
			c.pieces.Do(c.files, func() batch { return batch{found: c.stdin(t.Stdin)} })
			continue
		}
		// One that does not exist gets its row there.
		w := &walk{collection: c, root: filepath.Clean(name)}
		w.start()
	}
	// Nothing in this loop waits while there is room: the clock of a dead server begins with its turn here.
	for _, address := range targets.servers {
		c.pieces.Do(answers, func() batch {
			connected <- struct{}{}
			defer func() { <-connected }()
			return batchOf(t.answer(c, address)...)
		})
	}
	c.pieces.Wait()
}

// isServer reports whether a target is to be connected to: what exists on disk is not.
func isServer(name string) bool {
	if !endpoint.IsAddress(name) {
		return false
	}
	_, err := os.Lstat(name)
	return err != nil
}

// named are targets by what they are. Servers come after the paths: what they show
// is compared with all that lies on disk.
type named struct {
	paths, servers []string
	failed         map[string]error // of patterns, which are among the paths
}

func splitTargets(names []string) named {
	n := named{failed: map[string]error{}}
	for _, name := range names {
		switch {
		case isServer(name):
			n.servers = append(n.servers, name)
		case isPattern(name):
			n.expand(name)
		default:
			n.paths = append(n.paths, name)
		}
	}
	return n
}

// isPattern reports whether a target stands for the paths that match it.
func isPattern(name string) bool {
	if !strings.ContainsAny(name, "*?[{") {
		return false
	}
	_, err := os.Lstat(name)
	return err != nil
}

// expand replaces a pattern by what matches it, in the order of names. A directory
// that cannot be read is an error beside what matches elsewhere.
func (n *named) expand(pattern string) {
	found, err := doublestar.FilepathGlob(pattern, doublestar.WithNoFollow(), doublestar.WithFailOnIOErrors())
	if err != nil && !errors.Is(err, doublestar.ErrBadPattern) {
		found, _ = doublestar.FilepathGlob(pattern, doublestar.WithNoFollow())
	}
	if err == nil && len(found) == 0 {
		err = errors.New("nothing matches this pattern")
	}
	if err != nil {
		n.failed[pattern] = err
		n.paths = append(n.paths, pattern)
	}
	slices.Sort(found)
	n.paths = append(n.paths, found...)
}

// Endpoints reports whether there are servers among the targets.
func (t Targets) Endpoints() bool { return slices.ContainsFunc(t.Names, isServer) }

// OmitTo returns the same targets for a run that counts what is left out; add may be
// called by several goroutines.
func (t Targets) OmitTo(add func(path, reason string)) audit.Source {
	t.omit = add
	return t
}

// stdin has no place beside which a bundle or a key could lie.
func (c *collection) stdin(in io.Reader) []found {
	f := &file{path: stdinName}
	if in == nil {
		f = failedFile(stdinName, format.ErrEmpty)
	} else if data, err := io.ReadAll(io.LimitReader(in, maxFile+1)); err != nil {
		f = failedFile(stdinName, withoutPath(err))
	} else if len(data) > maxFile {
		f = failedFile(stdinName, errTooLarge)
	} else {
		f.parts = c.ParseFile(stdinName, data, false)
	}
	c.follow(f)
	if f.named = true; f.holds() == 0 && f.err() == nil && !f.hasKey() {
		f.parts = []format.Part{{Err: format.ErrNoCert}}
	}
	w := &walk{collection: c, root: "."}
	return w.subjects(f, dirContext{bundle: c.bundle})
}
