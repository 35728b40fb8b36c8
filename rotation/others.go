package rotation

import (
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/rotation/status"
)

// other is one of Material.Others within a generation. It has its own end: a
// certificate for one name must not take down the service of another one.
type other struct {
	name     string     // stays the same from one generation to the next
	versions []certPair // newest first; the last good one stays beside one that is refused or not valid yet
	refused  error      // why the newest one of the source is not among the versions
	serial   string     // of the newest one of the source, "" if not even that could be read
}

// live are the versions that are in use now or will be.
func (o other) live(now time.Time) []certPair {
	var live []certPair
	for _, p := range o.versions {
		if !now.Before(p.chain[0].NotAfter) {
			continue
		}
		live = append(live, p)
		if !now.Before(p.chain[0].NotBefore) {
			break // what is older will not be used again
		}
	}
	return live
}

// inUse is the version that handshakes choose now: the newest valid one, or one
// that is not valid yet when there is nothing else, for a peer's clock may be ahead.
func (o other) inUse(now time.Time) (p certPair, ok bool) {
	live := o.live(now)
	if len(live) == 0 {
		return certPair{}, false
	}
	if last := live[len(live)-1]; !now.Before(last.chain[0].NotBefore) {
		return last, true
	}
	return live[0], true
}

// newOther judges one of Material.Others by itself. before is what the
// generation in effect has under this name.
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
		// The bundle may have changed since: what stays must still pass.
		if _, err := e.verifyChain(old, before); err == nil {
			o.versions = append(o.versions, old)
		}
	}
	o.versions = o.live(e.now)
	return o
}

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

// otherName names one of Others for logs, and for finding its earlier versions.
func (m Material) otherName(i int) string {
	if len(m.OtherNames) == len(m.Others) {
		return m.OtherNames[i]
	}
	return fmt.Sprintf("Others[%d]", i)
}

// otherError is why the source found one of Others unusable, or nil.
func (m Material) otherError(i int) error {
	if len(m.OtherErrors) == len(m.Others) {
		return m.OtherErrors[i]
	}
	return nil
}

// other finds a certificate by its name; the zero value if there is none.
func (g *Generation) other(name string) other {
	if g == nil {
		return other{}
	}
	i := slices.IndexFunc(g.others, func(o other) bool { return o.name == name })
	if i < 0 {
		return other{}
	}
	return g.others[i]
}

// serving lists the certificates for handshakes of servers, the own first, and
// the next moment at which the list is another one; zero is never.
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

// otherStatus reports the certificates of g, with what was last found wrong with them.
func otherStatus(g *Generation, refused map[string]error, now time.Time) []status.Other {
	var all []status.Other
	for _, o := range g.others {
		st := status.Other{Name: o.name, Error: errText(refused[o.name])}
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

// reportOthers logs what is newly wrong with the certificates of g.
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
		was, is := errText(known[o.name]), errText(o.refused)
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

// superviseOther warns when nothing replaces one of the other certificates in time.
// That handshakes leave it out from its end on is decided at each handshake.
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
