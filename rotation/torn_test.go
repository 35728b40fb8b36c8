package rotation_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	mrand "math/rand/v2"
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

// newList signs a list of no serials; n orders lists of one issuer.
func newList(t testing.TB, ca *testCA, byRoot bool, n int64) *x509.RevocationList {
	t.Helper()
	issuer, key := ca.inter, ca.interKey
	if byRoot {
		issuer, key = ca.root, ca.rootKey
	}
	at := time.Now().Add(time.Duration(n-1000) * time.Second)
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(n), ThisUpdate: at, NextUpdate: at.Add(time.Hour)}, issuer, key)
	must(t, err)
	l, err := x509.ParseRevocationList(der)
	must(t, err)
	return l
}

// wholeSet is the content of a directory by file name.
type wholeSet struct {
	m     rotation.Material
	files map[string][]byte
}

var setNames = []string{"tls.crt", "tls.key", "ca.crt", "crl.pem"}

// wholeSets makes n sets of ascending lists, with the same three roots in another order each.
func wholeSets(t testing.TB, n int) []wholeSet {
	t.Helper()
	cas := []*testCA{newCA(t, "a"), newCA(t, "b"), newCA(t, "c")}
	sets := make([]wholeSet, n)
	for i := range sets {
		m := cas[0].leaf(t, "svc", nil)
		m.Roots = nil
		for j := range cas {
			m.Roots = append(m.Roots, cas[(i+j)%3].root)
		}
		lists := []*x509.RevocationList{newList(t, cas[0], false, int64(i)), newList(t, cas[1], true, int64(i))}
		sets[i] = wholeSet{m, map[string][]byte{
			"tls.crt": chainPEM(t, m), "tls.key": keyPEM(t, m), "ca.crt": pemfile.EncodeCertificates(m.Roots),
			"crl.pem": append(pemfile.EncodeRevocationLists(lists), pemfile.EncodeCertificates([]*x509.Certificate{cas[0].inter})...),
		}}
	}
	return sets
}

func (s wholeSet) put(t testing.TB, dir string) {
	t.Helper()
	for _, n := range setNames {
		put(t, filepath.Join(dir, n), s.files[n])
	}
}

// careless is a writer that replaces one set by another in place, in any order, and
// stops in the middle of a file. Its seed is fixed.
type careless struct {
	*mrand.Rand
	counts map[string]int
}

func newCareless(seed uint64) *careless {
	return &careless{mrand.New(mrand.NewPCG(seed, 4)), map[string]int{}}
}

