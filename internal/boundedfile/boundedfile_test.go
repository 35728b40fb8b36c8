package boundedfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/internal/boundedfile"
)

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := boundedfile.Read(path, 2<<20); err != nil || len(data) != 2<<20 {
		t.Errorf("at the limit: %d bytes, %v", len(data), err)
	}
	for limit, want := range map[int64]string{1 << 20: "1 MiB", 1536 << 10: "1536 KiB"} {
		if _, err := boundedfile.Read(path, limit); err == nil || !strings.Contains(err.Error(), path+" is larger than "+want) {
			t.Errorf("above %d: %v", limit, err)
		}
	}
	if _, err := boundedfile.Read(path+".absent", 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}
