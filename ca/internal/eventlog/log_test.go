package eventlog_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
)

func TestLogGrows(t *testing.T) { postgres.Engines(t, logGrows) }

func logGrows(t *testing.T, where string) {
	w := storetest.NewLog(t, where)
	if text := w.Sequence(); text != nil {
		t.Errorf("a head of nothing: %q", text)
	}
	var heads []translog.Head
	for _, n := range []int{1, 2, 300, 5} {
		w.Issue(n)
		w.Sequence()
		heads = append(heads, w.Seen)
	}
	w.Revoke("1002")
	if err := w.Store.Refuse(t.Context(), record.Event{At: w.Start.Add(time.Hour), Caller: "someone", Rule: "names", Detail: "sign"}); err != nil {
		t.Fatal(err)
	}
	report := w.Verify(heads...)
	if report.Size != 308 || report.Checked != 308 || report.Pending != 2 || len(report.Findings) != 0 {
		t.Errorf("before the last head: %+v", report)
	}
	w.Sequence()
	if report = w.Verify(heads...); report.Size != 310 || report.Checked != 310 || report.Pending != 0 || len(report.Findings) != 0 {
		t.Errorf("%+v", report)
	}
	for _, from := range heads {
		proof, err := w.Store.LogConsistency(t.Context(), w.Seen, from.Size, w.Seen.Size)
		if err != nil {
			t.Errorf("from %d: %v", from.Size, err)
			continue
		}
		if err := tlog.CheckTree(proof, w.Seen.Size, w.Seen.Root, from.Size, from.Root); err != nil {
			t.Errorf("from %d: %v", from.Size, err)
		}
	}
	for _, index := range []int64{0, 255, 256, 309} {
		e, err := w.Store.LogEntry(t.Context(), w.Seen, index)
		if err != nil {
			t.Errorf("entry %d: %v", index, err)
			continue
		}
		if err := tlog.CheckRecord(e.Proof, w.Seen.Size, w.Seen.Root, index, tlog.RecordHash(e.Payload)); err != nil {
			t.Errorf("entry %d: %v", index, err)
		}
		if said, err := translog.ParseEntry(e.Payload); err != nil || index < 256 && said.Serial != fmt.Sprint(1001+index) {
			t.Errorf("entry %d: %+v, %v", index, said, err)
		}
	}
	if _, err := w.Store.LogEntry(t.Context(), w.Seen, 310); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("an entry beyond the end: %v", err)
	}
	for _, bad := range [][2]int64{{0, 1}, {5, 4}, {1, 311}} {
		if _, err := w.Store.LogConsistency(t.Context(), w.Seen, bad[0], bad[1]); err == nil {
			t.Errorf("a proof from %d to %d", bad[0], bad[1])
		}
	}
}

// TestOneSequencer: any number of processes on one record make one log.
func TestOneSequencer(t *testing.T) { postgres.Engines(t, oneSequencer) }

func oneSequencer(t *testing.T, where string) {
	w := storetest.NewLog(t, where)
	done := make(chan error)
	for i := range 3 {
		s := storetest.Open(t, where)
		go func() {
			var err error
			for n := range 40 {
				c := storetest.Entry(100*i+n, "storage")
				c.IssuedAt = w.Start
				if _, err = s.Commit(t.Context(), store.Issuance{Certificate: c}); err != nil {
					break
				}
				if _, _, err = s.Sequence(t.Context(), w.Key, translog.Head{}); err != nil {
					break
				}
			}
			done <- err
		}()
	}
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	w.Sequence()
	if report := w.Verify(); report.Checked != 120 || report.Size != 120 || len(report.Findings) > 0 {
		t.Errorf("%+v", report)
	}
}
