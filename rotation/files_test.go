package rotation_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
)

// awaitSerial waits until the identity serves m. The polls of these tests are rare, so a
// notification must have come.
func awaitSerial(t testing.TB, id *rotation.Identity, m rotation.Material) {
	t.Helper()
	want := m.Certificate.Leaf.SerialNumber.String()
	waitFor(t, "serial "+want, func() bool { return serial(id) == want })
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// follow opens a file source with real notification and no poll to speak of.
func follow(t testing.TB, f files.Set) *rotation.Identity {
	t.Helper()
	f.Poll = time.Hour
	id := open(t, files.Source(f), 0)
	if st := id.Status(); st.WatchMode != "notify+poll" {
		t.Fatalf("watch mode %q: %s", st.WatchMode, st.WatchError)
	}
	return id
}

func TestFilesInPlace(t *testing.T) {
	ca := newCA(t, "ca")
	dir := t.TempDir()
	id := follow(t, write(t, dir, ca.leaf(t, "svc", nil)))
	for range 3 {
		m := ca.leaf(t, "svc", nil)
		write(t, dir, m) // certificate, then key: torn in between
		awaitSerial(t, id, m)
	}
}

func TestFilesRenamed(t *testing.T) {
	ca := newCA(t, "ca")
	dir := t.TempDir()
	f := write(t, dir, ca.leaf(t, "svc", nil))
	id := follow(t, f)
	m := ca.leaf(t, "svc", nil)
	n := write(t, t.TempDir(), m)
	must(t, os.Rename(n.Key, f.Key))
	must(t, os.Rename(n.Cert, f.Cert))
	awaitSerial(t, id, m)
}

func TestFilesRemovedAndMadeAnew(t *testing.T) {
	ca := newCA(t, "ca")
	dir := t.TempDir()
	f := write(t, dir, ca.leaf(t, "svc", nil))
	id := follow(t, f)
	for range 3 {
		for _, p := range []string{f.Cert, f.Key, f.CA} {
			must(t, os.Remove(p))
		}
		m := ca.leaf(t, "svc", nil)
		write(t, dir, m)
		awaitSerial(t, id, m)
	}
}

func TestFilesDirectoryReplaced(t *testing.T) {
	ca := newCA(t, "ca")
	base := t.TempDir()
	dir := filepath.Join(base, "tls")
	id := follow(t, write(t, dir, ca.leaf(t, "svc", nil)))
	for i := range 4 {
		m := ca.leaf(t, "svc", nil)
		if i%2 == 0 { // renamed over
			fresh := filepath.Join(base, "fresh")
			write(t, fresh, m)
			must(t, os.Rename(dir, filepath.Join(base, "old"+m.Version)))
			must(t, os.Rename(fresh, dir))
		} else { // deleted and made anew, perhaps with the same inode
			must(t, os.RemoveAll(dir))
			write(t, dir, m)
		}
		awaitSerial(t, id, m)
		// And the new directory is watched as the old one was.
		m = ca.leaf(t, "svc", nil)
		write(t, dir, m)
		awaitSerial(t, id, m)
	}
}

// TestFilesDotData is the layout of a Kubernetes secret volume.
func TestFilesDotData(t *testing.T) {
	ca := newCA(t, "ca")
	dir := t.TempDir()
	swap := func(m rotation.Material) {
		t.Helper()
		write(t, filepath.Join(dir, "..gen"+m.Version), m)
		old, _ := os.Readlink(filepath.Join(dir, "..data"))
		must(t, os.Symlink("..gen"+m.Version, filepath.Join(dir, "..data_tmp")))
		must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
		if old != "" {
			must(t, os.RemoveAll(filepath.Join(dir, old)))
		}
	}
	first := ca.leaf(t, "svc", nil)
	swap(first)
	f := files.Set{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), CA: filepath.Join(dir, "ca.crt")}
	for _, p := range []string{f.Cert, f.Key, f.CA} {
		must(t, os.Symlink(filepath.Join("..data", filepath.Base(p)), p))
	}
	id := follow(t, f)
	for range 5 {
		m := ca.leaf(t, "svc", nil)
		swap(m)
		awaitSerial(t, id, m)
	}
}

