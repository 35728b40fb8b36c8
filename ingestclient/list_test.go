package ingestclient_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
)

// filesOf reads a whole list: the number of times that each id was in it.
func filesOf(t *testing.T, c *ingestclient.Client, url string) (seen map[string]int, last *ingestclient.File, err error) {
	t.Helper()
	seen = map[string]int{}
	for f, bad := range c.Files(t.Context(), url) {
		if bad != nil {
			return seen, last, bad
		}
		seen[f.FileID]++
		last = f
	}
	return seen, last, nil
}

// TestFilesOfRealElements lists both kinds of element to the end, over several pages of
// the Python one.
func TestFilesOfRealElements(t *testing.T) {
	for dialect, n := range map[string]int{"python": 205, "go": 3} {
		t.Run(dialect, func(t *testing.T) {
			s := ingesttest.Start(t, ingesttest.Options{Dialect: dialect})
			c, err := ingestclient.New(s.Config(), s.Identity)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			if seen, _, err := filesOf(t, c, s.StorageURL); len(seen) != 0 || err != nil {
				t.Fatalf("an empty element has %v, %v", seen, err)
			}
			before := time.Now()
			for i := range n {
				_, err := c.Upload(t.Context(), ingestclient.BytesContent(fmt.Sprintf(`in/%d".txt`, i), fmt.Append(nil, i)), ingestclient.Meta{})
				if err != nil {
					t.Fatal(err)
				}
			}
			seen, last, err := filesOf(t, c, s.StorageURL+"/")
			if err != nil || len(seen) != n {
				t.Fatalf("%d files, want %d: %v", len(seen), n, err)
			}
			want := s.Files()[0] // by name: the oldest, which comes last
			if last.FileID != want.ID || last.SHA256 != want.SHA256 || last.Size != 1 || last.Element != s.StorageURL {
				t.Errorf("%+v, want %+v", last, want)
			}
			if !last.Named(`in/0".txt`) || last.Named("1.txt") {
				t.Errorf("name %q", last.Name)
			}
			// The answer's Date has whole seconds.
			if d := last.Uploaded.Sub(before); d < -2*time.Second || d > time.Minute {
				t.Errorf("uploaded at %v, want about %v", last.Uploaded, before)
			}
			one := 0
			for _, err := range c.Files(t.Context(), s.StorageURL) {
				if err == nil {
					one++
				}
				break
			}
			if one != 1 {
				t.Error("a list cannot be left")
			}
		})
	}
}

// TestFilesOfElementsThatFail expects an error for an element that cannot be listed.
func TestFilesOfElementsThatFail(t *testing.T) {
	s := ingesttest.Start(t, ingesttest.Options{})
	cfg := s.Config()
	cfg.MaxAttempts, cfg.TokenLag = 2, -1
	c, err := ingestclient.New(cfg, s.Identity)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for name, tc := range map[string]struct {
		fault ingesttest.Fault
		want  error
	}{
		"once":     {ingesttest.Fault{Kind: "status", Status: 503, Count: 1}, nil},
		"rejected": {ingesttest.Fault{Kind: "status", Status: 401, Count: 1}, nil},
		"failing":  {ingesttest.Fault{Kind: "status", Status: 500}, ingestclient.ErrServer},
		"refusing": {ingesttest.Fault{Kind: "status", Status: 401}, ingestclient.ErrUnauthorized},
		"dropping": {ingesttest.Fault{Kind: "reset"}, ingestclient.ErrConnection},
	} {
		tc.fault.On = "list"
		s.SetFaults(t, tc.fault)
		_, _, err := filesOf(t, c, s.StorageURL)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
		var e *ingestclient.RequestError
		if err != nil && (!errors.As(err, &e) || e.Op != "listing" || e.Element != s.StorageURL) {
			t.Errorf("%s: %+v", name, e)
		}
	}
	if _, _, err := filesOf(t, c, "https://localhost:1"); !errors.Is(err, ingestclient.ErrRejected) {
		t.Errorf("a stranger's element: %v", err)
	}
	_ = c.Close()
	if _, _, err := filesOf(t, c, s.StorageURL); !errors.Is(err, ingestclient.ErrClosed) {
		t.Errorf("a closed client: %v", err)
	}
}

// pagedList answers as a Storage Element whose list change alters before each page.
type pagedList struct {
	ids    []string // the newest first
	most   int      // of a page
	change func(l *pagedList)
}

func (l *pagedList) answer(w http.ResponseWriter, r *http.Request) bool {
	if r.URL.Path != "/api/v1/files" {
		return false
	}
	if l.change != nil {
		l.change(l)
	}
	from, _ := strconv.Atoi(r.URL.Query().Get("offset"))
	from = min(from, len(l.ids))
	entries := []map[string]any{}
	for _, id := range l.ids[from:min(from+l.most, len(l.ids))] {
		entries = append(entries, map[string]any{"file_id": id, "size": 1, "checksum": strings.Repeat("0a", 32)})
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"items": entries, "total": len(l.ids)})
	return true
}

