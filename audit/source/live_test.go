package source_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/source"
)

// rowsOf returns the report of a source at a moment, without the summary.
func rowsOf(t *testing.T, now time.Time, s audit.Source) string {
	t.Helper()
	r, err := audittest.Judge(t.Context(), audit.Config{Now: func() time.Time { return now }, Sources: []audit.Source{s}})
	certtest.Must(t, err)
	var b bytes.Buffer
	certtest.Must(t, r.WriteNDJSON(&b))
	lines := strings.SplitAfter(b.String(), "\n")
	return strings.Join(lines[:len(lines)-2], "")
}

// difference has the lines that one of two reports has not.
func difference(want, got string) (out string) {
	for line := range strings.Lines(want) {
		if !strings.Contains(got, line) {
			out += "\nmissing: " + line
		}
	}
	for line := range strings.Lines(got) {
		if !strings.Contains(want, line) {
			out += "\ntoo much: " + line
		}
	}
	return out + fmt.Sprintf("\n%d and %d bytes", len(want), len(got))
}

func liveOf(targets source.Targets) *source.Live {
	cfg := audit.Config{}
	return targets.Live(cfg.Keeper(), time.Hour)
}

// mutation is a tree of files that changes at random.
type mutation struct {
	t        *testing.T
	dir      string
	random   *rand.Rand
	material map[string][]byte
	touched  []string
	n        int
}

func (m *mutation) path(names ...string) string {
	return filepath.Join(append([]string{m.dir}, names...)...)
}

// write replaces a file as a careful program does, or in place.
func (m *mutation) write(path string, data []byte) {
	certtest.Must(m.t, os.MkdirAll(filepath.Dir(path), 0o700))
	m.touched = append(m.touched, path, filepath.Dir(path))
	if m.random.IntN(2) == 0 {
		certtest.Must(m.t, os.WriteFile(path, data, 0o600))
		return
	}
	m.n++
	temporary := fmt.Sprintf("%s/.new%d", filepath.Dir(path), m.n)
	certtest.Must(m.t, os.WriteFile(temporary, data, 0o600))
	certtest.Must(m.t, os.Rename(temporary, path))
}

func (m *mutation) remove(path string) {
	m.touched = append(m.touched, path)
	certtest.Must(m.t, os.RemoveAll(path))
}

// swap replaces a set as Kubernetes does.
func (m *mutation) swap(dir string, certificate, key []byte) {
	m.n++
	generation := fmt.Sprintf("..2026_01_02_%d", m.n)
	old, _ := os.Readlink(m.path(dir, "..data"))
	m.write(m.path(dir, generation, "tls.crt"), certificate)
	m.write(m.path(dir, generation, "tls.key"), key)
	certtest.Must(m.t, os.Symlink(generation, m.path(dir, "..data_tmp")))
	certtest.Must(m.t, os.Rename(m.path(dir, "..data_tmp"), m.path(dir, "..data")))
	for _, name := range []string{"tls.crt", "tls.key"} {
		_ = os.Symlink("..data/"+name, m.path(dir, name)) // may be there
	}
	if old != "" && m.random.IntN(2) == 0 {
		m.remove(m.path(dir, old))
	}
	m.touched = append(m.touched, m.path(dir, "..data"), m.path(dir, "tls.crt"))
}

// step changes something.
func (m *mutation) step() {
	some := func(list ...string) string { return list[m.random.IntN(len(list))] }
	dir := some("", "a", "a/b", "c", "links")
	name := some("tls", "web", "other")
	own := some("one", "two")
	switch m.random.IntN(14) {
	case 0, 1, 2:
		m.write(m.path(dir, name+".crt"), m.material[own+".crt"])
	case 3, 4:
		m.write(m.path(dir, name+".key"), m.material[own+".key"])
	case 5:
		m.remove(m.path(dir, name+some(".crt", ".key")))
	case 6:
		m.write(m.path(dir, "ca.crt"), m.material[some("root.crt", "other.crt")])
	case 7:
		m.remove(m.path(dir, some("ca.crt", "list.crl")))
	case 8:
		m.write(m.path(dir, "list.crl"), m.material["list.crl"])
	case 9:
		m.swap(some("set", "a/set"), m.material[own+".crt"], m.material[some("one", "two")+".key"])
	case 10:
		path := m.path(dir, name+".key")
		if os.Chmod(path, os.FileMode(0o600|m.random.IntN(2)*0o44)) == nil {
			m.touched = append(m.touched, path)
		}
	case 11:
		m.remove(m.path(some("a/b", "c", "set", "links")))
	case 12:
		m.write(m.path(dir, some("notes.txt", "broken.pem")), []byte(some("hello", "-----BEGIN CERTIFICATE-----\nMAA")))
	case 13:
		link := m.path("links", some("to-c", "to-outside", "up"))
		certtest.Must(m.t, os.MkdirAll(m.path("links"), 0o700))
		_ = os.Remove(link)
		to := map[string]string{"to-c": m.path("c"), "to-outside": m.path("..", "outside"), "up": m.path("..")}[filepath.Base(link)]
		certtest.Must(m.t, os.Symlink(to, link))
		m.touched = append(m.touched, link, m.path("links"))
	}
}

