package spool_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
	"github.com/artstore/artstore-pki/ingestclient/spool"
)

const claimID = "11111111-2222-4333-8444-555555555555"

// claimed makes what a crash leaves: a claim, and lines of the journal.
func (b *fixture) claimed(content string, lines ...string) string {
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

func (b *fixture) journal(text string) {
	b.Helper()
	f, err := os.OpenFile(filepath.Join(b.dir, spool.StateDir, "journal"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	b.must(err)
	_, err = f.WriteString(text)
	b.must(err)
	b.must(f.Close())
}

func rec(op string) string {
	if op == "proven intent" {
		return fmt.Sprintf(`{"op":"intent","id":%q,"name":"a.txt","proven":["unlisted"],"at":"2026-01-01T00:00:00Z"}`, claimID)
	}
	return fmt.Sprintf(`{"op":%q,"id":%q,"name":"a.txt","at":"2026-01-01T00:00:00Z"}`, op, claimID)
}

// TestRecovery starts from each state that a crash can leave, with both kinds of
// element.
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
		{name: "intent from before the proof", lines: []string{"intent"}, ambiguous: 1},
		{name: "intent, not there", lines: []string{"proven intent"}, stored: []string{"a.txt"}},
		{name: "intent, there", lines: []string{"proven intent"}, there: "one", stored: []string{"a.txt"}},
		{name: "intent, other content there", lines: []string{"proven intent"}, there: "two", stored: []string{"a.txt"}, ambiguous: 1},
		{name: "intent, ids of the element", lines: []string{"intent"}, dialect: "go", ambiguous: 1},
		{name: "receipt", lines: []string{"intent", "stored"}},
		{name: "receipt of a kept file", lines: []string{"kept"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newFixture(t, ingesttest.Options{Dialect: tt.dialect})
			if tt.there != "" {
				_, err := b.client.Upload(t.Context(), ingestclient.ReaderContent("a.txt", strings.NewReader(tt.there), int64(len(tt.there))), ingestclient.Meta{FileID: claimID})
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

// TestRecoveryOfHalfSteps starts with a claim without a file, and with a claim that has
// a reason: both were interrupted between two steps.
func TestRecoveryOfHalfSteps(t *testing.T) {
	b := newFixture(t, ingesttest.Options{})
	b.must(os.MkdirAll(filepath.Join(b.dir, spool.StateDir, "claimed", claimID, "file"), 0o700))
	b.write(filepath.Join(spool.StateDir, ".journal.tmp123"), "left by a killed write")
	b.write(filepath.Join(spool.StateDir, "claimed", "notes.txt"), "not ours")
	b.run()
	b.check(nil, 0, 0, 0, 0)
	if left, _ := filepath.Glob(filepath.Join(b.dir, spool.StateDir, ".*")); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	for _, state := range []string{"failed", "ambiguous"} {
		b := newFixture(t, ingesttest.Options{})
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

// TestRecoveryGivesBackWhatIsNoFile puts something else in the place of a file at the
// moment of its claim, before a crash. It is returned, a directory with all its content.
func TestRecoveryGivesBackWhatIsNoFile(t *testing.T) {
	for name, put := range map[string]func(b *fixture, path string){
		"FIFO": func(b *fixture, path string) { b.must(syscall.Mkfifo(path, 0o600)) },
		"link": func(b *fixture, path string) { b.must(os.Symlink("elsewhere", path)) },
		"directory of others": func(b *fixture, path string) {
			b.must(os.Mkdir(path, 0o700))
			b.must(os.WriteFile(filepath.Join(path, "one"), nil, 0o600))
			b.must(os.Chmod(path, 0o777))
		},
		"directory with two files": func(b *fixture, path string) {
			b.must(os.Mkdir(path, 0o700))
			b.must(os.WriteFile(filepath.Join(path, "one"), nil, 0o600))
			b.must(os.WriteFile(filepath.Join(path, "two"), nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newFixture(t, ingesttest.Options{})
			claim := filepath.Join(b.dir, spool.StateDir, "claimed", claimID, "file", "thing")
			b.must(os.MkdirAll(filepath.Dir(claim), 0o700))
			put(b, claim)
			was := tree(t, claim)
			b.run()
			back := filepath.Join(b.dir, "thing")
			if now := tree(t, back); !slices.Equal(now, was) {
				t.Errorf("came back as %q, was %q", now, was)
			}
			if st := b.status(); len(st.Claimed)+len(st.Failed) != 0 {
				t.Errorf("%+v", st)
			}

			// Its name is taken: it is put aside, and holds up nothing.
			b.must(os.MkdirAll(filepath.Dir(claim), 0o700))
			b.must(os.Rename(back, claim))
			b.write("thing", "another")
			b.run()
			b.check([]string{"thing"}, 0, 0, 1, 0)
			if now := tree(t, filepath.Join(b.dir, spool.StateDir, "failed", claimID, "file", "thing")); !slices.Equal(now, was) {
				t.Errorf("put aside as %q, was %q", now, was)
			}
		})
	}
}

// TestClaimWithTwoFilesStopsTheStart expects that a claim with more than one file stops
// the start: otherwise one would be sent, and the others removed with it.
func TestClaimWithTwoFilesStopsTheStart(t *testing.T) {
	b := newFixture(t, ingesttest.Options{})
	path := b.claimed("one")
	b.must(os.WriteFile(path+".copy", nil, 0o600))
	if s, err := spool.Open(b.cfg); err == nil || !strings.Contains(err.Error(), "holds more than the file") {
		t.Errorf("%v", err)
		_ = s.Close()
	}
}

// TestRecoveryOfAClaimThatWasGivenBack expects that a file that has both names is sent
// once, because its claim was being returned.
func TestRecoveryOfAClaimThatWasGivenBack(t *testing.T) {
	for _, lines := range [][]string{nil, {rec("intent"), rec("unsent")}} {
		b := newFixture(t, ingesttest.Options{Dialect: "go"})
		claim := b.claimed("one", lines...)
		b.must(os.Link(claim, filepath.Join(b.dir, "a.txt")))
		b.run()
		b.check([]string{"a.txt"}, 0, 0, 0, 0)
	}
}

// TestStateThatIsReplacedIsNoticed expects that no file is claimed while the path of the
// state leads to another directory.
func TestStateThatIsReplacedIsNoticed(t *testing.T) {
	b := newFixture(t, ingesttest.Options{})
	s, _ := b.start()
	b.write("a.txt", "one")
	b.until("stored", func() bool { return len(b.stack.Files()) == 1 })
	state, away := filepath.Join(b.dir, spool.StateDir), filepath.Join(b.dir, ".away")
	b.must(os.Rename(state, away))
	b.must(os.Mkdir(state, 0o700))
	b.until("noticed", func() bool { return s.Snapshot().Reason == "directory" })
	b.write("b.txt", "two")
	b.until("waits", func() bool { return s.Ready() != nil })
	if left, err := os.ReadDir(state); err != nil || len(left) != 0 {
		t.Errorf("in the other state: %v, %v", left, err)
	}
	b.must(os.Remove(state))
	b.must(os.Rename(away, state))
	b.until("stored again", func() bool { return len(b.stack.Files()) == 2 && len(b.status().Claimed) == 0 && s.Ready() == nil })
	b.check([]string{"a.txt", "b.txt"}, 0, 0, 0, 0)
}

// TestSwappedClaimIsNotSent expects that only the claimed file is sent, and neither the
// target of a link nor another file.
func TestSwappedClaimIsNotSent(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	for name, swap := range map[string]func(path string) error{
		"link": func(path string) error { return os.Symlink(secret, path) },
		"fifo": func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"file": func(path string) error { return os.WriteFile(path, []byte("another"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newFixture(t, ingesttest.Options{})
			b.must(os.WriteFile(secret, []byte("secret"), 0o600))
			path := b.claimed("one")
			s, err := spool.Open(b.cfg)
			b.must(err)
			b.must(os.Remove(path))
			b.must(swap(path))
			ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
			defer stop()
			b.must(s.Run(ctx))
			b.must(s.Close())
			for _, f := range b.stack.Files() {
				if name != "file" {
					t.Errorf("stored %+v", f)
				}
			}
		})
	}
}

// TestDirectoryBehindLinks uses a path with links to the directory.
func TestDirectoryBehindLinks(t *testing.T) {
	b := newFixture(t, ingesttest.Options{})
	parent := t.TempDir()
	b.must(os.Symlink(b.dir, filepath.Join(parent, "link")))
	b.must(os.Symlink(parent, filepath.Join(parent, "up")))
	direct := b.dir
	for i, dir := range []string{filepath.Join(parent, "link"), filepath.Join(parent, "link") + "/", filepath.Join(parent, "up", "link")} {
		b.dir = direct
		b.write(fmt.Sprint(i), "content")
		b.dir, b.cfg.Dir = dir, dir
		if st := b.status(); len(st.Waiting) != 1 {
			t.Errorf("%s: waiting %+v", dir, st.Waiting)
		}
		b.run()
		if n := len(b.stack.Files()); n != i+1 {
			t.Errorf("%s: %d stored", dir, n)
		}
	}
}

func TestUnreadableReasonStopsTheStart(t *testing.T) {
	b := newFixture(t, ingesttest.Options{})
	b.claimed("one")
	for _, bad := range []string{"{", `{"state":"elsewhere"}`} {
		b.write(filepath.Join(spool.StateDir, "claimed", claimID, "reason.json"), bad)
		if s, err := spool.Open(b.cfg); err == nil || !strings.Contains(err.Error(), "reason.json") {
			t.Errorf("%s: %v", bad, err)
			_ = s.Close()
		}
	}
}

// TestDamagedJournal expects that a torn tail is no damage. After damage before the end,
// claims without a record count as sent. With KeepSource damage stops the start, because
// only the journal knows which files are stored.
func TestDamagedJournal(t *testing.T) {
	b := newFixture(t, ingesttest.Options{Dialect: "go"})
	b.claimed("one")
	b.journal(line(rec("stored"))[:30])
	b.run()
	b.check([]string{"a.txt"}, 0, 0, 0, 0)

	// A whole line with another content is no crash: with keep it is a receipt.
	b = newFixture(t, ingesttest.Options{})
	b.cfg.OnSuccess = spool.KeepSource
	b.write("a.txt", "one")
	b.run()
	path := filepath.Join(b.dir, spool.StateDir, "journal")
	raw, err := os.ReadFile(path)
	b.must(err)
	i := strings.LastIndex(string(raw), `"crc":"`) + len(`"crc":"`)
	raw[i] = map[bool]byte{true: '1', false: '0'}[raw[i] == '0']
	b.must(os.WriteFile(path, raw, 0o600))
	if _, err := spool.Open(b.cfg); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("an altered last line, with keep: %v", err)
	}

	b = newFixture(t, ingesttest.Options{Dialect: "go"})
	b.claimed("one")
	b.journal("garbage\n" + strings.ReplaceAll(line(`{"op":"intent","id":"other","at":"2026-01-01T00:00:00Z"}`), "x", "x"))
	keep := b.cfg
	keep.OnSuccess = spool.KeepSource
	if _, err := spool.Open(keep); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("with keep: %v", err)
	}
	b.run()
	b.check(nil, 0, 0, 0, 1)
	if _, err := os.Stat(filepath.Join(b.dir, spool.StateDir, "journal.damaged")); err != nil {
		t.Error(err)
	}
}

// TestRecoveredReceiptIsWhole expects that a claim whose answer was lost is hashed, and
// that the event has this digest.
func TestRecoveredReceiptIsWhole(t *testing.T) {
	b := newFixture(t, ingesttest.Options{})
	_, err := b.client.Upload(t.Context(), ingestclient.ReaderContent("a.txt", strings.NewReader("one"), int64(len("one"))), ingestclient.Meta{FileID: claimID})
	b.must(err)
	b.claimed("one", rec("proven intent"))
	b.run()
	want := fmt.Sprintf("%x", sha256.Sum256([]byte("one")))
	if len(b.events) != 1 || b.events[0].SHA256 != want || b.events[0].FileID != claimID {
		t.Errorf("events %+v", b.events)
	}
}
