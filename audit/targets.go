package audit

import (
	"context"
	"crypto/x509"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	defaultTimeout  = 5 * time.Second
	defaultParallel = 32
	stdinName       = "-"
)

// Targets are files, directories and live TLS servers. It is a [Source].
type Targets struct {
	// Names are paths, and addresses: HOST:PORT or an https URL. What exists on
	// disk is a path, whatever it looks like. "-" is Stdin.
	Names []string
	// Stdin is read where a name is "-", as a file is; nil is empty.
	Stdin io.Reader
	// Bundle judges every chain. Empty: for files the nearest ca.crt, ca.pem or
	// root_ca.crt beside a certificate or above it, up to the path that was named;
	// for servers there is none, and their chains are not judged.
	Bundle []*x509.Certificate
	// Timeout bounds the look at one server. 0 means 5 s.
	Timeout time.Duration
	// Parallel is how many servers are connected to at a time. 0 means 32.
	Parallel int
}

// Collect implements [Source]. A server is connected to once, without a client
// certificate: under TLS 1.3 it shows its own before it asks for one.
func (t Targets) Collect(ctx context.Context, yield func(Subject)) {
	if t.Timeout == 0 {
		t.Timeout = defaultTimeout
	}
	if t.Parallel == 0 {
		t.Parallel = defaultParallel
	}
	var servers errgroup.Group
	servers.SetLimit(t.Parallel)
	for _, name := range t.Names {
		if name == stdinName {
			t.stdin(ctx, yield)
			continue
		}
		_, _, notAddress := parseAddress(name)
		if _, err := os.Lstat(name); err != nil && notAddress == nil {
			servers.Go(func() error {
				s := t.look(ctx, name)
				yield(s)
				for _, c := range s.Chain {
					if c.IsCA { // what else is sent, no client looks at
						yield(Subject{Kind: kindEndpoint, Place: name, Cert: c})
					}
				}
				return nil
			})
			continue
		}
		// One that does not exist gets its row there.
		w := &walk{ctx: ctx, yield: yield, bundle: t.Bundle, root: filepath.Clean(name), bundles: map[string][]*x509.Certificate{}}
		w.start()
	}
	_ = servers.Wait() // what failed is a subject
}

// stdin has no place beside which a bundle or a key could lie.
func (t Targets) stdin(ctx context.Context, yield func(Subject)) {
	f := &file{path: stdinName}
	if t.Stdin == nil {
		f = failed(stdinName, errEmpty)
	} else if data, err := io.ReadAll(io.LimitReader(t.Stdin, maxFile+1)); err != nil {
		f = failed(stdinName, plain(err))
	} else if len(data) > maxFile {
		f = failed(stdinName, errTooLarge)
	} else {
		f.parts = parse(data)
	}
	if f.certs() == 0 && f.err() == nil {
		f.parts = []parsed{{err: errNoCert}}
	}
	w := &walk{ctx: ctx, yield: yield, bundle: t.Bundle, root: ".", bundles: map[string][]*x509.Certificate{".": nil}}
	w.report(f, nil)
}