// TestFilesThroughCurrent is the layout of this project: one link, swapped by rename, on the way to all files.
func TestFilesThroughCurrent(t *testing.T) {
	ca := newCA(t, "ca")
	state := t.TempDir()
	swap := func(m rotation.Material) {
		t.Helper()
		write(t, filepath.Join(state, "gen"+m.Version), m)
		must(t, os.Symlink("gen"+m.Version, filepath.Join(state, "next")))
		must(t, os.Rename(filepath.Join(state, "next"), filepath.Join(state, "current")))
	}
	swap(ca.leaf(t, "svc", nil))
	cur := filepath.Join(state, "current")
	id := follow(t, files.Set{Cert: filepath.Join(cur, "tls.crt"), Key: filepath.Join(cur, "tls.key"), CA: filepath.Join(cur, "ca.crt")})
	for range 3 {
		m := ca.leaf(t, "svc", nil)
		swap(m)
		awaitSerial(t, id, m)
	}
}

// TestFilesTorn writes every kind of incomplete set. The last good one stays in effect,
// and the completed one is published.
func TestFilesTorn(t *testing.T) {
	ca, second := newCA(t, "ca"), newCA(t, "second")
	next := ca.leaf(t, "svc", nil)
	next.Roots = append(next.Roots, second.root)
	chain, key, bundle := chainPEM(t, next), keyPEM(t, next), pemfile.EncodeCertificates(next.Roots)
	leafOnly := chainPEM(t, rotation.Material{Certificate: first(next)})
	for name, torn := range map[string]struct {
		file func(files.Set) string
		data []byte
		want string
	}{
		"pair":             {func(f files.Set) string { return f.Key }, keyPEM(t, second.leaf(t, "x", nil)), "does not fit"},
		"key cut":          {func(f files.Set) string { return f.Key }, key[:len(key)/2], "tls.key"},
		"chain cut":        {func(f files.Set) string { return f.Cert }, chain[:len(chain)-40], "tls.crt"},
		"chain shortened":  {func(f files.Set) string { return f.Cert }, leafOnly, "truncated"},
		"bundle cut":       {func(f files.Set) string { return f.CA }, bundle[:len(bundle)-40], "ca.crt"},
		"bundle empty":     {func(f files.Set) string { return f.CA }, nil, "ca.crt"},
		"certificate gone": {func(f files.Set) string { return f.Cert }, []byte("gone"), "tls.crt"},
		"key with comment": {func(f files.Set) string { return f.Key }, append(key, "trailing"...), "tls.key"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// The clock of a bubble starts before these certificates: wait for them.
				time.Sleep(time.Until(next.Certificate.Leaf.NotBefore.Add(30 * time.Second)))
				dir := t.TempDir()
				good := ca.leaf(t, "svc", nil)
				f := write(t, dir, good)
				f.Poll = 10 * time.Second
				out := &logs{}
				id, err := rotation.Open(t.Context(), rotation.Config{
					Source: filesNotified(f, func() (*fakeNotifier, error) { return nil, errors.New("no inotify") }),
					Logger: out.logger(),
				})
				must(t, err)
				defer func() { _ = id.Close() }()
				if st := id.Status(); st.WatchMode != "poll" || !strings.Contains(st.WatchError, "no inotify") {
					t.Errorf("status %+v", st)
				}
				put(t, f.Cert, chain)
				put(t, f.Key, key)
				put(t, f.CA, bundle)
				put(t, torn.file(f), torn.data)
				time.Sleep(15 * time.Second)
				if st := id.Status(); serial(id) != good.Certificate.Leaf.SerialNumber.String() || !strings.Contains(st.LastError, torn.want) || st.Refused != 1 {
					t.Errorf("torn set: %+v", st)
				}
				if strings.Contains(out.String(), "PRIVATE KEY") {
					t.Error("key in the logs")
				}
				put(t, f.Cert, chain)
				put(t, f.Key, key)
				put(t, f.CA, bundle)
				time.Sleep(2 * time.Second) // failures are retried each second, also between polls
				if st := id.Status(); st.Serial != "0x"+next.Certificate.Leaf.SerialNumber.Text(16) || st.LastError != "" || st.Roots != 2 {
					t.Errorf("whole set: %+v", st)
				}
			})
		})
	}
}

