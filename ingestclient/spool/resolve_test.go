package spool_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
	"github.com/artstore/artstore-pki/ingestclient/spool"
)

// lose uploads a file whose answer is lost: the element has it, and the spool cannot know.
func (b *fixture) lose(name, content string) {
	b.Helper()
	b.write(name, content)
	b.stack.SetFaults(b, ingesttest.Fault{Kind: "reset", AfterStore: true, Count: 1})
	b.run()
	b.stack.SetFaults(b)
}

// drop puts a file into ambiguous/ that no element has.
func (b *fixture) drop(name, content string) {
	b.Helper()
	b.write(name, content)
	cfg := b.cfg
	b.cfg.Uploader = fakeUploader{next: b.client, say: func(string) error { return ingestclient.ErrAmbiguous }}
	b.run()
	b.cfg.Uploader = cfg.Uploader
}

// age lets time pass since files were put aside.
func (b *fixture) age(by time.Duration) {
	b.Helper()
	paths, err := filepath.Glob(filepath.Join(b.dir, spool.StateDir, "*", "*", "reason.json"))
	b.must(err)
	for _, path := range paths {
		var r map[string]any
		b.must(json.Unmarshal([]byte(readAll(b.T, path)), &r))
		at, err := time.Parse(time.RFC3339, r["at"].(string))
		b.must(err)
		r["at"] = at.Add(-by)
		raw, err := json.Marshal(r)
		b.must(err)
		b.must(os.WriteFile(path, raw, 0o600))
	}
}

// resolve settles, after a dry run that must decide the same and change nothing.
func (b *fixture) resolve(word spool.Decision, ids ...string) []spool.Resolution {
	b.Helper()
	cfg := spool.ResolveConfig{Dir: b.dir, IDs: ids, Decision: word, Lister: b.client}
	before := b.status()
	dry, err := spool.Resolve(b.Context(), cfg)
	b.must(err)
	if after := b.status(); !reflect.DeepEqual(before, after) {
		b.Errorf("a dry run changed\n%+v into\n%+v", before, after)
	}
	cfg.Apply = true
	out, err := spool.Resolve(b.Context(), cfg)
	b.must(err)
	for i, r := range out {
		if r.Decision != dry[i].Decision || r.Why != dry[i].Why || r.Done != (r.Decision != spool.DecideNothing) || dry[i].Done {
			b.Errorf("dry %+v, and then %+v", dry[i], r)
		}
	}
	return out
}

