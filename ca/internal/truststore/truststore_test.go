package truststore_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/truststore"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/pgtest"
)

var postgres pgtest.Server

func TestMain(m *testing.M) {
	defer postgres.Stop()
	m.Run()
}

// TestOneChangeWins stores the same version from several callers at once.
func TestOneChangeWins(t *testing.T) {
	postgres.Engines(t, func(t *testing.T, where string) {
		db, err := sqldb.Create(t.Context(), where)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		s := truststore.New(db)
		refusal := errors.New("somebody would be cut off")
		change := truststore.NextVersion{Version: truststore.Version{Number: 1, Document: []byte("one")}, Event: record.Event{At: time.Now(), Caller: "operator"}}
		refused := change
		refused.Decide = func([]truststore.Holding) error { return refusal }
		if err := s.Change(t.Context(), refused); !errors.Is(err, refusal) {
			t.Errorf("a change that was refused: %v", err)
		}
		if v, err := s.Newest(t.Context()); err != nil || v.Number != 0 {
			t.Errorf("a change that was refused was stored: %+v, %v", v, err)
		}
		var won atomic.Int64
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				switch err := s.Change(t.Context(), change); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, truststore.ErrChanged):
					t.Errorf("a change that lost: %v", err)
				}
			})
		}
		all.Wait()
		if v, err := s.Newest(t.Context()); err != nil || won.Load() != 1 || v.Number != 1 || string(v.Document) != "one" {
			t.Errorf("%d changes were stored; %+v, %v", won.Load(), v, err)
		}
	})
}