// TestFilesNotifierSeam expects that a notification is debounced and followed, that an
// unchanged set is no rotation, and that polling finds a change without a notification.
func TestFilesNotifierSeam(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, "ca")
		dir := t.TempDir()
		f := write(t, dir, ca.leaf(t, "svc", nil))
		n := &fakeNotifier{Wake: make(chan struct{}, 1), Dirs: make(chan []string, 1)}
		id := open(t, filesNotified(f, func() (*fakeNotifier, error) { return n, nil }), 0)
		defer func() { _ = id.Close() }()
		dirs := <-n.Dirs
		target, err := filepath.EvalSymlinks(dir)
		must(t, err)
		if !contains(dirs, target) || !contains(dirs, filepath.Dir(target)) {
			t.Errorf("watched %v, want the directory and its parent", dirs)
		}
		write(t, dir, ca.leaf(t, "svc", nil))
		n.Wake <- struct{}{}
		time.Sleep(24 * time.Millisecond)
		synctest.Wait()
		if id.Current().Number() != 1 {
			t.Error("files written in place were believed at once")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if id.Current().Number() != 2 {
			t.Error("the notification was not followed within 5 + 20 ms")
		}
		n.Wake <- struct{}{}
		time.Sleep(time.Second)
		if id.Current().Number() != 2 {
			t.Error("an unchanged set was published again")
		}
		write(t, dir, ca.leaf(t, "svc", nil)) // without a notification
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if st := id.Status(); st.Generation != 3 || st.WatchMode != "poll" || !strings.Contains(st.WatchError, "without a notification") {
			t.Errorf("the poll must always run, and tell that nothing else did: %+v", st)
		}
		n.Wake <- struct{}{}
		time.Sleep(time.Second)
		if st := id.Status(); st.WatchMode != "notify+poll" || st.WatchError != "" {
			t.Errorf("a watcher that speaks again: %q %q", st.WatchMode, st.WatchError)
		}
	})
}

// TestFilesAtStart expects that a fault at the start is returned soon, and not after a
// timeout.
func TestFilesAtStart(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	ca := newCA(t, "ca")
	other := ca.leaf(t, "svc", nil)
	combined := func(t *testing.T, f files.Set) files.Set {
		m := ca.leaf(t, "svc", nil)
		put(t, f.Cert, append(keyPEM(t, m), chainPEM(t, m)...))
		f.Key = ""
		return f
	}
	for name, c := range map[string]struct {
		make func(t *testing.T, f files.Set) files.Set
		want string
	}{
		"no certificate": {func(t *testing.T, f files.Set) files.Set { must(t, os.Remove(f.Cert)); return f }, "no such file"},
		"no directory":   {func(t *testing.T, f files.Set) files.Set { f.CA = "/nonexistent/a/b"; return f }, "no such file"},
		"other key":      {func(t *testing.T, f files.Set) files.Set { put(t, f.Key, keyPEM(t, other)); return f }, "does not fit"},
		"directory":      {func(t *testing.T, f files.Set) files.Set { f.CA = filepath.Dir(f.CA); return f }, "not a regular file"},
		"too long":       {func(t *testing.T, f files.Set) files.Set { put(t, f.CA, make([]byte, 2<<20)); return f }, "longer than"},
		"link loop": {func(t *testing.T, f files.Set) files.Set {
			must(t, os.Remove(f.CA))
			must(t, os.Symlink("ca.crt", f.CA))
			return f
		}, "too many symbolic links"},
		"negative poll":        {func(t *testing.T, f files.Set) files.Set { f.Poll = -1; return f }, "Poll"},
		"no bundle":            {func(t *testing.T, f files.Set) files.Set { f.CA = ""; return f }, "trust bundle is empty"},
		"combined":             {combined, ""},
		"combined without key": {func(t *testing.T, f files.Set) files.Set { f.Key = ""; return f }, "want PRIVATE KEY"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := c.make(t, write(t, t.TempDir(), ca.leaf(t, "svc", nil)))
			id, err := rotation.Open(context.Background(), rotation.Config{Source: files.Source(f), Logger: slog.New(slog.DiscardHandler)})
			if err == nil {
				_ = id.Close()
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("Open: %v, want %q", err, c.want)
			}
		})
	}
}
