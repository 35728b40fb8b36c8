//go:build unix

package source_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/source"
)

// realPlaces returns the files of the rows, by their paths without links.
func realPlaces(t *testing.T, r *audittest.Report) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, row := range r.Rows {
		for _, place := range append([]string{row.Place}, row.Also...) {
			path, err := filepath.EvalSymlinks(place)
			certtest.Must(t, err)
			out[path] = true
		}
	}
	return out
}

// Every certificate below a directory is in the report, whatever the directories are called and
// whatever links there are between them; and the walk ends.
func TestEachCertificateIsInTheReport(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	_, intermediate, _ := certtest.Hierarchy(t)
	leaf := certtest.Encode(certtest.New(t, intermediate, "svc"))
	names := []string{"node1", "node2", "self", "current", "..data", "..2026_01_01", "..2026_02_02", "gen-1", "gen-2", "v-1", "v-2", "x"}
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		base, err := filepath.EvalSymlinks(t.TempDir())
		certtest.Must(t, err)
		root := filepath.Join(base, "root")
		dirs := []string{root, filepath.Join(base, "outside")}
		for len(dirs) < 10 {
			dirs = append(dirs, filepath.Join(dirs[rnd.IntN(len(dirs))], names[rnd.IntN(len(names))]))
		}
		var files []string
		for i, d := range dirs {
			certtest.Must(t, os.MkdirAll(d, 0o700))
			if rnd.IntN(3) > 0 {
				files = append(files, filepath.Join(d, fmt.Sprintf("%d.crt", i)))
				certtest.Must(t, os.WriteFile(files[len(files)-1], leaf, 0o600))
			}
		}
		for range 8 {
			from, to := dirs[rnd.IntN(len(dirs))], dirs[rnd.IntN(len(dirs))]
			if rnd.IntN(2) == 0 {
				if to, err = filepath.Rel(from, to); err != nil {
					t.Fatal(err)
				}
			}
			if name := names[rnd.IntN(len(names))]; rnd.IntN(2) == 0 && len(files) > 0 {
				to = filepath.Join(name, filepath.Base(files[rnd.IntN(len(files))]))
			}
			_ = os.Symlink(to, filepath.Join(from, names[rnd.IntN(len(names))])) // it may be there already
		}
		seen := realPlaces(t, existing(audittest.Run(t, audittest.Paths(root))))
		for _, f := range files {
			if strings.HasPrefix(f, root+"/") && !seen[f] {
				t.Errorf("seed %d: %s is in no row", seed, f)
			}
		}
	}
}

// existing returns the report without the rows of broken links.
func existing(r *audittest.Report) *audittest.Report {
	r.Rows = slices.DeleteFunc(r.Rows, func(row audit.Row) bool { return row.Err != nil })
	return r
}

// A link to a directory of the same tree hides no file. A link to a directory elsewhere is followed
// once, and a link to a directory above the named one is not followed.
func TestLinksToDirectories(t *testing.T) {
	_, intermediate, leaf := certtest.Hierarchy(t)
	expired := certtest.Encode(certtest.New(t, intermediate, "old", certtest.Lives(2*certtest.Day, certtest.Day)))
	dir := certtest.Write(t, map[string][]byte{
		"in/node1/a.crt": certtest.Encode(leaf), "in/node2/b.crt": expired, "in/volume/..2026_01_01/tls.crt": certtest.Encode(leaf),
		"in/volume/..2026_01_01/unlinked.crt": expired, "in/volume/..2026_01_01/sub/deep.crt": expired,
		"in/volume/..2025_12_31/tls.crt": expired, "in/volume/..2025_12_30/other.crt": expired,
		"out/c.crt": expired, "out/deeper/d.crt": expired, "e.crt": expired,
	})
	for link, to := range map[string]string{
		"in/self": "node1", "in/out": "../out", "in/again": "../out", "in/deeper": "../out/deeper", "in/up": "..", "out/back": "../in", "out/loop": ".",
		"in/volume/..data": "..2026_01_01", "in/volume/tls.crt": "..data/tls.crt", "in/volume/sub": "..data/sub",
	} {
		certtest.Must(t, os.Symlink(to, filepath.Join(dir, link)))
	}
	r, err := audittest.Judge(t.Context(), audit.Config{Sources: []audit.Source{audittest.Paths(filepath.Join(dir, "in"))}, Explain: true})
	certtest.Must(t, err)
	const old = "EXPIRED expired"
	audittest.Want(t, audittest.States(t, r, filepath.Join(dir, "in")), map[string]string{
		"node1/a.crt": "OK", "node2/b.crt": old, "volume/tls.crt": "OK",
		"volume/..2026_01_01/unlinked.crt": old, "volume/..2026_01_01/sub/deep.crt": old, "volume/..2025_12_30/other.crt": old,
		"again/c.crt": old, "again/deeper/d.crt": old,
	})
	got := map[string]string{}
	for _, l := range r.LeftOut {
		for _, path := range l.Paths {
			got[strings.TrimPrefix(path, dir+"/in/")] = l.Reason
		}
		if len(l.Paths) != l.Count {
			t.Errorf("%d of %d paths", len(l.Paths), l.Count)
		}
	}
	const elsewhere = "links to what is seen elsewhere"
	audittest.Want(t, got, map[string]string{
		"self": elsewhere, "out": elsewhere, "deeper": elsewhere, "again/back": elsewhere, "again/loop": elsewhere,
		"volume/..data": elsewhere, "volume/sub": elsewhere, "up": "links that lead above the target",
		"volume/..2025_12_31": "replaced generations",
	})
}

// A file whose name and beginning promise no certificate is left out and counted, however large it is.
func TestFilesOfOtherKinds(t *testing.T) {
	_, _, leaf := certtest.Hierarchy(t)
	dir := certtest.Write(t, map[string][]byte{"a.crt": certtest.Encode(leaf), "program": []byte("\x7fELF"), "notes.txt": []byte("hello"), "skip/b.crt": certtest.Encode(leaf), "c.crt": certtest.Encode(leaf)})
	certtest.Must(t, os.Truncate(filepath.Join(dir, "program"), 40<<20)) // sparse
	certtest.Must(t, os.Symlink("user@host.1234:5", filepath.Join(dir, ".#notes.txt")))
	r, err := audittest.Judge(t.Context(), audit.Config{Sources: []audit.Source{source.Targets{Names: []string{dir}, Exclude: []string{"skip", "c.*"}}}, Explain: true})
	certtest.Must(t, err)
	audittest.Want(t, audittest.States(t, r, dir), map[string]string{"a.crt": "OK"})
	if crit, unchecked := r.Count(audit.Warn); crit+unchecked > 0 {
		t.Errorf("%d findings, %d unchecked", crit, unchecked)
	}
	var table strings.Builder
	certtest.Must(t, r.WriteTable(&table, 0))
	const list = `
left out: excluded by pattern (2), files of other kinds (3)
excluded by pattern:
  DIR/c.crt
  DIR/skip
files of other kinds:
  DIR/.#notes.txt
  DIR/notes.txt
  DIR/program
1 certificate: 1 fine, 0 to watch, 0 critical; 1 chain not judged: no trust bundle
`
	if got := strings.ReplaceAll(table.String(), dir, "DIR"); !strings.HasSuffix(got, list) {
		t.Errorf("got\n%s", got)
	}
	r, err = audittest.Judge(t.Context(), audit.Config{Sources: []audit.Source{audittest.Paths(dir)}})
	certtest.Must(t, err)
	if got := r.LeftOut; len(got) != 1 || got[0].Count != 3 || got[0].Paths != nil {
		t.Errorf("%+v", got)
	}
}
