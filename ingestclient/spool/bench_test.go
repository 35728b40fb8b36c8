package spool

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/artstore/artstore-pki/ingestclient/spool/internal/fileat"
	"github.com/artstore/artstore-pki/internal/uuid"
)

// BenchmarkClaim is what one small file costs beside its upload and what waits
// for the disk: it is claimed, opened, compared and dropped.
func BenchmarkClaim(b *testing.B) {
	dir := b.TempDir()
	s, err := Open(Config{Dir: dir, Uploader: failingUploader{}, Logger: slog.New(slog.DiscardHandler)})
	must(b, err)
	path := filepath.Join(dir, "a")
	for b.Loop() {
		b.StopTimer()
		must(b, os.WriteFile(path, []byte("x"), 0o600))
		info, err := os.Lstat(path)
		must(b, err)
		b.StartTimer()
		it := &item{id: uuid.New(), name: "a", seen: fileat.IDOf(info)}
		must(b, s.layout.claimFile(it.id, it.name, it.seen))
		f, err := s.openClaim(it)
		must(b, err)
		must(b, (&claimReader{f, &claimContent{spool: s, item: &item{id: it.id, name: it.name, seen: it.seen, open: true}}, it.seen}).Unchanged())
		must(b, f.Close())
		must(b, s.layout.removeClaim(it.id))
	}
	must(b, s.Close())
}