func decisions(list []spool.Resolution) string {
	var out []string
	for _, r := range list {
		out = append(out, r.Name+" "+string(r.Decision))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// TestResolve expects the result of each decision, in each mode and with both kinds of
// element, and that another run stores no file twice.
func TestResolve(t *testing.T) {
	for _, mode := range []spool.SourceAction{spool.DeleteSource, spool.MoveSource, spool.KeepSource} {
		for _, dialect := range []string{"go", "python"} {
			t.Run(string(mode)+"/"+dialect, func(t *testing.T) {
				b := newFixture(t, ingesttest.Options{Dialect: dialect})
				b.cfg.OnSuccess, b.cfg.Finder = mode, nil // ids of the element: ambiguous
				b.lose("there.txt", "one")
				b.drop("absent.txt", "two")
				b.check([]string{"there.txt"}, 0, 0, 0, 2)

				young := b.resolve("")
				if got := decisions(young); got != "absent.txt stays, there.txt stored" {
					t.Fatalf("at once: %s: %+v", got, young)
				}
				b.check([]string{"there.txt"}, 0, 0, 0, 1)
				b.age(time.Hour)
				if got := decisions(b.resolve("")); got != "absent.txt resend" {
					t.Fatalf("later: %s", got)
				}
				b.check([]string{"there.txt"}, 0, 1, 0, 0)
				b.run()
				b.check([]string{"absent.txt", "there.txt"}, 0, 0, 0, 0)

				b.lose("word.txt", "three")
				b.drop("again.txt", "four")
				byName := map[string]string{}
				for _, it := range b.status().Ambiguous {
					byName[it.Name] = it.ID
				}
				b.resolve(spool.DecideStored, byName["word.txt"])
				b.resolve(spool.DecideResend, byName["again.txt"])
				b.run()
				b.run()
				all := []string{"absent.txt", "again.txt", "there.txt", "word.txt"}
				b.check(all, 0, 0, 0, 0)
				b.sources(mode, all)
			})
		}
	}
}

// sources compares where stored files are with what the mode says.
func (b *fixture) sources(mode spool.SourceAction, names []string) {
	b.Helper()
	for _, name := range names {
		_, inDir := os.Lstat(filepath.Join(b.dir, name))
		_, inDone := os.Lstat(filepath.Join(b.dir, spool.StateDir, "done", name))
		if (inDir == nil) != (mode == spool.KeepSource) || (inDone == nil) != (mode == spool.MoveSource) {
			b.Errorf("%s: in the directory %v, in done %v", name, inDir, inDone)
		}
	}
}

// TestResolveOfRefusedFiles expects that a refused file is sent again only if its id and
// the decision are given.
func TestResolveOfRefusedFiles(t *testing.T) {
	for _, mode := range []spool.SourceAction{spool.DeleteSource, spool.MoveSource, spool.KeepSource} {
		b := newFixture(t, ingesttest.Options{Dialect: "go"})
		b.cfg.OnSuccess = mode
		b.write("a.txt", "one")
		b.stack.SetFaults(t, ingesttest.Fault{Kind: "status", Status: 413})
		b.run()
		b.stack.SetFaults(t)
		b.check(nil, 0, 0, 1, 0)
		id := b.status().Failed[0].ID
		if list := b.resolve(""); len(list) != 0 {
			t.Errorf("settled without being named: %+v", list)
		}
		if _, err := spool.Resolve(t.Context(), spool.ResolveConfig{Dir: b.dir, IDs: []string{id}, Lister: b.client}); !errors.Is(err, spool.ErrUnknownID) {
			t.Errorf("asked for a refused file: %v", err)
		}
		b.resolve(spool.DecideResend, id)
		b.run()
		b.check([]string{"a.txt"}, 0, 0, 0, 0)
		b.sources(mode, []string{"a.txt"})
	}
}

// TestResolveOfWhatNobodyCanTell expects that files stay where they are if the lists
// prove nothing.
func TestResolveOfWhatNobodyCanTell(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	store := func(b *fixture, name, content string) {
		_, err := b.client.Upload(b.Context(), ingestclient.ReaderContent(name, strings.NewReader(content), int64(len(content))), ingestclient.Meta{})
		b.must(err)
	}
	for name, tc := range map[string]struct {
		prepare func(b *fixture)
		want    string
		why     string
	}{
		"the list fails": {func(b *fixture) {
			b.drop("a.txt", "one")
			b.age(time.Hour)
			b.stack.SetFaults(b, ingesttest.Fault{Kind: "status", Status: 500, On: "list"})
		}, "a.txt stays", "not each element could be asked: https://"},
		"stored before": {func(b *fixture) {
			store(b, "a.txt", "one")
			time.Sleep(2500 * time.Millisecond) // more than clocks may differ
			b.drop("a.txt", "one")
		}, "a.txt stays", "not from the time of the upload"},
		"stored later": {func(b *fixture) {
			b.drop("a.txt", "one")
			b.age(time.Hour)
			store(b, "a.txt", "one")
		}, "a.txt stays", "not from the time of the upload"},
		"stored twice": {func(b *fixture) {
			b.lose("a.txt", "one")
			store(b, "a.txt", "one")
		}, "a.txt stays", "2 files of this name and content"},
		"another name": {func(b *fixture) {
			b.drop("a.txt", "one")
			store(b, "b.txt", "one")
			b.age(time.Hour)
		}, "a.txt stays", "under another name"},
		"other content": {func(b *fixture) {
			b.drop("a.txt", "one")
			store(b, "a.txt", "two")
			b.age(time.Hour)
		}, "a.txt resend", ""},
		"one copy, two files": {func(b *fixture) {
			b.cfg.Recursive = true
			b.drop("x/a.txt", "one")
			b.lose("y/a.txt", "one")
			b.age(time.Second)
		}, "x/a.txt stays, y/a.txt stays", "has the same name and content"},
		"an element that is gone": {func(b *fixture) {
			b.drop("a.txt", "one")
			b.age(time.Hour)
			path := filepath.Join(b.dir, spool.StateDir, "ambiguous", b.status().Ambiguous[0].ID, "reason.json")
			b.must(os.WriteFile(path, []byte(strings.Replace(readAll(b.T, path), "{", `{"elements":["https://gone"],`, 1)), 0o600))
		}, "a.txt stays", "https://gone, which is none of the elements now"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newFixture(t, ingesttest.Options{Dialect: "go"})
			tc.prepare(b)
			list := b.resolve("")
			if got := decisions(list); got != tc.want || !strings.Contains(list[0].Why, tc.why) {
				t.Errorf("%s: %+v, want %s because of %q", got, list, tc.want, tc.why)
			}
		})
	}
}

// TestResolveKeepsToItsOwnCopy expects that a copy that the journal has as that of
// another file proves nothing.
func TestResolveKeepsToItsOwnCopy(t *testing.T) {
	b := newFixture(t, ingesttest.Options{Dialect: "go"})
	b.cfg.OnSuccess, b.cfg.Recursive = spool.KeepSource, true
	b.drop("x/a.txt", "one")
	b.write("y/a.txt", "one")
	b.run()
	list := b.resolve("")
	if got := decisions(list); got != "x/a.txt stays" || !strings.Contains(list[0].Why, "copy of another file") {
		t.Errorf("%+v", list)
	}
}

// TestResolveByID expects that a copy under the offered id is a proof, whatever its time
// is.
func TestResolveByID(t *testing.T) {
	b := newFixture(t, ingesttest.Options{})
	b.cfg.IDsKept = false
	b.lose("a.txt", "one")
	b.age(240 * time.Hour)
	list := b.resolve("")
	if got := decisions(list); got != "a.txt stored" || list[0].FileID != list[0].ID || list[0].Element != b.stack.StorageURL {
		t.Errorf("%+v", list)
	}
	b.run()
	b.check([]string{"a.txt"}, 0, 0, 0, 0)
}

func TestResolveRefusals(t *testing.T) {
	b := newFixture(t, ingesttest.Options{Dialect: "go"})
	word := spool.ResolveConfig{Dir: b.dir, Decision: spool.DecideStored, Apply: true}
	if _, err := spool.Resolve(t.Context(), word); err == nil {
		t.Error("settled where nothing was ever ingested")
	}
	if _, err := os.Lstat(filepath.Join(b.dir, spool.StateDir)); err == nil {
		t.Error("made a state directory")
	}
	b.drop("a.txt", "one")
	_, stop := b.start()
	if _, err := spool.Resolve(t.Context(), word); !errors.Is(err, spool.ErrLocked) {
		t.Errorf("beside a running instance: %v", err)
	}
	b.must(stop())
	for name, cfg := range map[string]spool.ResolveConfig{
		"no word":     {Dir: b.dir},
		"a wrong one": {Dir: b.dir, Decision: "stays"},
		"no such id":  {Dir: b.dir, Decision: spool.DecideStored, IDs: []string{claimID}, Apply: true},
		"no id":       {Dir: b.dir, Decision: spool.DecideStored, IDs: []string{"../x"}, Apply: true},
		"no such dir": {Dir: b.dir + "x", Decision: spool.DecideStored},
	} {
		if list, err := spool.Resolve(t.Context(), cfg); err == nil {
			t.Errorf("%s: %+v", name, list)
		}
	}
	b.journal("{}\n" + line(rec("intent")))
	if _, err := spool.Resolve(t.Context(), word); err == nil || !strings.Contains(err.Error(), "start ingest once before") {
		t.Errorf("with a damaged journal: %v", err)
	}
	b.check(nil, 0, 0, 0, 1)
}
