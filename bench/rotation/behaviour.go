package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"time"
)

// behaviour asks questions that have one right answer each; nothing here is a
// matter of speed but the delay until a change on disk is seen.
func behaviour(ctx context.Context, w io.Writer, dir string, o options) error {
	t := newTable(w)
	if err := trustTable(ctx, t, dir+"/trust"); err != nil {
		return err
	}
	if err := t.flush(); err != nil {
		return err
	}
	t = newTable(w)
	if err := diskTable(ctx, t, dir+"/disk", o); err != nil {
		return err
	}
	return t.flush()
}

// trustTable: a client that holds a ticket meets a server that changed its mind.
func trustTable(ctx context.Context, t *table, dir string) error {
	t.line("\nA client that resumes, after the server changed whom it accepts")
	t.line("server\torigin\troot removed\tpeer denied\tnew certificate, old ticket")
	for i, d := range serverKinds() {
		row := make([]string, 0, 3)
		for j, ask := range []func(context.Context, serverKind, string) (string, error){rootRemoved, peerDenied, ticketHeals} {
			answer, err := ask(ctx, d, fmt.Sprintf("%s-%d-%d", dir, i, j))
			if err != nil {
				return fmt.Errorf("asking %s: %w", d.name, err)
			}
			row = append(row, answer)
		}
		t.line("%s\t%s\t%s\t%s\t%s", d.name, d.origin, row[0], row[1], row[2])
	}
	return nil
}

// resumingClient dials one server as one client after the other, with one session cache:
// what a process does whose certificate is renewed.
type resumingClient struct {
	addr  string
	roots identity // whose bundle verifies the server
	cache tls.ClientSessionCache
}

// connect reports whether the server answered, and whether the session was resumed.
func (v resumingClient) connect(ctx context.Context, as identity) (served, resumed bool) {
	conf := &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: v.roots.pool(), ServerName: host,
		Certificates: []tls.Certificate{as.cert}, ClientSessionCache: v.cache,
	}
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", v.addr)
	if err != nil {
		return false, false
	}
	defer func() { _ = raw.Close() }() // nothing is lost with it
	if err := raw.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return false, false
	}
	resumed, err = ping(ctx, tls.Client(raw, conf))
	return err == nil, resumed
}

// scenario is a server that trusts two authorities and a client of each.
type scenario struct {
	resumingClient
	server       runningServer
	old, next    identity
	wide, narrow identity // the server's, trusting both, and trusting the next one only
}

func newScenario(ctx context.Context, d serverKind, dir string) (*scenario, error) {
	before, err := newAuthority("old")
	if err != nil {
		return nil, err
	}
	after, err := newAuthority("next")
	if err != nil {
		return nil, err
	}
	s := &scenario{}
	if s.old, err = before.issue("client", 20); err != nil {
		return nil, err
	}
	if s.next, err = after.issue("client", 21); err != nil {
		return nil, err
	}
	if s.wide, err = after.issue("server", 22); err != nil {
		return nil, err
	}
	s.narrow = s.wide
	s.wide.roots = append(s.wide.roots[:1:1], before.root)
	if s.server, err = d.open(ctx, dir, s.wide); err != nil {
		return nil, err
	}
	s.resumingClient = resumingClient{addr: s.server.addr, roots: s.narrow, cache: tls.NewLRUClientSessionCache(4)}
	// The first visit leaves a ticket, the second shows that the server accepts it.
	if ok, _ := s.connect(ctx, s.old); !ok {
		s.server.close()
		return nil, fmt.Errorf("the first visit was refused")
	}
	if ok, _ := s.connect(ctx, s.old); !ok {
		s.server.close()
		return nil, fmt.Errorf("the second visit was refused")
	}
	return s, nil
}

const (
	refused  = "refused"
	admitted = "ADMITTED"
)

// outcome of a client that should not get in any more.
func (s *scenario) outcome(ctx context.Context) string {
	ok, resumed := s.connect(ctx, s.old)
	switch {
	case ok && resumed:
		return admitted + " by resuming"
	case ok:
		return admitted
	}
	return refused
}

func rootRemoved(ctx context.Context, d serverKind, dir string) (string, error) {
	s, err := newScenario(ctx, d, dir)
	if err != nil {
		return "", err
	}
	defer s.server.close()
	if err := s.server.trust(ctx, s.narrow); err != nil {
		return "", err
	}
	return s.outcome(ctx), nil
}

func peerDenied(ctx context.Context, d serverKind, dir string) (string, error) {
	s, err := newScenario(ctx, d, dir)
	if err != nil {
		return "", err
	}
	defer s.server.close()
	if s.server.deny == nil {
		return "-", nil
	}
	if err := s.server.deny(ctx); err != nil {
		return "", err
	}
	return s.outcome(ctx), nil
}

// ticketHeals: the client has renewed under the root that stays, but its cache
// still offers the ticket of before.
func ticketHeals(ctx context.Context, d serverKind, dir string) (string, error) {
	s, err := newScenario(ctx, d, dir)
	if err != nil {
		return "", err
	}
	defer s.server.close()
	if err := s.server.trust(ctx, s.narrow); err != nil {
		return "", err
	}
	const tries = 5
	good := 0
	for range tries {
		if ok, _ := s.connect(ctx, s.next); ok {
			good++
		}
	}
	return fmt.Sprintf("%d of %d served", good, tries), nil
}
