package spool_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
	"github.com/artstore/artstore-pki/ingestclient/spool"
)

// alteredUploader is the real client, but the test can replace its answer, before the
// upload or after it: a real element cannot be made to lose its answer at that point.
type alteredUploader struct {
	next          spool.Uploader
	before, after func(name string) error
}

func (s alteredUploader) Upload(ctx context.Context, content ingestclient.Content, meta ingestclient.Meta) (*ingestclient.File, error) {
	fail := func(err error) error {
		return &ingestclient.RequestError{Op: "uploading", Name: content.Name(), Attempt: 1, Err: err}
	}
	if err := s.before(content.Name()); err != nil {
		return nil, fail(err)
	}
	rec, err := s.next.Upload(ctx, content, meta)
	if err != nil {
		return nil, err
	}
	if err := s.after(content.Name()); err != nil {
		return nil, fail(err)
	}
	return rec, nil
}

// past makes a new directory with a file in each state, all of which but the
// refused one the element has: stored, ambiguous, refused, and interrupted behind
// its intent. Their names begin with round.
func (b *fixture) past(round string, again bool) {
	b.Helper()
	b.dir = b.TempDir()
	b.cfg.Dir = b.dir
	usual := b.cfg.Uploader
	b.cfg.Uploader = alteredUploader{
		next:   b.client,
		before: func(name string) error { return failing(name, "refused", ingestclient.ErrTooLarge) },
		after:  func(name string) error { return failing(name, "lost", ingestclient.ErrAmbiguous) },
	}
	for _, state := range []string{"stored", "refused", "lost"} {
		b.write(round+state, round+state)
		b.run()
	}
	b.cfg.Uploader = usual
	if again {
		b.run() // writes the journal anew
	}
	name := round + "open"
	claim := b.write(filepath.Join(spool.StateDir, "claimed", claimID, "file", name), name)
	if b.cfg.OnSuccess == spool.KeepSource {
		b.must(os.Link(claim, filepath.Join(b.dir, name)))
	}
	_, err := b.client.Upload(b.Context(), ingestclient.ReaderContent(name, strings.NewReader(name), int64(len(name))), ingestclient.Meta{})
	b.must(err)
	lines := b.lines()
	var last struct {
		Rec struct {
			N int `json:"n"`
		} `json:"rec"`
	}
	b.must(json.Unmarshal([]byte(lines[len(lines)-1]), &last))
	if last.Rec.N != len(lines) {
		b.Fatalf("line %d has number %d", len(lines), last.Rec.N)
	}
	b.journal(line(fmt.Sprintf(`{"op":"intent","id":%q,"name":%q,"n":%d,"at":"2026-01-01T00:00:00Z"}`, claimID, name, last.Rec.N+1)))
}

func failing(name, suffix string, err error) error {
	if strings.HasSuffix(name, suffix) {
		return err
	}
	return nil
}

func (b *fixture) lines() []string {
	b.Helper()
	lines := strings.SplitAfter(readAll(b.T, b.journalPath()), "\n")
	return lines[:len(lines)-1] // behind the last line end is nothing
}

func (b *fixture) journalPath() string { return filepath.Join(b.dir, spool.StateDir, "journal") }

// once looks that nothing of the round is stored more than once.
func (b *fixture) once(what, round string) {
	b.Helper()
	copies := map[string]int{}
	for _, f := range b.stack.Files() {
		copies[f.Name]++
	}
	for _, state := range []string{"stored", "lost", "open"} {
		if n := copies[round+state]; n != 1 {
			b.Errorf("%s: %s is stored %d times", what, state, n)
		}
	}
}

// Each line of the journal is removed, changed, replaced and zeroed, under each
// mode: nothing is sent a second time. Where that cannot be known any more, ingest
// refuses to start, and says what to do.
func TestDamagedLines(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	damages := map[string]func(line string) string{
		"removed":  func(string) string { return "" },
		"changed":  func(l string) string { return strings.Replace(l, `"crc":"`, `"crc":"x`, 1) },
		"replaced": func(string) string { return "what is this?\n" },
		"zeroed":   func(l string) string { return strings.Repeat("\x00", len(l)) },
	}
	for _, mode := range []spool.SourceAction{spool.DeleteSource, spool.MoveSource, spool.KeepSource} {
		for _, again := range []bool{false, true} {
			t.Run(fmt.Sprint(mode, " ", again), func(t *testing.T) {
				b := newFixture(t, ingesttest.Options{Dialect: "go"})
				b.cfg.OnSuccess, b.cfg.Workers = mode, 1
				b.past("0-", again)
				lines, refused := len(b.lines()), 0
				for i := range lines {
					for name, damage := range damages {
						if i == lines-1 && (name == "removed" || name == "zeroed") {
							continue // a crash may leave that of a line that was not acknowledged
						}
						what, round := fmt.Sprintf("line %d %s", i+1, name), fmt.Sprintf("%d-%s-", i, name)
						b.past(round, again)
						text := b.lines()
						text[i] = damage(text[i])
						b.must(os.WriteFile(b.journalPath(), []byte(strings.Join(text, "")), 0o600))
						if b.survives(what) {
							refused++
						}
						b.once(what, round)
					}
				}
				if keep := mode == spool.KeepSource; keep != (refused > 0) {
					t.Errorf("%d starts were refused", refused)
				}
			})
		}
	}
}

