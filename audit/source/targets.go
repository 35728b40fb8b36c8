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

// Targets are files, directories and live TLS servers. It is an [audit.Source].
type Targets struct {
	// Names are paths, patterns of paths (of package doublestar), and addresses: HOST:PORT
	// for TLS from the first byte, or SCHEME://HOST[:PORT]. With the schemes postgres,
	// mysql, smtp, imap, pop3, ldap and ftp, TLS begins as these protocols define it; the
	// other schemes are in docs/audit-report.md. A name that exists on disk is a path. Any
	// other name with ://, or with a colon and digits at its end, is an address. "-" is
	// Stdin.
	Names []string
	// Stdin is read for the name "-"; nil is empty.
	Stdin io.Reader
	// Bundle judges all chains. If it is empty, a file is judged by the nearest ca.crt,
	// ca.pem or root_ca.crt beside it or above it, up to the named path, and the chains of
	// servers are not judged.
	Bundle []*x509.Certificate
	// Include and Exclude choose among the files in directories: "*.crt" by their
	// name, "prod/**/*.pem" by their path below the named directory. No Include means
	// all. The walk does not enter an excluded directory. A malformed pattern (of package
	// doublestar) matches nothing.
	Include, Exclude []string
	// Timeout bounds the wait for the first bytes of a server, and then the rest of the
	// handshake. 0 means 5 s.
	Timeout time.Duration
	// Parallel is how many servers that answer are talked to at a time. 0 means 128.
	// Servers that keep silent do not count, and delay no other: up to 1024 connections
	// are open.
	Parallel int
	// Fast connects to each server once, and does not ask which old versions it accepts
	// and which certificates it has for other signature algorithms.
	Fast bool
	// ServerName is sent to servers, and is the name that their certificates must have.
	// Empty means the host of each address.
	ServerName string
	// Certificates are for servers that ask for a client certificate. Only a server that
	// Bundle verifies gets one. Without them a server of TLS 1.3 is read all the same.
	Certificates []tls.Certificate
	// Passwords are tried on stores (PKCS #12). The empty password is always tried.
	Passwords []secret.String
	// Documents adds requests and tokens to the subjects, for an explanation.
	Documents bool

	omit func(path, reason string) // see OmitTo; may be nil
}

// collection is one call of Collect: the state that its paths and servers share.
type collection struct {
	*fileReader
	ctx         context.Context //nolint:containedctx // one call, cut into methods
	pieces      *ordered.Pool[batch]
	files       chan struct{} // bounds the pieces of work on files
	endpointSem chan struct{} // bounds the servers that are talked to; see slot
	pathFilter  filter
	bundle      []*cert.Certificate // Targets.Bundle; nil if that is empty

	trees *trees // is used by the goroutine that walks only
	omit  func(path, reason string)
}

const (
	// maxAnswers bounds the servers whose results wait for those of earlier servers.
	maxAnswers = 4 << 10
	// maxConnected bounds the open connections. A dead server takes the whole timeout, so
	// the last servers should be asked soon after the first.
	maxConnected = 1 << 10
)

// Collect implements [audit.Source]: paths first, then servers, both in the order in which
// they were named.
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
		w := &walk{collection: c, root: filepath.Clean(name)}
		w.start()
	}
	// The timeout of a server begins when its piece of work does, so this loop must not wait.
	for _, address := range targets.servers {
		c.pieces.Do(answers, func() batch {
			connected <- struct{}{}
			defer func() { <-connected }()
			return batchOf(t.answer(c, address)...)
		})
	}
	c.pieces.Wait()
}

// isServer reports whether a target is a server. A name that exists on disk is none.
func isServer(name string) bool {
	if !endpoint.IsAddress(name) {
		return false
	}
	_, err := os.Lstat(name)
	return err != nil
}

// named are the targets by kind. Servers come after the paths, because their certificates are
// compared with all that were found on disk.
type named struct {
	paths, servers []string
	failed         map[string]error // the errors of patterns, which are among the paths
}

// splitTargets sorts names into paths and servers, and expands patterns.
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

// isPattern reports whether a target is a pattern. A name that exists on disk is none.
func isPattern(name string) bool {
	if !strings.ContainsAny(name, "*?[{") {
		return false
	}
	_, err := os.Lstat(name)
	return err != nil
}

// expand adds the paths that match a pattern, in the order of names. If a directory cannot be
// read, the pattern has an error, and the matches in other directories are added.
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

// OmitTo returns the same targets for a run that counts the paths that are left out. Several
// goroutines may call add.
func (t Targets) OmitTo(add func(path, reason string)) audit.Source {
	t.omit = add
	return t
}

// stdin reads the standard input. It has no directory, so there is neither a bundle nor a key
// beside it.
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
