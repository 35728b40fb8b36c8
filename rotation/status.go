package rotation

import (
	"fmt"
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

	WatchMode   string    `json:"watch_mode,omitempty"`  // of a file source: "notify+poll" or "poll"
	WatchError  string    `json:"watch_error,omitempty"` // why it only polls
	LastSuccess time.Time `json:"last_success"`          // a candidate was published, or found unchanged
	LastError   string    `json:"last_error,omitempty"`  // since then
	Refused     uint64    `json:"refused"`               // candidates and reads that failed, repetitions not counted
	HeldUntil   time.Time `json:"held_until,omitzero"`   // a candidate waits for its NotBefore
	Draining    int       `json:"draining"`              // superseded generations still in use
}

// Status reports the state of the identity.
func (id *Identity) Status() Status {
	g := id.Current()
	leaf := g.Leaf()
	reason, overdue := lifetime.Overdue(leaf.NotBefore, leaf.NotAfter, time.Now())
	st := Status{
		Generation: g.number, Version: g.version, Serial: pemfile.Serial(leaf), Fingerprint: pemfile.Fingerprint(leaf),
		NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, PublishedAt: g.published,
		Roots: len(g.roots), TrustDigest: g.trust, OwnTrusted: g.untrusted == nil, Overdue: overdue, Reason: reason,
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	h := id.health
	st.WatchMode, st.WatchError = h.mode, text(h.modeErr)
	st.LastSuccess, st.LastError, st.Refused = h.success, text(h.err), h.refused
	if id.held != nil {
		st.HeldUntil = id.held.gen.Leaf().NotBefore
	}
	st.Draining = len(id.retiring)
	return st
}

// Check is for readiness probes: it fails when peers would refuse the
// certificate in effect, and after Close. A failing source alone is no reason,
// the identity is good until it expires; see Status.LastError and Overdue.
func (id *Identity) Check() error {
	leaf, now := id.Current().Leaf(), time.Now()
	switch {
	case id.ctx.Err() != nil:
		return fmt.Errorf("checking identity: %w", ErrClosed)
	case !now.Before(leaf.NotAfter):
		return fmt.Errorf("checking identity: the certificate expired at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("checking identity: the certificate is not valid before %s", leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
