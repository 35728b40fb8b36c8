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

// auditLog is a file of JSON lines for log collectors. The record is what counts: it is
// committed before an answer, and the line is written after the commit, without a flush.
// A crash in between loses the line. A line that cannot be written is counted and
// logged, and the request goes on. All methods work on a nil log.
type auditLog struct {
	path string

	mu sync.Mutex
	f  *os.File
}

// auditLine is one line. There is no field for a token, a key or a body.
type auditLine struct {
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

const (
	outcomeDone    = "done"
	outcomeAgain   = "again"
	outcomeRefused = "refused"
)

// openAuditLog opens the file for appending (0600). An empty path returns nil, which is
// a log that drops each line. A relative path is below dir.
func openAuditLog(dir, path string) (*auditLog, error) {
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
	return &auditLog{path: path, f: f}, nil
}

// write appends a line with one system call, so that the lines of several processes do
// not mix (O_APPEND).
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

// addressKey is the key in a context for the address of the client. Issuing and
// revoking do not see the request, and write the address to the audit log.
type addressKey struct{}

func withAddress(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), addressKey{}, r.RemoteAddr))
}

func addressIn(ctx context.Context) string {
	s, _ := ctx.Value(addressKey{}).(string)
	return s
}
