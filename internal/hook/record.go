package hook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/flock"
	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/internal/strictjson"
)

const (
	// RecordName is the file of the record in its directory.
	RecordName = "hook.json"
	// olderName is the empty file by which older versions noted that the command is owed.
	olderName     = "exec.pending"
	maxRecord     = 4 << 10 // bytes
	recordVersion = 1
)

// ErrBusy reports that another process runs the command of the same directory.
var ErrBusy = errors.New("another process runs the command of this directory")

// State is what the file says.
type State struct {
	Version int `json:"version"`
	// Done is the generation for which the command has succeeded, or that was there before
	// there was a command. It is "" if that is not known: the command is owed then.
	Done string `json:"done"`
	// Failures counts the runs that have failed since then; the others are of the last one.
	Failures int       `json:"failures,omitempty"`
	FailedAt time.Time `json:"failed_at,omitzero"`
	Failure  string    `json:"failure,omitempty"`
}

// Record is the memory of the command of one directory. It is for one goroutine.
type Record struct {
	path  string
	dir   *os.File // is locked until Close
	begun bool     // there is a file, whatever it says
	state State
}

// Open opens the record in dir, which must exist, and locks the directory until Close. The
// error is [ErrBusy] if another process has. Where directories cannot be locked, it does without.
// A record that cannot be read is one by which the command is owed.
func Open(dir string) (*Record, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the record of the command: %w", err)
	}
	if busy, err := flock.Try(d, false); err == nil && busy {
		return nil, errors.Join(fmt.Errorf("opening the record of the command in %s: %w", dir, ErrBusy), d.Close())
	}
	r := &Record{path: filepath.Join(dir, RecordName), dir: d, state: State{Version: recordVersion}}
	data, err := readRecord(r.path)
	_, older := os.Lstat(filepath.Join(dir, olderName))
	r.begun = !errors.Is(err, fs.ErrNotExist) || older == nil
	if err == nil {
		if s, err := parse(data); err == nil {
			r.state = s
		}
	}
	if older == nil {
		r.state.Done = ""
	}
	return r, nil
}

func readRecord(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, maxRecord+1))
}

func parse(data []byte) (s State, err error) {
	if err := strictjson.Decode(data, maxRecord, &s); err != nil {
		return State{}, err
	}
	if s.Version != recordVersion || s.Failures < 0 {
		return State{}, fmt.Errorf("version %d, and this program knows version %d", s.Version, recordVersion)
	}
	s.Failure = printable.Line(s.Failure, 2*lineRunes)
	return s, nil
}

// Close unlocks the directory.
func (r *Record) Close() error { return flock.Close(r.dir) }

// State returns what the record says now.
func (r *Record) State() State { return r.state }

// Start begins the record with the generation that is in place, for which no command is owed,
// unless there is a record already. It must come before the first change of the files.
//
// Crash story: a run that was killed before the change leaves a record of the generation in
// place, which owes nothing. One that was killed after it leaves a record of another one.
func (r *Record) Start(generation string) error {
	if r.begun {
		return nil
	}
	return r.write(State{Version: recordVersion, Done: generation})
}

// Owed reports whether the command has yet to succeed for a generation.
func (r *Record) Owed(generation string) bool { return r.begun && r.state.Done != generation }

// Note records how the command ended for a generation at a time, and returns failure joined
// with the error of writing the record. failure is nil if it has succeeded.
func (r *Record) Note(generation string, at time.Time, failure error) error {
	next := State{Version: recordVersion, Done: generation}
	if failure != nil {
		next = State{
			Version: recordVersion, Done: r.state.Done, Failures: r.state.Failures + 1,
			FailedAt: at.UTC().Truncate(time.Second), Failure: printable.Line(failure.Error(), 2*lineRunes),
		}
	}
	return errors.Join(failure, r.write(next))
}

// write replaces the record. The file of an older version goes last: it owes the command, too.
func (r *Record) write(s State) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = durable.WriteFile(r.path, append(data, '\n'), durable.Private)
	}
	if err != nil {
		return fmt.Errorf("writing the record of the command: %w", err)
	}
	r.state, r.begun = s, true
	if err := os.Remove(filepath.Join(filepath.Dir(r.path), olderName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("writing the record of the command: %w", err)
	}
	return nil
}
