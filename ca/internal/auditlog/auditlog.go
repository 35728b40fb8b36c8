// Package auditlog writes a file of JSON lines for log collectors, one line for all that
// the authority has issued, revoked or refused.
//
//	log, err := auditlog.Open(dir, "audit.jsonl")
//	err = log.Write(auditlog.Line{Action: "sign", Outcome: auditlog.Done, Caller: "operator"})
//
// The record is what counts: it is committed before an answer, and the line is written
// after the commit, without a flush. A crash in between loses the line. The caller counts
// and logs a line that cannot be written, and goes on.
//
// Invariants:
//
//   - There is no field for a token, a key or a body (TestAuditLog in ca).
//   - After a reload lines go to the new file, and none is lost (TestAuditLogRotates in ca).
package auditlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/internal/durable"
)

// Log is an open file. All methods work on a nil log, which drops each line. It is safe
// for concurrent use.
type Log struct {
	path string

	mu sync.Mutex
	f  *os.File
}

// Line is one line. There is no field for a token, a key or a body.
type Line struct {
	Time    time.Time `json:"time"`
	Action  string    `json:"action"`            // sign, renew, rekey, revoke, make a token, read the record
	Outcome string    `json:"outcome"`           // done, again (the answer to a repeated request), refused
	Caller  string    `json:"caller"`            // as in the record
	Address string    `json:"address,omitempty"` // of the connection, with its port
	Service string    `json:"service,omitempty"`
	Serial  string    `json:"serial,omitempty"` // decimal
	Rule    string    `json:"rule,omitempty"`   // that refused the request
	Count   int       `json:"count,omitempty"`  // of certificates that an operator has revoked
}

// Outcomes of a line.
const (
	Done    = "done"
	Again   = "again" // the answer to a repeated request
	Refused = "refused"
)

// Open opens the file for appending (0600). An empty path returns nil, which is a log that
// drops each line. A relative path is below dir. Errors are those of opening the file.
func Open(dir, path string) (*Log, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // a nil log drops each line
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, durable.Private)
	if err != nil {
		return nil, fmt.Errorf("opening the audit log: %w", err)
	}
	return &Log{path: path, f: f}, nil
}

// Write appends a line with one system call, so that the lines of several processes do
// not mix (O_APPEND).
func (l *Log) Write(line Line) error {
	if l == nil {
		return nil
	}
	line.Time = time.Now().UTC()
	data, err := json.Marshal(line)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return errors.New("writing to the audit log: it is closed")
	}
	if _, err := l.f.Write(append(data, '\n')); err != nil {
		return fmt.Errorf("writing to the audit log: %w", err)
	}
	return nil
}

// Path is where the file is; empty for a nil log.
func (l *Log) Path() string {
	if l == nil {
		return ""
	}
	return l.path
}

// Close closes the file. Closing twice is harmless.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.f
	if l.f = nil; f == nil {
		return nil
	}
	return f.Close()
}
