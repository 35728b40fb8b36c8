package store_test

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
)

// BenchmarkCommitWithSequencer is BenchmarkCommit while a sequencer gives the
// entries their places, each second as the authority does.
func BenchmarkCommitWithSequencer(b *testing.B) {
	for _, engine := range []string{"sqlite", "postgres"} {
		b.Run(engine+"/16", func(b *testing.B) {
			where := filepath.Join(b.TempDir(), "pki.db")
			if engine == "postgres" {
				where = postgres.Database(b)
			}
			s, stop, done := storetest.Open(b, where), make(chan struct{}), make(chan error)
			go func() { done <- sequenceUntil(b, s, stop) }()
			benchmarkCommit(b, s, 16)
			close(stop)
			if err := <-done; err != nil {
				b.Error(err)
			}
		})
	}
}

func benchKey(t testing.TB) *translog.Key {
	t.Helper()
	key, err := translog.NewKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sequenceUntil(t testing.TB, s *store.Store, stop chan struct{}) error {
	key := benchKey(t)
	for {
		for more := true; more; {
			var err error
			if _, more, err = s.Sequence(t.Context(), key, translog.Head{}); err != nil {
				return err
			}
		}
		select {
		case <-stop:
			return nil
		case <-time.After(time.Second):
		}
	}
}

// BenchmarkLog reads a large log, of 20 000 certificates or ARTSTORE_ROWS: what it
// takes to verify all of it, to prove things about it, and to search.
func BenchmarkLog(b *testing.B) {
	rows := 20_000
	if text := os.Getenv("ARTSTORE_ROWS"); text != "" {
		var err error
		if rows, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	s := storetest.Open(b, filepath.Join(b.TempDir(), "pki.db"))
	fill(b, s, rows)
	stop := make(chan struct{})
	close(stop)
	if err := sequenceUntil(b, s, stop); err != nil {
		b.Fatal(err)
	}
	key := benchKey(b)
	text, err := s.LogHead(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	head, err := key.Verifier().Open(text)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("consistency", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.LogConsistency(b.Context(), head, head.Size/3, head.Size); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("entry", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.LogEntry(b.Context(), head, head.Size/3); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("search", func(b *testing.B) {
		for b.Loop() {
			if page, _, err := s.Search(b.Context(), record.Search{Prefix: "service-17"}); err != nil || len(page) == 0 {
				b.Fatal(len(page), err)
			}
		}
	})
	b.Run("verify", func(b *testing.B) {
		before, entries := cpuTime(b), int64(0)
		for b.Loop() {
			report, err := s.VerifyLog(b.Context(), translog.Check{Verifier: key.Verifier()})
			if err != nil || report.Checked != head.Size { // fill dates its revocations back, and that is found
				b.Fatal(report.Checked, err)
			}
			entries += report.Checked
		}
		b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(entries), "cpu-µs/entry")
	})
}
