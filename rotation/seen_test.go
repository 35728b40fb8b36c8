package rotation_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
)

// layout is a way to hand over a set: make leaves the first one, change returns
// when the last write or rename of the next one is done.
type layout struct {
	name   string
	bar    time.Duration // for the median; 0: none is promised
	make   func(t testing.TB, dir string, m rotation.Material) files.Set
	change func(t testing.TB, dir string, m rotation.Material) (done time.Time)
}

var layouts = []layout{
	{"written in place", 0, write, func(t testing.TB, dir string, m rotation.Material) time.Time {
		write(t, dir, m)
		return time.Now()
	}},
	{"renamed over", 0, write, func(t testing.TB, dir string, m rotation.Material) time.Time {
		for _, p := range fileNames(write(t, t.TempDir(), m)) {
			must(t, os.Rename(p, filepath.Join(dir, filepath.Base(p))))
		}
		return time.Now()
	}},
	{"rm + re-create", 250 * time.Millisecond, write, func(t testing.TB, dir string, m rotation.Material) time.Time {
		for _, n := range []string{"tls.crt", "tls.key", "ca.crt"} {
			must(t, os.Remove(filepath.Join(dir, n)))
		}
		write(t, dir, m)
		return time.Now()
	}},
	{"directory replaced", 20 * time.Millisecond, write, func(t testing.TB, dir string, m rotation.Material) time.Time {
		fresh, old := dir+".fresh", dir+".old"
		write(t, fresh, m)
		must(t, os.RemoveAll(old))
		must(t, os.Rename(dir, old))
		must(t, os.Rename(fresh, dir))
		return time.Now()
	}},
	{"..data swap", 20 * time.Millisecond, makeVolume, swapVolume},
	{"link to the directory swapped", 20 * time.Millisecond, makeLinked, swapLinked},
}

func fileNames(f files.Set) []string { return []string{f.Key, f.Cert, f.CA} }

// makeVolume lays out a Kubernetes secret volume; swapVolume changes it as kubelet does.
func makeVolume(t testing.TB, dir string, m rotation.Material) files.Set {
	t.Helper()
	must(t, os.Mkdir(dir, 0o700))
	swapVolume(t, dir, m)
	for _, n := range []string{"tls.crt", "tls.key", "ca.crt"} {
		must(t, os.Symlink(filepath.Join("..data", n), filepath.Join(dir, n)))
	}
	return files.Set{Dir: dir}
}

func swapVolume(t testing.TB, dir string, m rotation.Material) time.Time {
	t.Helper()
	data, tmp := filepath.Join(dir, "..data"), filepath.Join(dir, "..data_tmp")
	write(t, filepath.Join(dir, "..gen"+m.Version), m)
	old, _ := os.Readlink(data)
	must(t, os.Symlink("..gen"+m.Version, tmp))
	must(t, os.Rename(tmp, data))
	done := time.Now()
	if old != "" {
		must(t, os.RemoveAll(filepath.Join(dir, old)))
	}
	return done
}

// makeLinked is the layout of this project: one link leads to all files.
func makeLinked(t testing.TB, dir string, m rotation.Material) files.Set {
	t.Helper()
	must(t, os.Mkdir(dir, 0o700))
	swapLinked(t, dir, m)
	return files.Set{Dir: filepath.Join(dir, "current")}
}

func swapLinked(t testing.TB, dir string, m rotation.Material) time.Time {
	t.Helper()
	write(t, filepath.Join(dir, "gen"+m.Version), m)
	must(t, os.Symlink("gen"+m.Version, filepath.Join(dir, "next")))
	must(t, os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "current")))
	return time.Now()
}

// publications sends when each generation came into effect, with its serial.
type publication struct {
	serial string
	trust  string
	at     time.Time
}

func publications(t testing.TB, id *rotation.Identity) <-chan publication {
	out := make(chan publication, 4096)
	t.Cleanup(id.Subscribe(func(c rotation.Change) {
		if c.Err == nil {
			out <- publication{c.Generation.Leaf().SerialNumber.String(), c.Generation.TrustDigest(), time.Now()}
		}
	}))
	return out
}

// slack is the factor by which a median may exceed its limit. The machine may run many
// tests at the same time; the printed values are the measurement.
func slack() time.Duration {
	if raceEnabled {
		return 10
	}
	return 5
}

// TestSeenAfter measures, for each way to replace a set, the time from the last write or
// rename to the publication, by notification alone. It fails at a small multiple of the
// limits.
func TestSeenAfter(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	ca := newCA(t, "ca")
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "tls")
			id := follow(t, l.make(t, dir, ca.leaf(t, "svc", nil)))
			seen := publications(t, id)
			rounds := 50
			if l.bar == 0 {
				rounds = 20
			}
			var took []time.Duration
			for range rounds {
				m := ca.leaf(t, "svc", nil)
				done := l.change(t, dir, m)
				p := await(t, seen)
				if want := m.Certificate.Leaf.SerialNumber.String(); p.serial != want {
					t.Fatalf("published %s, want %s", p.serial, want)
				}
				took = append(took, p.at.Sub(done))
			}
			median, most := medianOf(took)
			t.Logf("%-32s median %8s  max %8s  bar %s", l.name, median, most, l.bar)
			if l.bar > 0 && median > slack()*l.bar {
				t.Errorf("median %s, want at most %s", median, slack()*l.bar)
			}
		})
	}
}

func await(t testing.TB, seen <-chan publication) publication {
	t.Helper()
	select {
	case p := <-seen:
		return p
	case <-time.After(time.Minute):
		t.Fatal("nothing was published")
	}
	return publication{}
}

func medianOf(d []time.Duration) (median, most time.Duration) {
	slices.Sort(d)
	return d[len(d)/2].Round(10 * time.Microsecond), d[len(d)-1].Round(10 * time.Microsecond)
}
