// Package status has the state of a spool: the values that a running spool writes to
// state.json, and those that `ingest status` prints. The names in JSON are part of the API.
package status

import "time"

// Snapshot is the state of a running spool. It is written to the state directory once a
// second at most.
type Snapshot struct {
	PID       int       `json:"pid"`
	At        time.Time `json:"at"`
	State     string    `json:"state"`            // "running", "paused", "stopped"
	Reason    string    `json:"reason,omitempty"` // why nothing is sent or claimed, in one of the words of docs/ingest.md
	Error     string    `json:"error,omitempty"`
	Since     time.Time `json:"since,omitzero"` // of the pause
	Next      time.Time `json:"next,omitzero"`  // when the elements are tried next
	Waiting   int       `json:"waiting"`        // files that are not claimed yet, at the last scan
	Claimed   int       `json:"claimed"`
	Uploading int       `json:"uploading"`
	Oldest    float64   `json:"oldest_seconds"` // age of the oldest waiting file
	Stored    int64     `json:"stored"`         // since the start, as the next three
	Bytes     int64     `json:"bytes"`
	Failed    int64     `json:"failed"`
	Ambiguous int64     `json:"ambiguous"`
}

// Report is the state of a spool as its files tell it, whether or not it runs.
type Report struct {
	Dir       string    `json:"dir"`
	Running   bool      `json:"running"`
	Last      *Snapshot `json:"last,omitempty"` // nil: it never ran
	Waiting   []Item    `json:"waiting"`
	Claimed   []Item    `json:"claimed"`
	Failed    []Item    `json:"failed"`
	Ambiguous []Item    `json:"ambiguous"`
}

// Item is one file of a spool.
type Item struct {
	ID       string    `json:"id,omitempty"` // of the claim
	FileID   string    `json:"file_id,omitempty"`
	Name     string    `json:"name"`
	Size     int64     `json:"size"` // bytes
	Modified time.Time `json:"modified,omitzero"`
	Since    time.Time `json:"since,omitzero"` // when it was quarantined
	Error    string    `json:"error,omitempty"`
	Advice   string    `json:"advice,omitempty"`
	Attempts int       `json:"attempts,omitempty"`
}
