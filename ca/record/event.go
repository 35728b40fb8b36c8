package record

import "time"

// Event is one entry of the log: what happened, to whom, at whose request.
type Event struct {
	ID      int64     `json:"id"`
	At      time.Time `json:"at"`
	Kind    string    `json:"kind"` // one of package kinds
	Caller  string    `json:"caller"`
	Service string    `json:"service,omitempty"`
	Serial  string    `json:"serial,omitempty"` // decimal
	Rule    string    `json:"rule,omitempty"`   // what refused
	Detail  string    `json:"detail,omitempty"`
}

// EABKey is an external account key without its secret. The time of something that has not
// happened is zero.
type EABKey struct {
	ID       string
	Profiles []string // services that its account may have certificates of
	Note     string   // of the operator
	Created  time.Time
	Expires  time.Time // until when an account may be bound
	Account  string    // that was bound, or empty
	Bound    time.Time
	Revoked  time.Time
}
