// Package status is what a rotation.Identity and a rotation.Trust report of
// themselves, for status pages, metrics and readiness probes. It holds no key material.
package status

import (
	"iter"
	"time"
)

// Identity is what is served now, computed from the generation in effect and not
// from what a source last promised. It is served as JSON under the names below.
type Identity struct {
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

	Others   []Other  `json:"others,omitempty"`   // the other certificates of a server
	Warnings []string `json:"warnings,omitempty"` // faults that are tolerated: a weak key, a key file that others can read, certificates that are not part of the chain

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

// Other is the state of one certificate of Others of a rotation.Material.
type Other struct {
	Name        string    `json:"name"`   // the file, or the index among Others
	Served      bool      `json:"served"` // false: it is left out of handshakes, and the fields below are empty
	Serial      string    `json:"serial,omitempty"`
	Fingerprint string    `json:"fingerprint,omitempty"` // SHA-256, hex
	NotBefore   time.Time `json:"not_before,omitzero"`
	NotAfter    time.Time `json:"not_after,omitzero"`
	Overdue     bool      `json:"overdue"`         // should have been renewed by now
	Error       string    `json:"error,omitempty"` // why the newest version is not in use; Served then tells whether an older one is
}

// RefusedPeers counts what the servers of an identity refused, by reason:
// handshakes, requests, and open connections that were cut because their peer
// would not be admitted any more. A refused request and the later end of its
// connection count separately. A peer that hangs up during the handshake is not
// counted, nor is a connection that reached MaxAge.
type RefusedPeers struct {
	NoCertificate uint64 `json:"no_certificate"` // the peer sent none, and one is required
	UnknownIssuer uint64 `json:"unknown_issuer"` // its chain leads to no root of the trust bundle
	Expired       uint64 `json:"expired"`        // or not valid yet
	Revoked       uint64 `json:"revoked"`
	Denied        uint64 `json:"denied"`   // by ServerOptions.Authorize
	Protocol      uint64 `json:"protocol"` // no TLS, no common version or protocol, or a key that the peer could not prove
	Other         uint64 `json:"other"`    // the peer refused us or was too slow, its certificate is not for clients, or the fault is our own
}

// All yields the count of each reason under its name in JSON, in the order of the fields.
func (r RefusedPeers) All() iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		for _, n := range []struct {
			reason string
			count  uint64
		}{
			{"no_certificate", r.NoCertificate}, {"unknown_issuer", r.UnknownIssuer}, {"expired", r.Expired},
			{"revoked", r.Revoked}, {"denied", r.Denied}, {"protocol", r.Protocol}, {"other", r.Other},
		} {
			if !yield(n.reason, n.count) {
				return
			}
		}
	}
}

// Trust is the state of a rotation.Trust.
type Trust struct {
	Roots        int    `json:"roots"`         // certificates in the bundle
	TrustDigest  string `json:"trust_digest"`  // hex
	RevokedLists int    `json:"revoked_lists"` // revocation lists in effect
	RevokedStale bool   `json:"revoked_stale"` // one is past its NextUpdate; it is enforced all the same
	LastError    string `json:"last_error,omitempty"`
}