// survives starts the spool twice, and kills it the first time before it has done anything.
func (b *fixture) survives(what string) (refused bool) {
	b.Helper()
	for _, run := range []bool{false, true} {
		s, err := spool.Open(b.cfg)
		if err != nil {
			if !strings.Contains(err.Error(), "the journal is damaged") || !strings.Contains(err.Error(), "move it away to upload all of them again") {
				b.Errorf("%s: %v", what, err)
			}
			return true
		}
		if run {
			b.must(s.Run(b.Context()))
		}
		b.must(s.Close())
	}
	return false
}

// Somebody removes what was put aside, or a claim. Under keep the source is there
// still: what may be stored comes back, says so, and is settled; what was refused is
// sent again.
func TestRemovedClaims(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	for _, mode := range []spool.SourceAction{spool.DeleteSource, spool.MoveSource, spool.KeepSource} {
		for _, what := range []string{"ambiguous", "failed", "claimed", "claimed/*/file", "ambiguous/*/file"} {
			t.Run(string(mode)+" "+what, func(t *testing.T) {
				b := newFixture(t, ingesttest.Options{Dialect: "go"})
				b.cfg.OnSuccess, b.cfg.Workers = mode, 1
				var logs bytes.Buffer
				b.cfg.Logger = slog.New(slog.NewTextHandler(&logs, nil))
				b.past("r-", false)
				if what == "claimed" || what == "claimed/*/file" {
					b.intentOfSource("r-open")
				}
				paths, err := filepath.Glob(filepath.Join(b.dir, spool.StateDir, what))
				b.must(err)
				for _, path := range paths {
					b.must(os.RemoveAll(path))
				}
				b.run()
				b.run()
				b.once(what, "r-")
				keep := mode == spool.KeepSource
				ambiguous := map[string]int{"ambiguous": 1, "failed": 2, "claimed": 1, "claimed/*/file": 1, "ambiguous/*/file": 1}[what]
				if keep {
					ambiguous = 2
				}
				if got := len(b.status().Ambiguous); got != ambiguous {
					t.Errorf("%d are ambiguous, want %d:\n%s", got, ambiguous, &logs)
				}
				if lost := what != "failed"; lost != strings.Contains(logs.String(), "a claim that may be stored was removed") {
					t.Errorf("logs:\n%s", &logs)
				}
				if !keep {
					return
				}
				b.resolve(spool.DecideStored)
				b.run()
				b.once(what, "r-")
				if st := b.status(); len(st.Ambiguous)+len(st.Waiting)+len(st.Claimed) != 0 {
					t.Errorf("left: %+v", st)
				}
			})
		}
	}
}

// intentOfSource gives the intent of an interrupted claim the identity of its
// file, as announce does.
func (b *fixture) intentOfSource(name string) {
	b.Helper()
	lines := b.lines()
	n := strings.Split(strings.Split(lines[len(lines)-1], `"n":`)[1], ",")[0]
	id, err := json.Marshal(spool.Identify(b.T, filepath.Join(b.dir, spool.StateDir, "claimed", claimID, "file", name)))
	b.must(err)
	lines[len(lines)-1] = line(fmt.Sprintf(`{"op":"intent","id":%q,"name":%q,"file":%s,"n":%s,"at":"2026-01-01T00:00:00Z"}`, claimID, name, id, n))
	b.must(os.WriteFile(b.journalPath(), []byte(strings.Join(lines, "")), 0o600))
}

// A source that was changed or removed since is no lost receipt: it is another
// file, or none.
func TestRemovedClaimOfAnotherFile(t *testing.T) {
	b := newFixture(t, ingesttest.Options{Dialect: "go"})
	b.cfg.OnSuccess = spool.KeepSource
	b.lose("a.txt", "one")
	b.must(os.RemoveAll(filepath.Join(b.dir, spool.StateDir, "ambiguous", b.status().Ambiguous[0].ID)))
	b.must(os.Remove(filepath.Join(b.dir, "a.txt")))
	b.write("a.txt", "another")
	b.run()
	b.check([]string{"a.txt", "a.txt"}, 0, 0, 0, 0)
	b.run()
	b.check([]string{"a.txt", "a.txt"}, 0, 0, 0, 0)
}
