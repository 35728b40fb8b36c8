package translog

import "time"

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

// Report is what became of a verification.
type Report struct {
	Head     Head      `json:"-"`
	Size     int64     `json:"size"`    // entries that the head signs
	Checked  int64     `json:"checked"` // entries that were made again from their rows
	Pruned   int64     `json:"pruned"`  // entries whose rows were pruned
	Pending  int64     `json:"pending"` // events that have no place yet; they were made again too
	Findings []Finding `json:"findings"`
	More     int64     `json:"more"` // findings beyond the first 1000
}
