package eventlog_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
)

// TestBegin: the first head makes a record, once.
func TestBegin(t *testing.T) { postgres.Engines(t, begin) }

func begin(t *testing.T, where string) {
	s, key, other := storetest.Open(t, where), storetest.LogKey(t, 7), storetest.LogKey(t, 8)
	if _, _, err := s.Resume(t.Context(), key.Verifier(), translog.Head{}); !errors.Is(err, store.ErrNoHead) {
		t.Errorf("before: %v", err)
	}
	if empty, err := s.Empty(t.Context()); err != nil || !empty {
		t.Errorf("before: %v", err)
	}
	head, err := s.Begin(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	text, newest, err := s.Resume(t.Context(), key.Verifier(), translog.Head{})
	var tree translog.Tree
	if err != nil || !bytes.Equal(text, head) || newest.Size != 0 || newest.Root != tree.Root() {
		t.Errorf("%q %v %v", text, newest, err)
	}
	if empty, err := s.Empty(t.Context()); err != nil || empty {
		t.Errorf("after: %v", err)
	}
	if _, err := s.Begin(t.Context(), other); !errors.Is(err, store.ErrNotEmpty) {
		t.Errorf("twice: %v", err)
	}
	if _, _, err := s.Resume(t.Context(), other.Verifier(), translog.Head{}); !errors.Is(err, translog.ErrForeign) {
		t.Errorf("by another key: %v", err)
	}
	if err := s.Tell(t.Context(), record.Event{At: time.Now(), Kind: kinds.Restored, Caller: "operator"}); err != nil {
		t.Error(err)
	}
	if text, more, err := s.Sequence(t.Context(), key, newest); err != nil || more || bytes.Equal(text, head) {
		t.Errorf("%q %v", text, err)
	}
}

// TestWithdraw: a beginning is taken back only by the head that it made, and only while
// nothing was recorded.
func TestWithdraw(t *testing.T) { postgres.Engines(t, withdraw) }

func withdraw(t *testing.T, where string) {
	s, key := storetest.Open(t, where), storetest.LogKey(t, 7)
	begin := func() []byte {
		t.Helper()
		head, err := s.Begin(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		return head
	}
	withdrawn := func(head []byte) bool {
		t.Helper()
		if err := s.Withdraw(t.Context(), head); err != nil {
			t.Fatal(err)
		}
		empty, err := s.Empty(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return empty
	}
	head := begin()
	if withdrawn([]byte("another head")) {
		t.Error("another head took the beginning back")
	}
	if !withdrawn(head) {
		t.Error("its own head did not take the beginning back")
	}
	head = begin()
	if err := s.Tell(t.Context(), record.Event{At: time.Now(), Kind: kinds.Restored, Caller: "operator"}); err != nil {
		t.Fatal(err)
	}
	if withdrawn(head) {
		t.Error("a log with an event in it was taken back")
	}
}

// TestBeginOverLeaves: a log that lost its head is damaged, and not begun anew.
func TestBeginOverLeaves(t *testing.T) { postgres.Engines(t, beginOverLeaves) }

func beginOverLeaves(t *testing.T, where string) {
	w := storetest.NewLog(t, where)
	w.Issue(2)
	w.Sequence()
	w.Tamper(`DELETE FROM log_state`)
	if _, err := w.Store.Begin(t.Context(), w.Key); !errors.Is(err, store.ErrNotEmpty) {
		t.Errorf("begun: %v", err)
	}
	if _, _, err := w.Store.Sequence(t.Context(), w.Key, w.Seen); !errors.Is(err, store.ErrRolledBack) {
		t.Errorf("went on: %v", err)
	}
	w.Tamper(`DELETE FROM log_entries`)
	w.Tamper(`DELETE FROM revocation_mark`)
	if _, err := storetest.Open(t, where).Begin(t.Context(), w.Key); err != nil {
		t.Error(err)
	}
	if err := storetest.Open(t, where).Revoke(t.Context(), store.RevokeRequest{Revocation: record.Revocation{Serial: "1001", RevokedAt: storetest.Base}}); err != nil {
		t.Errorf("revoking after all tables of numbers were emptied: %v", err)
	}
}

// TestResume: the log of the record goes on from a kept head, or is refused.
func TestResume(t *testing.T) { postgres.Engines(t, resume) }

func resume(t *testing.T, where string) {
	w := storetest.NewLog(t, where)
	var kept []translog.Head
	for _, n := range []int{1, 299, 400} {
		w.Issue(n)
		w.Sequence()
		kept = append(kept, w.Seen)
	}
	v := w.Key.Verifier()
	for _, h := range append(kept, translog.Head{}) {
		if _, newest, err := w.Store.Resume(t.Context(), v, h); err != nil || newest.Size != 700 {
			t.Errorf("from %d: %v", h.Size, err)
		}
	}
	ahead, forked, beside := kept[2], kept[1], kept[2]
	ahead.Size++
	forked.Root[0] ^= 1
	beside.Root[0] ^= 1
	for name, h := range map[string]translog.Head{"ahead": ahead, "forked": forked, "beside": beside} {
		if _, _, err := w.Store.Resume(t.Context(), v, h); !errors.Is(err, store.ErrRolledBack) || !errors.Is(err, store.ErrLog) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.Tamper(`UPDATE log_state SET edge = %s`, []byte{1}) // stops the signing, but the record is this one
	if _, _, err := w.Store.Resume(t.Context(), v, kept[1]); err != nil {
		t.Errorf("with a damaged edge: %v", err)
	}
	w.Tamper(`DELETE FROM log_entries WHERE idx BETWEEN 256 AND 300`)
	if _, _, err := w.Store.Resume(t.Context(), v, kept[1]); !errors.Is(err, store.ErrRolledBack) {
		t.Errorf("without its leaves: %v", err)
	}
}
