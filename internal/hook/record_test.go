package hook

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/durable"
)

func open(t *testing.T, dir string) *Record {
	t.Helper()
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// TestCrashes stops one run of a renewal with a command behind each of its steps, and lets the
// next process look. It owes the command if and only if the files have changed and the command
// has not succeeded.
func TestCrashes(t *testing.T) {
	failure := errors.New("exit status 7")
	onDisk := "one"
	var r *Record
	steps := []struct {
		name string
		do   func() error
		owed bool
	}{
		{"opened", func() error { return nil }, false},
		{"started", func() error { return r.Start(onDisk) }, false},
		{"files replaced", func() error { onDisk = "two"; return nil }, true},
		{"command failed", func() error { return drop(r.Note(onDisk, time.Now(), failure), failure) }, true},
		{"files replaced again", func() error { onDisk = "three"; return nil }, true},
		{"started again", func() error { return r.Start(onDisk) }, true},
		{"command succeeded", func() error { return r.Note(onDisk, time.Now(), nil) }, false},
		{"started a third time", func() error { return r.Start(onDisk) }, false},
		{"files replaced a third time", func() error { onDisk = "four"; return nil }, true},
	}
	for last := range steps {
		t.Run(steps[last].name, func(t *testing.T) {
			dir := t.TempDir()
			onDisk = "one"
			r = open(t, dir)
			for _, s := range steps[:last+1] {
				if err := s.do(); err != nil {
					t.Fatalf("%s: %v", s.name, err)
				}
			}
			if err := r.Close(); err != nil { // what the end of the process does
				t.Fatal(err)
			}
			if next := open(t, dir); next.Owed(onDisk) != steps[last].owed {
				t.Errorf("owed: %v, want %v (%+v)", next.Owed(onDisk), steps[last].owed, next.State())
			}
		})
	}
}

// drop returns err without want, which must be in it.
func drop(err, want error) error {
	if errors.Is(err, want) {
		return nil
	}
	return errors.Join(errors.New("the failure is not returned"), err)
}

func TestNoteOfFailures(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	at := time.Date(2027, 1, 2, 3, 4, 5, 6, time.UTC)
	for range 3 {
		if err := r.Note("one", at, errors.New("no\n\x1b[2J "+strings.Repeat("x", 5000))); err == nil {
			t.Fatal("the failure is not returned")
		}
	}
	_ = r.Close()
	s := open(t, dir).State()
	if s.Failures != 3 || !s.FailedAt.Equal(at.Truncate(time.Second)) || !strings.HasPrefix(s.Failure, "no  [2J xxx") || len(s.Failure) > 500 {
		t.Errorf("got %+v", s)
	}
}

// TestUnreadable: a record that cannot be believed owes the command, and does not stay.
func TestUnreadable(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"empty":     func(dir string) error { return durable.WriteFile(filepath.Join(dir, RecordName), nil, durable.Private) },
		"a newer":   write(`{"version":2,"done":"one"}`),
		"long":      write(`{"version":1,"done":"one"}` + strings.Repeat(" ", maxRecord)),
		"two":       write(`{"version":1,"done":"one"}{}`),
		"a member":  write(`{"version":1,"done":"one","x":1}`),
		"negative":  write(`{"version":1,"done":"one","failures":-1}`),
		"a link":    func(dir string) error { return os.Symlink("/dev/zero", filepath.Join(dir, RecordName)) },
		"the older": func(dir string) error { return durable.WriteFile(filepath.Join(dir, olderName), nil, durable.Private) },
		"both": func(dir string) error {
			return errors.Join(write(`{"version":1,"done":"one"}`)(dir), durable.WriteFile(filepath.Join(dir, olderName), nil, durable.Private))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := spoil(dir); err != nil {
				t.Skip(err) // a system without links
			}
			r := open(t, dir)
			if err := r.Start("one"); err != nil || !r.Owed("one") {
				t.Fatalf("not owed, %v", err)
			}
			if err := r.Note("one", time.Now(), nil); err != nil {
				t.Fatal(err)
			}
			_ = r.Close()
			if next := open(t, dir); next.Owed("one") || !next.Owed("two") {
				t.Errorf("after it has succeeded: %+v", next.State())
			}
		})
	}
}

func write(text string) func(string) error {
	return func(dir string) error {
		return durable.WriteFile(filepath.Join(dir, RecordName), []byte(text), durable.Private)
	}
}

// TestOneProcess: two processes do not run the command of one directory at the same time.
func TestOneProcess(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("this system has no locks that end with the process")
	}
	dir := t.TempDir()
	r := open(t, dir)
	if _, err := Open(dir); !errors.Is(err, ErrBusy) {
		t.Errorf("the second: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	if _, err := Open(filepath.Join(dir, "none")); err == nil {
		t.Error("a directory that does not exist was opened")
	}
}

// TestUnwritable: a record that cannot be written is an error before the files change, and
// beside the failure of the command after that.
func TestUnwritable(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	if err := os.Remove(dir); err != nil {
		t.Skip(err) // a system that keeps open directories
	}
	if err := r.Start("one"); err == nil {
		t.Error("Start has written a record in a directory that is gone")
	}
	failure := errors.New("exit status 7")
	if err := r.Note("two", time.Now(), failure); !errors.Is(err, failure) || !strings.Contains(err.Error(), "writing the record") {
		t.Errorf("got %v", err)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"done":"one"}`))
	f.Add([]byte(`{"version":1,"done":"","failures":2,"failed_at":"2027-01-02T03:04:05Z","failure":"x"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parse(data)
		if err == nil && (s.Version != recordVersion || s.Failures < 0 || strings.Contains(s.Failure, "\n")) {
			t.Errorf("accepted: %+v", s)
		}
	})
}
