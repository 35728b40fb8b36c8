package identity

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

func quietUI() *ui.UI {
	return ui.New(ui.Streams{Err: io.Discard, Getenv: func(string) string { return "" }})
}

// One way must be complete, and nothing of the other one may be given.
func TestSource(t *testing.T) {
	files := Options{Cert: "tls.crt", Key: "tls.key", CA: "ca.crt"}
	authority := Options{URL: "https://ca:9443", State: t.TempDir()}
	both, noKey, noCA, noState, cleartext := authority, files, files, authority, authority
	both.Cert, noKey.Key, noCA.CA, noState.State, cleartext.URL = "tls.crt", "", "", "", "http://ca:9443"
	for name, c := range map[string]struct {
		choice Options
		good   bool
	}{
		"files": {files, true}, "authority": {authority, true},
		"nothing": {Options{}, false}, "no key": {noKey, false}, "no bundle": {noCA, false},
		"both": {both, false}, "no state": {noState, false}, "cleartext": {cleartext, false},
	} {
		_, err := source(quietUI(), c.choice, slog.New(slog.DiscardHandler))
		if _, usage := errors.AsType[*ui.UsageError](err); usage == c.good || c.good && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A token that is written to the file later is the one that counts.
func TestTokenIsReadAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	read := tokenSource(quietUI(), path)
	if _, err := read(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file yet: %v", err)
	}
	for _, want := range []string{"first", "second"} {
		if err := os.WriteFile(path, []byte(want+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := read(t.Context()); err != nil || got.Expose() != want {
			t.Errorf("%q, %v; want %q", got.Expose(), err, want)
		}
	}
	if tokenSource(quietUI(), "") != nil {
		t.Error("there is a source of tokens without a file")
	}
}
