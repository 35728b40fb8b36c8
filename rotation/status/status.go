// Package status has the state that a rotation.Identity and a rotation.Trust report, for
// status pages, metrics and readiness probes. It has no key material.
package status

import (
	"iter"
	"time"
)

// Identity is the state of a rotation.Identity. It is computed from the generation in
// effect. Its form in JSON is part of the API.
type Identity struct {
	Generation  uint64    `json:"generation"`
	Version     string    `json:"version"`     // given by the source
	Serial      string    `json:"serial"`      // hex
	Fingerprint string    `json:"fingerprint"` // SHA-256 of the leaf, hex
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	PublishedAt time.Time `json:"published_at"`
	Roots       int       `json:"roots"`        // certificates in the trust bundle
	TrustDigest string    `json:"trust_digest"` // hex
	OwnTrusted  bool      `json:"own_trusted"`  // the bundle verifies the own chain
	Overdue     bool      `json:"overdue"`      // the certificate should have been renewed by now
	Reason      string    `json:"reason"`       // why it is overdue, or when it is due

	Others   []Other  `json:"others,omitempty"`   // the other certificates of a server
	Warnings []string `json:"warnings,omitempty"` // faults that are tolerated: a weak key, a key file that others can read, certificates that are not part of the chain

	WatchMode   string    `json:"watch_mode,omitempty"`  // "notify+poll" or "poll" of a file source; "watch+poll" or "poll" of one that gets certificates from the authority
	WatchError  string    `json:"watch_error,omitempty"` // why it only polls
	LastSuccess time.Time `json:"last_success"`          // when a candidate was last published, or found unchanged
	LastError   string    `json:"last_error,omitempty"`  // since LastSuccess
	Failures    int       `json:"failures"`              // since LastSuccess
	Refused     uint64    `json:"refused"`               // candidates and reads that failed, repetitions not counted
	HeldUntil   time.Time `json:"held_until,omitzero"`   // a candidate waits for its NotBefore
	NextRenewal time.Time `json:"next_renewal,omitzero"` // of a source that renews

	RevokedLists   int       `json:"revoked_lists"`       // revocation lists in effect
	RevokedSerials int       `json:"revoked_serials"`     // certificates on them
	RevokedKept    int       `json:"revoked_kept"`        // certificates that only earlier lists named; they stay refused until they have ended. If it is above 0 for minutes, the authority may have lost its record
	RevokedAt      time.Time `json:"revoked_at,omitzero"` // when the oldest list of an intermediate was signed
	RevokedStale   bool      `json:"revoked_stale"`       // a list is past its NextUpdate; it is still enforced, and Check fails

	Draining    int           `json:"draining"` // superseded generations still in use
	Connections []Connections `json:"connections,omitempty"`
	Drained     uint64        `json:"drained"` // connections that were drained and ended by themselves
	Forced      uint64        `json:"forced"`  // connections that were cut

	RefusedPeers RefusedPeers `json:"refused_peers"` // by the servers of the identity
}

// Connections counts the open connections of one generation.
type Connections struct {
	Generation uint64 `json:"generation"`
	Client     int    `json:"client"` // dialled by transports
	Server     int    `json:"server"` // accepted by listeners
}

// Other is the state of one certificate of Others of a rotation.Material.
type Other struct {
	Name        string    `json:"name"`   // the file, or the index among Others
	Served      bool      `json:"served"` // if false, handshakes leave it out, and the fields about it are empty
	Serial      string    `json:"serial,omitempty"`
	Fingerprint string    `json:"fingerprint,omitempty"` // SHA-256, hex
	NotBefore   time.Time `json:"not_before,omitzero"`
	NotAfter    time.Time `json:"not_after,omitzero"`
	Overdue     bool      `json:"overdue"`         // it should have been renewed by now
	Error       string    `json:"error,omitempty"` // why the newest version is not in use; if Served, an older one is
}

// RefusedPeers counts refusals by the servers of an identity, by reason: of handshakes,
// of requests, and of open connections that were cut because their peer would not be
// admitted now. A refused request and the later cut of its connection count separately. A
// peer that hangs up during the handshake does not count, and neither does a connection
// that reached MaxAge.
type RefusedPeers struct {
	NoCertificate uint64 `json:"no_certificate"` // the peer sent none
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
	RevokedStale bool   `json:"revoked_stale"` // a list is past its NextUpdate; it is still enforced
	LastError    string `json:"last_error,omitempty"`
}
