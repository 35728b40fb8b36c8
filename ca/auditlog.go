package ca

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/internal/durable"
)

// auditLog is a file of JSON lines for log collectors. The record stays
// the truth: it is committed before an answer, and a line is written after it
// without a flush. A line that cannot be written stops nothing; it is counted and
// said in the program's log. All methods work on a nil log.
type auditLog struct {
	path string

	mu sync.Mutex
	f  *os.File
}

// auditLine is one line. There is no field for a token, a key or a body.
type auditLine struct {
	Time    time.Time `json:"time"`
	Action  string    `json:"action"`            // sign, renew, rekey, revoke
	Outcome string    `json:"outcome"`           // done, again (a lost answer given once more), refused
	Caller  string    `json:"caller"`            // as it stands in the record
	Address string    `json:"address,omitempty"` // of the connection
	Service string    `json:"service,omitempty"`
	Serial  string    `json:"serial,omitempty"` // decimal
	Rule    string    `json:"rule,omitempty"`   // what refused
	Count   int       `json:"count,omitempty"`  // of a set that was revoked at once
}

const (
	outcomeDone    = "done"
	outcomeAgain   = "again"
	outcomeRefused = "refused"
)

// openAuditLog opens the file to append to it (0600). An empty path is no log. A
// relative one is below the state directory.
func openAuditLog(dir, path string) (*auditLog, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // a nil log is a log to nowhere
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, durable.Private)
	if err != nil {
		return nil, fmt.Errorf("opening the audit log: %w", err)
	}
	return &auditLog{path: path, f: f}, nil
}

// write appends a line by one call, so that several processes can share the file.
func (l *auditLog) write(line auditLine) error {
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

func (l *auditLog) Close() error {
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

// addressKey carries the address of a request to where its fate is decided.
type addressKey struct{}

func withAddress(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), addressKey{}, r.RemoteAddr))
}

func addressIn(ctx context.Context) string {
	s, _ := ctx.Value(addressKey{}).(string)
	return s
}
