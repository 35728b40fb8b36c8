package filewatch_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/filewatch"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until calls done after each change, until it returns true.
func until(t *testing.T, w *filewatch.Watcher, done func() bool) {
	t.Helper()
	for late := time.After(time.Minute); !done(); {
		select {
		case <-w.Changes():
		case <-late:
			t.Fatal("nothing was told")
		}
	}
}

// A watcher that was asked for names tells each path once, and says when there were too many.
func TestNamed(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	w, err := filewatch.NewNamed(3)
	must(t, err)
	defer w.Close()
	must(t, w.SetDirs([]string{dir, other, filepath.Join(dir, "absent")}))
	if w.Watched() != 2 {
		t.Errorf("%d directories are watched", w.Watched())
	}
	one, two := filepath.Join(dir, "one"), filepath.Join(other, "two")
	must(t, os.WriteFile(one, nil, 0o600))
	must(t, os.WriteFile(one, []byte("more"), 0o600))
	must(t, os.WriteFile(two, nil, 0o600))
	var got []string
	until(t, w, func() bool {
		names, lost := w.Take()
		if lost {
			t.Error("lost")
		}
		got = append(got, names...)
		return slices.Contains(got, one) && slices.Contains(got, two)
	})
	kept := 0
	must(t, os.WriteFile(one, nil, 0o600)) // the first change
	until(t, w, func() bool {
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			must(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
		}
		time.Sleep(10 * time.Millisecond) // so that many are told at once
		names, lost := w.Take()
		kept = max(kept, len(names))
		return lost
	})
	if kept > 3 {
		t.Errorf("%d names are kept", kept)
	}
}