// TestLiveReportsAsTargets changes a tree at random. After each change a Live that was told of it
// has the same rows as an audit of the tree, and so has one that looks at all of it.
func TestLiveReportsAsTargets(t *testing.T) {
	root, _, one := certtest.Hierarchy(t)
	other, intermediate, two := certtest.Hierarchy(t)
	material := map[string][]byte{
		"root.crt": certtest.Encode(root), "other.crt": certtest.Encode(other),
		"one.crt": certtest.Encode(one, one.Issuer), "two.crt": certtest.Encode(two, intermediate), "one.key": one.KeyPEM(t), "two.key": two.KeyPEM(t),
		"list.crl": certtest.Block("X509 CRL", audittest.CRL(t, intermediate, -time.Hour, time.Hour, two)),
	}
	now := time.Now()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			above := t.TempDir()
			m := &mutation{t: t, dir: filepath.Join(above, "tree"), random: rand.New(rand.NewPCG(seed, 1)), material: material}
			for _, path := range []string{m.path("tls.crt"), m.path("a", "b", "tls.crt"), m.path("..", "outside", "tls.crt")} {
				m.write(path, material["one.crt"])
			}
			targets := audittest.Paths(m.dir, m.path("web.crt"), filepath.Join(m.dir, "c", "*.crt"))
			live := liveOf(targets)
			live.Scan(t.Context())
			for step := range 60 {
				m.touched = nil
				for range 1 + m.random.IntN(3) {
					m.step()
				}
				if m.random.IntN(3) == 0 {
					live.Scan(t.Context())
				} else {
					live.Changed(t.Context(), slices.Compact(m.touched))
				}
				want, got := rowsOf(t, now, targets), rowsOf(t, now, live)
				if got != want { // patterns and named files are looked at by Scan
					live.Scan(t.Context())
					got = rowsOf(t, now, live)
				}
				if got != want {
					t.Fatalf("step %d, after %q:%s", step, m.touched, difference(want, got))
				}
			}
		})
	}
}

// A file that has changed is read alone, and with it the file whose key it may hold.
func TestLiveReadsWhatHasChanged(t *testing.T) {
	_, intermediate, leaf := certtest.Hierarchy(t)
	files := map[string][]byte{}
	for i := range 100 {
		files[fmt.Sprintf("%d.crt", i)] = certtest.Encode(leaf, intermediate)
	}
	files["7.key"] = leaf.KeyPEM(t)
	dir := certtest.Write(t, files)
	live := liveOf(audittest.Paths(dir))
	reads := func(act func()) uint64 {
		before := live.Reads()
		act()
		return live.Reads() - before
	}
	scan := func() { live.Scan(t.Context()) }
	touch := func(name string) func() {
		return func() {
			path := filepath.Join(dir, name)
			certtest.Must(t, os.WriteFile(path, append(files[strings.TrimPrefix(name, "new-")], '\n'), 0o600))
			live.Changed(t.Context(), []string{path})
		}
	}
	for _, c := range []struct {
		what string
		act  func()
		want uint64
	}{
		{"first", scan, 101},
		{"unchanged", scan, 0},
		{"told of a file that has not changed", func() { live.Changed(t.Context(), []string{filepath.Join(dir, "3.crt")}) }, 0},
		{"one certificate", touch("3.crt"), 1},
		{"one key, with its certificate", touch("7.key"), 2},
		{"a new file", touch("new-3.crt"), 1},
		{"a bundle, which judges all", touch("ca.crt"), 103},
		{"unchanged since", scan, 0},
	} {
		if got := reads(c.act); got != c.want {
			t.Errorf("%s: %d reads, want %d", c.what, got, c.want)
		}
	}
	if got := live.Dirs(); !slices.Equal(got, []string{dir}) {
		t.Errorf("watched: %q", got)
	}
}

// A server that does not answer keeps its certificate, marked.
func TestLiveServer(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	address := audittest.Serve(t, &tls.Config{Certificates: []tls.Certificate{leaf.TLS(intermediate)}, MinVersion: tls.VersionTLS12})
	targets := source.Targets{Names: []string{address}, Bundle: certtest.Bundle([]*certtest.Pair{root}), Fast: true}
	live := liveOf(targets)
	live.Scan(t.Context())
	if got := live.Servers(); !slices.Equal(got, []string{address}) {
		t.Fatalf("servers: %q", got)
	}
	live.Ask(t.Context(), address)
	rows := func() []audit.Row { return audittest.Run(t, live).Rows }
	if got := rows(); len(got) != 2 || got[0].Err != nil || !got[0].Stale.IsZero() {
		t.Fatalf("rows %+v", got)
	}
	ended, stop := context.WithCancel(t.Context())
	stop()
	live.Ask(ended, address)
	if got := live.Status(); len(got) != 1 || got[0].Rounds != 1 || got[0].Err != nil || !got[0].Server {
		t.Errorf("the end of the program is no failure: %+v", got)
	}
}
