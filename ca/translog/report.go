package translog

import (
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// Check says what to verify a log against.
type Check struct {
	Verifier Verifier
	// Kept are heads of this log that were kept elsewhere, as [Verifier.Open] returned them.
	Kept []Head
	// Progress, if set, is called after each page of entries.
	Progress func(done, total int64)
}

// Finding is one thing that is wrong with a log, or with the record that it is made of.
type Finding struct {
	Fault   string    `json:"fault"` // altered, backdated, deleted, inserted, moved, rolled back or unsigned
	Index   int64     `json:"index"` // in the log; -1 if there is none
	At      time.Time `json:"at,omitzero"`
	Kind    string    `json:"kind,omitempty"` // of the event
	Service string    `json:"service,omitempty"`
	Serial  string    `json:"serial,omitempty"` // decimal
	Text    string    `json:"text"`             // what is wrong with it
}

// Report is the result of a verification.
type Report struct {
	Head     Head      `json:"-"`
	Size     int64     `json:"size"`    // entries that the head signs
	Checked  int64     `json:"checked"` // entries that were made again from their rows
	Pruned   int64     `json:"pruned"`  // entries whose rows were pruned
	Pending  int64     `json:"pending"` // events that have no place yet; they were made again too
	Findings []Finding `json:"findings"`
	More     int64     `json:"more"` // findings beyond the first 1000
}

// Inclusion is an entry of a log with the proof that a head has it (RFC 6962 §2.1.1).
type Inclusion struct {
	Index   int64
	Leaf    tlog.Hash
	Payload []byte // what the leaf is the hash of; nil if it was pruned
	Proof   []tlog.Hash
}
