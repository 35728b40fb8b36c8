package rotation

import (
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/errtext"
	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/rotation/status"
)

// newOther judges one of Material.Others by itself. before is the certificate of this name
// in the generation in effect. Its versions stay behind a new one as long as they are
// valid and pass the checks.
func (e *examination) newOther(i int, before other) other {
	given := e.m.Others[i]
	o := other{name: e.m.otherName(i)}
	p, err := e.judgeOther(i, before)
	if err != nil {
		o.refused = fmt.Errorf("%s: %w", o.name, err)
	} else {
		o.versions = []certPair{p}
	}
	if leaf := given.Leaf; leaf != nil {
		o.serial = certs.Serial(leaf)
	} else if chain, err := parseChain(given.Certificate); err == nil {
		o.serial = certs.Serial(chain[0])
	}
	for _, old := range before.live(e.now) {
		if err == nil && old.chain[0].Equal(p.chain[0]) {
			continue
		}
		// The bundle may have changed since it was accepted.
		if _, err := e.verifyChain(old, before); err == nil {
			o.versions = append(o.versions, old)
		}
	}
	o.versions = o.live(e.now)
	return o
}

// judgeOther checks the certificate i of Material.Others, its key and its chain.
func (e *examination) judgeOther(i int, before other) (certPair, error) {
	if err := e.m.otherError(i); err != nil {
		return certPair{}, err
	}
	p, err := checkPair(e.m.Others[i], e.need&usageServer, e.now) // clients show the first only
	if err != nil {
		return certPair{}, err
	}
	warning, err := e.verifyChain(p, before)
	if warning != nil && e.warning == nil {
		e.warning = warning
	}
	return p, err
}

// serving returns the certificates for handshakes of servers, the own one first. next is
// when this list changes by time alone, zero if it does not.
func (g *Generation) serving(now time.Time) (pairs []certPair, next time.Time) {
	pairs = []certPair{g.own}
	note := func(at time.Time) {
		if now.Before(at) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	for _, o := range g.others {
		for _, p := range o.versions {
			note(p.chain[0].NotBefore)
			note(p.chain[0].NotAfter)
		}
		if p, ok := o.inUse(now); ok {
			pairs = append(pairs, p)
		}
	}
	return pairs, next
}

// otherStatus reports the other certificates of g. refused says why the newest version
// of a name is not in use.
func otherStatus(g *Generation, refused map[string]error, now time.Time) []status.Other {
	var all []status.Other
	for _, o := range g.others {
		st := status.Other{Name: o.name, Error: errtext.Of(refused[o.name])}
		if p, ok := o.inUse(now); ok {
			leaf := p.chain[0]
			st.Served, st.Serial, st.Fingerprint = true, certs.Serial(leaf), certs.Fingerprint(leaf)
			st.NotBefore, st.NotAfter = leaf.NotBefore, leaf.NotAfter
			_, st.Overdue = lifetime.Overdue(leaf.NotBefore, leaf.NotAfter, now)
		} else if st.Error == "" {
			st.Error = o.name + ": the certificate expired"
		}
		all = append(all, st)
	}
	return all
}

// reportOthers logs which of the other certificates of g have a new fault, and which have
// none any more.
func (id *Identity) reportOthers(g *Generation, now time.Time) {
	refused := map[string]error{}
	for _, o := range g.others {
		if o.refused != nil {
			refused[o.name] = o.refused
		}
	}
	id.mu.Lock()
	known := id.health.others
	id.health.others = refused
	id.mu.Unlock()
	for _, o := range g.others {
		was, is := errtext.Of(known[o.name]), errtext.Of(o.refused)
		p, served := o.inUse(now)
		attrs := []any{"file", o.name, "serial", o.serial}
		switch {
		case is == was:
		case is == "":
			id.log.Info("another certificate is good again", attrs...)
		case served:
			id.log.Warn("another certificate refused, the last good one stays",
				append(attrs, "err", o.refused, "last_good", certs.Serial(p.chain[0]), "not_after", p.chain[0].NotAfter)...)
		default:
			id.log.Warn("another certificate refused and left out", append(attrs, "err", o.refused)...)
		}
	}
}

// superviseOther warns if nothing replaces one of the other certificates in time, and when
// it expires. It runs until n is superseded. Handshakes leave an expired certificate out
// by themselves.
func (id *Identity) superviseOther(n *liveGeneration, o other) {
	if len(o.versions) == 0 {
		return
	}
	leaf := o.versions[0].chain[0]
	attrs := []any{"file", o.name, "serial", certs.Serial(leaf), "fingerprint", certs.Fingerprint(leaf), "not_after", leaf.NotAfter}
	if id.stillCurrentAt(n, lifetime.OverdueAt(leaf.NotBefore, leaf.NotAfter)) {
		id.log.Warn("another certificate is not renewed in time", attrs...)
	}
	if id.stillCurrentAt(n, leaf.NotAfter) {
		id.log.Warn("another certificate expired and is left out", attrs...)
	}
}