// TestFilesWhileTheListChanges expects that a list without error has each file that was
// there all the time, whatever is stored and removed between its pages.
func TestFilesWhileTheListChanges(t *testing.T) {
	w := newServers(t, nil)
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		l := &pagedList{most: 10 + rng.IntN(10)}
		for i := range 120 {
			l.ids = append(l.ids, fmt.Sprint("old-", i))
		}
		stays := slices.Clone(l.ids)
		pages := 0
		l.change = func(l *pagedList) {
			pages++
			for range rng.IntN(4) {
				l.ids = slices.Insert(l.ids, 0, fmt.Sprintf("new-%d-%d", pages, len(l.ids)))
			}
			if pages%7 == 3 { // often enough to move the list, and rarely enough to get to its end
				gone := rng.IntN(len(l.ids))
				stays = slices.DeleteFunc(stays, func(id string) bool { return id == l.ids[gone] })
				l.ids = slices.Delete(l.ids, gone, gone+1)
			}
		}
		w.storage.before = l.answer
		seen, _, err := filesOf(t, w.c, w.cfg.Elements[0].URL)
		if err != nil {
			if !errors.Is(err, ingestclient.ErrAnswer) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			continue
		}
		for _, id := range stays {
			if seen[id] == 0 {
				t.Fatalf("seed %d: %s was never listed", seed, id)
			}
		}
	}
}

// TestFilesOfAListThatShrinks expects that removals that move the list are noticed, and
// that the list ends with an error after a few of them.
func TestFilesOfAListThatShrinks(t *testing.T) {
	w := newServers(t, nil)
	for removals, good := range map[int]bool{1: true, 1000: false} {
		l := &pagedList{most: 10}
		for i := range 4000 {
			l.ids = append(l.ids, fmt.Sprint("f-", i))
		}
		pages := 0
		l.change = func(l *pagedList) {
			if pages++; pages > 1 && pages-1 <= removals {
				l.ids = l.ids[12:] // more than two pages have in common
			}
		}
		w.storage.before = l.answer
		seen, _, err := filesOf(t, w.c, w.cfg.Elements[0].URL)
		if good && (err != nil || seen["f-3999"] == 0 || seen["f-12"] == 0) || !good && !errors.Is(err, ingestclient.ErrAnswer) {
			t.Errorf("%d removals: %d files, %v", removals, len(seen), err)
		}
	}
}

// TestFilesOfAnswersThatAreNoList expects an error for each answer that could hide a
// file.
func TestFilesOfAnswersThatAreNoList(t *testing.T) {
	w := newServers(t, nil)
	for _, body := range []string{
		`{}`, `[]`, `null`, `{"items":[]}`, `{"total":0}`, `{"items":null,"total":0}`, `{"items":[],"total":-1}`, `{"items":[],"total":3}`,
		`{"items":[{}],"total":1}`, `{"files":[{"file_id":"a","file_size":1}],"total":1}`, `{"files":[{"file_id":"a","checksum":"` + strings.Repeat("0a", 32) + `"}],"total":1}`,
	} {
		w.storage.before = func(w http.ResponseWriter, _ *http.Request) bool { fmt.Fprint(w, body); return true }
		if seen, _, err := filesOf(t, w.c, w.cfg.Elements[0].URL); !errors.Is(err, ingestclient.ErrAnswer) {
			t.Errorf("%s: %v, %v", body, seen, err)
		}
	}
}

// TestFilesOfAnElementWithAnotherClock expects that the times of a list are corrected by
// the difference of the element's clock.
func TestFilesOfAnElementWithAnotherClock(t *testing.T) {
	w := newServers(t, nil)
	for ahead, moved := range map[time.Duration]bool{0: false, time.Second: false, -time.Hour: true, 48 * time.Hour: true} {
		var there time.Time // when it answers, so that it does not matter how long the request is on its way
		w.storage.before = func(w http.ResponseWriter, _ *http.Request) bool {
			there = time.Now().Add(ahead)
			w.Header().Set("Date", there.UTC().Format(http.TimeFormat))
			fmt.Fprintf(w, `{"files":[{"file_id":"a","file_size":1,"checksum":"%s","created_at":%q}],"total":1}`, strings.Repeat("0a", 32), there.Format(time.RFC3339Nano))
			return true
		}
		_, f, err := filesOf(t, w.c, w.cfg.Elements[0].URL)
		if err != nil {
			t.Fatal(err)
		}
		off := f.Uploaded.Sub(there.Add(-ahead))
		if moved && off.Abs() > time.Minute || !moved && off != ahead {
			t.Errorf("ahead by %v: off by %v", ahead, off)
		}
	}
}