// tear leaves dir somewhere between two sets. What it leaves is never whole.
func (w *careless) tear(t testing.TB, dir string, next wholeSet) {
	t.Helper()
	order := w.Perm(len(setNames))
	stop := w.IntN(len(order))
	for _, i := range order[:stop] {
		put(t, filepath.Join(dir, setNames[i]), next.files[setNames[i]])
	}
	name := setNames[order[stop]]
	data, path := next.files[name], filepath.Join(dir, name)
	switch kind := w.IntN(10); {
	case kind < 5: // the last byte is a newline, without which a file is whole
		w.counts["cut anywhere"]++
		put(t, path, data[:w.IntN(len(data)-2)])
	case kind < 7 && name != "tls.key":
		w.counts["cut between blocks"]++
		end := []byte("-----\n")
		blocks := bytes.SplitAfter(data, append([]byte("-----END CERTIFICATE"), end...))
		if name == "crl.pem" {
			blocks = bytes.SplitAfter(data, append([]byte("-----END X509 CRL"), end...))
		}
		put(t, path, bytes.Join(blocks[:1+w.IntN(len(blocks)-1-boolInt(len(blocks[len(blocks)-1]) == 0))], nil))
	case kind < 8:
		w.counts["head missing"]++
		put(t, path, data[1+w.IntN(len(data)-2):])
	case kind < 9:
		w.counts["file missing"]++
		if err := os.Remove(path); !os.IsNotExist(err) {
			must(t, err)
		}
	default:
		w.counts["hole"]++
		holed := bytes.Clone(data)
		at := w.IntN(len(data) - 8)
		copy(holed[at:], make([]byte, 8))
		put(t, path, holed)
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestTornStates makes 2 000 states that a careless writer leaves behind. Each of them
// is notified and stays for up to 0.5 s. None is served; the last good set stays, and
// the next whole one is served within 50 ms by the clock of the bubble.
func TestTornStates(t *testing.T) {
	states := 2000
	if raceEnabled || testing.Short() {
		states = 400
	}
	synctest.Test(t, func(t *testing.T) {
		sets := wholeSets(t, 41)
		dir := t.TempDir()
		sets[0].put(t, dir)
		n := &fakeNotifier{Wake: make(chan struct{}, 1)}
		id := open(t, filesNotified(files.Set{Dir: dir}, func() (*fakeNotifier, error) { return n, nil }), 0)
		defer func() { _ = id.Close() }()
		seen := publications(t, id)
		w := newCareless(1)
		var took []time.Duration
		for i := range states {
			round := states / (len(sets) - 1)
			next := sets[min(1+i/round, len(sets)-1)]
			good := serial(id)
			w.tear(t, dir, next)
			wake(n)
			time.Sleep(40*time.Millisecond + time.Duration(w.IntN(450))*time.Millisecond)
			synctest.Wait()
			if serial(id) != good {
				t.Fatalf("state %d was served: %v", i, w.counts)
			}
			if i%round == round-1 && good != next.m.Certificate.Leaf.SerialNumber.String() {
				next.put(t, dir)
				done := time.Now()
				wake(n)
				took = append(took, (<-seen).at.Sub(done))
			}
		}
		median, most := medianOf(took)
		t.Logf("%d torn states %v, none served; %d whole ones served after: median %s, max %s", states, w.counts, len(took), median, most)
		if most > 50*time.Millisecond {
			t.Errorf("a whole set was served after %s", most)
		}
	})
}

func wake(n *fakeNotifier) {
	select {
	case n.Wake <- struct{}{}:
	default:
	}
}

// TestTornWrites is TestTornStates with the real clock and inotify: 10 000 writes
// without a pause, and a whole set after each hundred.
func TestTornWrites(t *testing.T) {
	const burst = 100
	bursts := 100
	if raceEnabled || testing.Short() {
		bursts = 10
	}
	sets := wholeSets(t, bursts+1)
	dir := t.TempDir()
	sets[0].put(t, dir)
	id := follow(t, files.Set{Dir: dir})
	seen := publications(t, id)
	w := newCareless(2)
	var took []time.Duration
	for _, next := range sets[1:] {
		for range burst {
			w.tear(t, dir, next)
		}
		next.put(t, dir)
		done := time.Now()
		p := await(t, seen)
		if want := next.m.Certificate.Leaf.SerialNumber.String(); p.serial != want {
			t.Fatalf("published %s, want %s", p.serial, want)
		}
		took = append(took, p.at.Sub(done))
	}
	median, most := medianOf(took)
	t.Logf("%d torn writes %v, none served; %d whole sets served after: median %s, max %s", bursts*burst, w.counts, len(took), median, most)
	if median > slack()*50*time.Millisecond {
		t.Errorf("median %s, want at most %s", median, slack()*50*time.Millisecond)
	}
}

// TestTornSwaps expects that a volume that is swapped without a pause never yields the
// leaf of one set with the bundle of another, and that the last set is served.
func TestTornSwaps(t *testing.T) {
	const swaps = 401 // not back to the first of 8
	var kinds []rotation.Material
	for i := range 8 {
		kinds = append(kinds, newCA(t, fmt.Sprint("ca", i)).leaf(t, "svc", nil))
	}
	dir := filepath.Join(t.TempDir(), "tls")
	pairs := map[string]string{}
	id := follow(t, makeVolume(t, dir, kinds[0]))
	pairs[serial(id)] = id.Current().TrustDigest()
	seen := publications(t, id)
	for i := range swaps {
		m := kinds[(i+1)%len(kinds)]
		m.Version = fmt.Sprint("v", i)
		swapVolume(t, dir, m)
	}
	last := kinds[swaps%len(kinds)].Certificate.Leaf.SerialNumber.String()
	n := 0
	for p := (publication{}); p.serial != last || serial(id) != last; n++ {
		p = await(t, seen)
		if was, known := pairs[p.serial]; known && was != p.trust {
			t.Fatal("a leaf was served beside two bundles")
		}
		pairs[p.serial] = p.trust
	}
	trusts := map[string]bool{}
	for _, d := range pairs {
		trusts[d] = true
	}
	if len(trusts) != len(pairs) {
		t.Error("a bundle was served beside two leaves")
	}
	t.Logf("%d swaps, %d served, each whole", swaps, n)
}

// TestFilesLoss expects that a set that changed in place and lacks a root waits for a
// second, and that a swapped one does not wait.
func TestFilesLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newCA(t, "a"), newCA(t, "b")
		two := a.leaf(t, "svc", nil)
		two.Roots = append(two.Roots, b.root)
		one := two
		one.Roots = one.Roots[:1]
		dir := filepath.Join(t.TempDir(), "tls")
		n := &fakeNotifier{Wake: make(chan struct{}, 1)}
		set := makeLinked(t, dir, two)
		id := open(t, filesNotified(set, func() (*fakeNotifier, error) { return n, nil }), 0)
		defer func() { _ = id.Close() }()
		roots := func(after time.Duration) int {
			wake(n)
			time.Sleep(after)
			synctest.Wait()
			return id.Status().Roots
		}
		bundle := filepath.Join(set.Dir, "ca.crt")
		put(t, bundle, pemfile.EncodeCertificates(one.Roots))
		if n := roots(990 * time.Millisecond); n != 2 {
			t.Errorf("%d roots, a cut bundle was believed", n)
		}
		if n := roots(20 * time.Millisecond); n != 1 {
			t.Errorf("%d roots, want the one that stood for a second", n)
		}
		put(t, bundle, pemfile.EncodeCertificates(two.Roots))
		if n := roots(31 * time.Millisecond); n != 2 {
			t.Errorf("%d roots, more trust needs no second", n)
		}
		one.Version = "one"
		swapLinked(t, dir, one)
		if n := roots(11 * time.Millisecond); n != 1 {
			t.Errorf("%d roots, a swap is never in the middle", n)
		}
		stranger := b.leaf(t, "svc", nil)
		stranger.Roots, stranger.Version = one.Roots, "one"
		write(t, set.Dir, stranger) // as between the halves of a change of authority
		good := serial(id)
		if roots(990 * time.Millisecond); serial(id) != good {
			t.Error("a chain that does not lead to its bundle was believed")
		}
		if roots(20 * time.Millisecond); serial(id) == good || id.Status().OwnTrusted {
			t.Error("meant, it is believed after a second")
		}
		if strings.Contains(id.Status().LastError, "fit") {
			t.Error(id.Status().LastError)
		}
	})
}
