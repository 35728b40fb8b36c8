package statehints_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/translog"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/statehints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// Advice changes neither the text of an error nor what it matches.
func TestErrorsStayTheSame(t *testing.T) {
	dir := t.TempDir() // has parts of an authority and no pki.yaml
	if err := os.MkdirAll(filepath.Join(dir, "secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	lost := fmt.Errorf("opening: %w", &ca.RecordError{Err: translog.ErrForeign})
	plain := errors.New("plain")
	for name, c := range map[string]struct {
		err, got error
		hint     bool
	}{
		"lost":           {lost, statehints.Loss(lost, dir), true},
		"state":          {plain, statehints.StateDir(plain, t.TempDir(), "otherwise"), true},
		"lost state":     {lost, statehints.StateDir(lost, dir, "otherwise"), true},
		"unfinished":     {plain, statehints.Unfinished(plain, dir), true},
		"not unfinished": {plain, statehints.Unfinished(plain, t.TempDir()), false},
	} {
		if !errors.Is(c.got, c.err) || c.got.Error() != c.err.Error() || ui.HasHint(c.got) != c.hint {
			t.Errorf("%s: %v, with advice: %t", name, c.got, ui.HasHint(c.got))
		}
	}
	if err := statehints.Loss(plain, dir); err != nil {
		t.Errorf("an error of another kind is a loss: %v", err)
	}
	if err := statehints.StateDir(nil, dir, "otherwise"); err != nil {
		t.Errorf("no error: %v", err)
	}
}
