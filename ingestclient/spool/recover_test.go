package spool_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
	"github.com/artstore/artstore-pki/ingestclient/spool"
)

const claimID = "11111111-2222-4333-8444-555555555555"

// claimed makes what a crash leaves: a claim, and lines of the journal.
func (b *bench) claimed(content string, lines ...string) string {
	b.Helper()
	path := b.write(filepath.Join(spool.StateDir, "claimed", claimID, "file", "a.txt"), content)
	for _, rec := range lines {
		b.journal(line(rec))
	}
	return path
}

func line(rec string) string {
	return fmt.Sprintf(`{"crc":"%08x","rec":%s}`+"\n", crc32.Checksum([]byte(rec), crc32.MakeTable(crc32.Castagnoli)), rec)
}

func (b *bench) journal(text string) {
	b.Helper()
	f, err := os.OpenFile(filepath.Join(b.dir, spool.StateDir, "journal"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	b.must(err)
	_, err = f.WriteString(text)
	b.must(err)
	b.must(f.Close())
}

func rec(op string) string {
	return fmt.Sprintf(`{"op":%q,"id":%q,"name":"a.txt","at":"2026-01-01T00:00:00Z"}`, op, claimID)
}

// TestRecovery starts from each state that a crash can leave, at both kinds of element.
func TestRecovery(t *testing.T) {
	for _, tt := range []struct {
		name      string
		lines     []string
		there     string // content that the element has under the id
		dialect   string
		stored    []string
		ambiguous int
	}{
		{name: "claimed only", stored: []string{"a.txt"}},
		{name: "claimed only, ids of the element", dialect: "go", stored: []string{"a.txt"}},
		{name: "unsent", lines: []string{"intent", "unsent"}, dialect: "go", stored: []string{"a.txt"}},
		{name: "intent, not there", lines: []string{"intent"}, stored: []string{"a.txt"}},
		{name: "intent, there", lines: []string{"intent"}, there: "one", stored: []string{"a.txt"}},
		{name: "intent, other content there", lines: []string{"intent"}, there: "two", stored: []string{"a.txt"}, ambiguous: 1},
		{name: "intent, ids of the element", lines: []string{"intent"}, dialect: "go", ambiguous: 1},
		{name: "receipt", lines: []string{"intent", "stored"}},
		{name: "receipt of a kept file", lines: []string{"kept"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, ingesttest.Options{Dialect: tt.dialect})
			if tt.there != "" {
				_, err := b.client.Upload(t.Context(), ingestclient.BytesContent("a.txt", []byte(tt.there)), ingestclient.Meta{FileID: claimID})
				b.must(err)
			}
			var lines []string
			for _, op := range tt.lines {
				lines = append(lines, rec(op))
			}
			b.claimed("one", lines...)
			b.run()
			b.check(tt.stored, 0, 0, 0, tt.ambiguous)
			if tt.dialect == "" && len(tt.stored) == 1 && b.stack.Files()[0].ID != claimID {
				t.Error("sent under another id than the one before")
			}
		})
	}
}

// A claim without a file, or with a reason, was interrupted between two steps.
func TestRecoveryOfHalfSteps(t *testing.T) {
	b := newBench(t, ingesttest.Options{})
	b.must(os.MkdirAll(filepath.Join(b.dir, spool.StateDir, "claimed", claimID, "file"), 0o700))
	b.write(filepath.Join(spool.StateDir, ".journal.tmp123"), "left by a killed write")
	b.write(filepath.Join(spool.StateDir, "claimed", "notes.txt"), "not ours")
	b.run()
	b.check(nil, 0, 0, 0, 0)
	if left, _ := filepath.Glob(filepath.Join(b.dir, spool.StateDir, ".*")); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	for _, state := range []string{"failed", "ambiguous"} {
		b := newBench(t, ingesttest.Options{})
		b.claimed("one", rec("intent"))
		raw, err := json.Marshal(map[string]string{"state": state, "id": claimID, "error": "it was so"})
		b.must(err)
		b.write(filepath.Join(spool.StateDir, "claimed", claimID, "reason.json"), string(raw))
		b.run()
		st := b.status()
		if list := append(st.Failed, st.Ambiguous...); len(list) != 1 || list[0].Error != "it was so" || len(b.stack.Files()) != 0 {
			t.Errorf("%s: %+v", state, st)
		}
	}
}

func TestRecoveryGivesBackWhatIsNoFile(t *testing.T) {
	b := newBench(t, ingesttest.Options{})
	b.must(os.MkdirAll(filepath.Join(b.dir, spool.StateDir, "claimed", claimID, "file"), 0o700))
	b.must(syscall.Mkfifo(filepath.Join(b.dir, spool.StateDir, "claimed", claimID, "file", "fifo"), 0o600))
	b.run()
	if info, err := os.Lstat(filepath.Join(b.dir, "fifo")); err != nil || info.Mode().IsRegular() {
		t.Errorf("the FIFO: %v, %v", info, err)
	}
}

func TestUnreadableReasonStopsTheStart(t *testing.T) {
	b := newBench(t, ingesttest.Options{})
	b.claimed("one")
	for _, bad := range []string{"{", `{"state":"elsewhere"}`} {
		b.write(filepath.Join(spool.StateDir, "claimed", claimID, "reason.json"), bad)
		if s, err := spool.Open(b.cfg); err == nil || !strings.Contains(err.Error(), "reason.json") {
			t.Errorf("%s: %v", bad, err)
			_ = s.Close()
		}
	}
}

// A torn tail is what a crash leaves. Damage before the end makes claims without
// a record count as sent, and with keep, where the journal alone knows what is
// stored, it stops the start.
func TestDamagedJournal(t *testing.T) {
	b := newBench(t, ingesttest.Options{Dialect: "go"})
	b.claimed("one")
	b.journal(line(rec("stored"))[:30])
	b.run()
	b.check([]string{"a.txt"}, 0, 0, 0, 0)

	b = newBench(t, ingesttest.Options{Dialect: "go"})
	b.claimed("one")
	b.journal("garbage\n" + strings.ReplaceAll(line(`{"op":"intent","id":"other","at":"2026-01-01T00:00:00Z"}`), "x", "x"))
	keep := b.cfg
	keep.OnSuccess = spool.Keep
	if _, err := spool.Open(keep); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("with keep: %v", err)
	}
	b.run()
	b.check(nil, 0, 0, 0, 1)
	if _, err := os.Stat(filepath.Join(b.dir, spool.StateDir, "journal.damaged")); err != nil {
		t.Error(err)
	}
}

// A claim that a crash of the element's answer left is hashed; the digest in
// the event is that of the content.
func TestRecoveredReceiptIsWhole(t *testing.T) {
	b := newBench(t, ingesttest.Options{})
	_, err := b.client.Upload(t.Context(), ingestclient.BytesContent("a.txt", []byte("one")), ingestclient.Meta{FileID: claimID})
	b.must(err)
	b.claimed("one", rec("intent"))
	b.run()
	want := fmt.Sprintf("%x", sha256.Sum256([]byte("one")))
	if len(b.events) != 1 || b.events[0].SHA256 != want || b.events[0].FileID != claimID {
		t.Errorf("events %+v", b.events)
	}
}
