package rotation

import (
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// otherFile says where one of Material.Others comes from, and why it cannot be
// used if its source found it unusable: then the certificate holds the leaf at most.
type otherFile struct {
	name string
	err  error
}

// other is one of Material.Others within a generation. It has its own end: a
// certificate for one name must not take down the service of another one.
type other struct {
	name     string // stays the same from one generation to the next
	versions []pair // newest first; the last good one stays beside one that is refused or not valid yet
	refused  error  // why the newest one of the source is not among the versions
	serial   string // of the newest one of the source, "" if not even that could be read
}

// live are the versions that are in use now or will be.
func (o other) live(now time.Time) []pair {
	var live []pair
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
func (o other) inUse(now time.Time) (p pair, ok bool) {
	live := o.live(now)
	if len(live) == 0 {
		return pair{}, false
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
	o := other{name: e.m.otherFile(i).name}
	p, err := e.judgeOther(i, before)
	if err != nil {
		o.refused = fmt.Errorf("%s: %w", o.name, err)
	} else {
		o.versions = []pair{p}
	}
	if leaf := given.Leaf; leaf != nil {
		o.serial = pemfile.Serial(leaf)
	} else if chain, err := parseChain(given.Certificate); err == nil {
		o.serial = pemfile.Serial(chain[0])
	}
	for _, old := range before.live(e.now) {
		if err == nil && old.chain[0].Equal(p.chain[0]) {
			continue
		}
		// The bundle may have changed since: what stays must still pass.
		if _, err := e.anchor(old, before); err == nil {
			o.versions = append(o.versions, old)
		}
	}
	o.versions = o.live(e.now)
	return o
}

func (e *examination) judgeOther(i int, before other) (pair, error) {
	if err := e.m.otherFile(i).err; err != nil {
		return pair{}, err
	}
	p, err := checkPair(e.m.Others[i], e.need&usageServer, e.now) // clients show the first only
	if err != nil {
		return pair{}, err
	}
	warning, err := e.anchor(p, before)
	if warning != nil && e.warning == nil {
		e.warning = warning
	}
	return p, err
}

// otherFile names one of Others for logs, and for finding its earlier versions.
// Where something changed the list after Files made it, what Files knew is void.
func (m Material) otherFile(i int) otherFile {
	if len(m.others) == len(m.Others) {
		return m.others[i]
	}
	return otherFile{name: fmt.Sprintf("Others[%d]", i)}
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
func (g *Generation) serving(now time.Time) (pairs []pair, next time.Time) {
	pairs = []pair{g.own}
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

// OtherStatus is the state of one certificate of [FileSet.Others] or [Material.Others].
type OtherStatus struct {
	Name        string    `json:"name"`   // the file, or the index among Others
	Served      bool      `json:"served"` // false: it is left out of handshakes, and the fields below are empty
	Serial      string    `json:"serial,omitempty"`
	Fingerprint string    `json:"fingerprint,omitempty"` // SHA-256, hex
	NotBefore   time.Time `json:"not_before,omitzero"`
	NotAfter    time.Time `json:"not_after,omitzero"`
	Overdue     bool      `json:"overdue"`         // should have been renewed by now
	Error       string    `json:"error,omitempty"` // why the newest version is not in use; Served then tells whether an older one is
}

// otherStatus reports the certificates of g, with what was last found wrong with them.
func otherStatus(g *Generation, refused map[string]error, now time.Time) []OtherStatus {
	var all []OtherStatus
	for _, o := range g.others {
		st := OtherStatus{Name: o.name, Error: text(refused[o.name])}
		if p, ok := o.inUse(now); ok {
			leaf := p.chain[0]
			st.Served, st.Serial, st.Fingerprint = true, pemfile.Serial(leaf), pemfile.Fingerprint(leaf)
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
		was, is := text(known[o.name]), text(o.refused)
		p, served := o.inUse(now)
		attrs := []any{"file", o.name, "serial", o.serial}
		switch {
		case is == was:
		case is == "":
			id.log.Info("another certificate is good again", attrs...)
		case served:
			id.log.Warn("another certificate refused, the last good one stays",
				append(attrs, "err", o.refused, "last_good", pemfile.Serial(p.chain[0]), "not_after", p.chain[0].NotAfter)...)
		default:
			id.log.Warn("another certificate refused and left out", append(attrs, "err", o.refused)...)
		}
	}
}

// mindOther warns when nothing replaces one of the other certificates in time.
// That handshakes leave it out from its end on is decided at each handshake.
func (id *Identity) mindOther(n *tenure, o other) {
	if len(o.versions) == 0 {
		return
	}
	leaf := o.versions[0].chain[0]
	attrs := []any{"file", o.name, "serial", pemfile.Serial(leaf), "fingerprint", pemfile.Fingerprint(leaf), "not_after", leaf.NotAfter}
	if id.reaches(n, lifetime.OverdueAt(leaf.NotBefore, leaf.NotAfter)) {
		id.log.Warn("another certificate is not renewed in time", attrs...)
	}
	if id.reaches(n, leaf.NotAfter) {
		id.log.Warn("another certificate expired and is left out", attrs...)
	}
}
