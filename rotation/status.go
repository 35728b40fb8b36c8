package rotation

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// Status is what is served now, computed from the generation in effect and not
// from what a source last promised. It holds no key material.
type Status struct {
	Generation  uint64    `json:"generation"`
	Version     string    `json:"version"`     // as the source named it
	Serial      string    `json:"serial"`      // hex
	Fingerprint string    `json:"fingerprint"` // SHA-256 of the leaf, hex
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	PublishedAt time.Time `json:"published_at"`
	Roots       int       `json:"roots"`        // certificates in the trust bundle
	TrustDigest string    `json:"trust_digest"` // hex
	OwnTrusted  bool      `json:"own_trusted"`  // the bundle verifies the own chain
	Overdue     bool      `json:"overdue"`      // should have been renewed by now
	Reason      string    `json:"reason"`       // why overdue, or when it is due

	Others   []OtherStatus `json:"others,omitempty"`   // the other certificates of a server
	Warnings []string      `json:"warnings,omitempty"` // faults that are tolerated: a weak key, a key file that others can read, certificates that are not part of the chain

	WatchMode   string    `json:"watch_mode,omitempty"`  // of a file source: "notify+poll" or "poll"
	WatchError  string    `json:"watch_error,omitempty"` // why it only polls
	LastSuccess time.Time `json:"last_success"`          // a candidate was published, or found unchanged
	LastError   string    `json:"last_error,omitempty"`  // since then
	Failures    int       `json:"failures"`              // in a row, since then
	Refused     uint64    `json:"refused"`               // candidates and reads that failed, repetitions not counted
	HeldUntil   time.Time `json:"held_until,omitzero"`   // a candidate waits for its NotBefore
	NextRenewal time.Time `json:"next_renewal,omitzero"` // of a source that renews

	RevokedLists   int       `json:"revoked_lists"`   // revocation lists in effect
	RevokedSerials int       `json:"revoked_serials"` // certificates on them
	RevokedKept    int       `json:"revoked_kept"`    // that only earlier lists named; they are refused until they have ended. More than 0 for minutes: ask whether the authority lost its record
	RevokedAt      time.Time `json:"revoked_at,omitzero"`
	RevokedStale   bool      `json:"revoked_stale"` // one is past its NextUpdate; it is enforced all the same, and Check fails

	Draining    int           `json:"draining"` // superseded generations still in use
	Connections []Connections `json:"connections,omitempty"`
	Drained     uint64        `json:"drained"` // connections of peers that had to go and went
	Forced      uint64        `json:"forced"`  // connections that had to be cut

	RefusedPeers RefusedPeers `json:"refused_peers"` // by the servers of the identity
}

// Connections counts what is open, by the generation it was opened under.
type Connections struct {
	Generation uint64 `json:"generation"`
	Client     int    `json:"client"` // dialled by transports
	Server     int    `json:"server"` // accepted by listeners
}

// Status reports the state of the identity.
func (id *Identity) Status() Status {
	g, now := id.Current(), time.Now()
	leaf := g.Leaf()
	reason, overdue := lifetime.Overdue(leaf.NotBefore, leaf.NotAfter, now)
	st := Status{
		Generation: g.number, Version: g.version, Serial: pemfile.Serial(leaf), Fingerprint: pemfile.Fingerprint(leaf),
		NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, PublishedAt: g.published,
		Roots: len(g.roots), TrustDigest: g.trust, OwnTrusted: g.untrusted == nil, Overdue: overdue, Reason: reason,
	}
	if r, ok := id.source.(renewer); ok {
		st.NextRenewal = r.NextRenewal()
	}
	st.Connections, st.RefusedPeers = id.connections(), id.refusedPeers()
	id.mu.Lock()
	defer id.mu.Unlock()
	h := id.health
	st.WatchMode, st.WatchError = h.mode, text(h.modeErr)
	st.LastSuccess, st.LastError, st.Failures, st.Refused = h.success, text(h.err), h.failures, h.refused
	st.RevokedLists, st.RevokedSerials, st.RevokedKept = len(id.lists.lists), id.lists.named.Len(), id.lists.kept.Len()
	st.RevokedAt, st.RevokedStale = id.lists.oldest(), id.lists.stale(now) != nil
	st.Drained, st.Forced = id.drained.Load(), id.forced.Load()
	st.Others, st.Warnings = otherStatus(g, h.others, now), slices.Clone(h.warnings)
	if id.held != nil {
		st.HeldUntil = id.held.gen.from()
	}
	st.Draining = len(id.retiring)
	return st
}

// lister is a source that fetches revocation lists, and says why that last failed.
type lister interface{ RevokedError() error }

// renewer is a source that knows when it will have a successor.
type renewer interface{ NextRenewal() time.Time }

// connections counts what is open, oldest generation first.
func (id *Identity) connections() []Connections {
	count := map[uint64]Connections{}
	for _, n := range id.tenures() {
		c := count[n.gen.number]
		c.Client = len(n.connections())
		count[n.gen.number] = c
	}
	id.mu.Lock()
	servers := slices.Clone(id.serving)
	id.mu.Unlock()
	for _, s := range servers {
		for _, conn := range s.served.all() {
			c := count[conn.opened]
			c.Server++
			count[conn.opened] = c
		}
	}
	var out []Connections
	for _, number := range slices.Sorted(maps.Keys(count)) {
		if c := count[number]; c.Client+c.Server > 0 {
			c.Generation = number
			out = append(out, c)
		}
	}
	return out
}

// Check is for readiness probes. It fails when peers would refuse the certificate
// in effect, and after Close. It fails too when a revocation list is past its
// NextUpdate (RFC 5280 §5.1.2.5): from then on peers may be let in that are revoked.
// A failing source alone is no reason, the identity is good until it expires; see
// Status.LastError and Overdue.
func (id *Identity) Check() error {
	g, now := id.Current(), time.Now()
	switch {
	case id.ctx.Err() != nil:
		return fmt.Errorf("checking identity: %w", ErrClosed)
	case g.expired(now):
		return fmt.Errorf("checking identity: the certificate expired at %s", g.until().UTC().Format(time.RFC3339))
	case now.Before(g.from()):
		return fmt.Errorf("checking identity: the certificate is not valid before %s", g.from().UTC().Format(time.RFC3339))
	}
	id.mu.Lock()
	err := id.lists.stale(now)
	id.mu.Unlock()
	if err == nil {
		return nil
	}
	if l, ok := id.source.(lister); ok && l.RevokedError() != nil {
		err = fmt.Errorf("%w: %w", err, l.RevokedError())
	}
	return fmt.Errorf("checking identity: %w", err)
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
