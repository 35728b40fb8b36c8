package translog_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/artstore/artstore-pki/ca/translog"
)

func newKey(t testing.TB, seed byte) *translog.Key {
	t.Helper()
	k, err := translog.NewKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestTreeAgreesWithTheLibrary grows both trees side by side: root, edge and
// complete subtrees are those that tlog computes from all stored hashes.
func TestTreeAgreesWithTheLibrary(t *testing.T) {
	var stored []tlog.Hash
	hashes := tlog.HashReaderFunc(func(idx []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(idx))
		for i, x := range idx {
			out[i] = stored[x]
		}
		return out, nil
	})
	var tree translog.Tree
	if want, _ := tlog.TreeHash(0, hashes); tree.Root() != want {
		t.Errorf("empty tree: %v", tree.Root())
	}
	for n := range int64(600) {
		leaf := translog.Entry{Serial: fmt.Sprint(n)}.Leaf()
		more, err := tlog.StoredHashesForRecordHash(n, leaf, hashes)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, more...)
		tree.Append(leaf, func(level int, i int64, root tlog.Hash) {
			if want := stored[tlog.StoredHashIndex(level, i)]; root != want {
				t.Errorf("subtree %d at level %d after entry %d: %v, want %v", i, level, n, root, want)
			}
		})
		want, err := tlog.TreeHash(n+1, hashes)
		if err != nil || tree.Root() != want || tree.Size() != n+1 {
			t.Fatalf("%d entries: root %v, want %v, %v", n+1, tree.Root(), want, err)
		}
		again, err := translog.ParseTree(tree.Size(), tree.Edge())
		if err != nil || again.Root() != want {
			t.Fatalf("%d entries: read back %v, %v", n+1, again.Root(), err)
		}
	}
	for _, size := range []int64{-1, 0, 599, 601} {
		if _, err := translog.ParseTree(size, tree.Edge()); err == nil {
			t.Errorf("the edge of 600 entries was taken for that of %d", size)
		}
	}
}

// TestEveryFieldCounts: no field of an entry can change, or move to its
// neighbour, without another leaf.
func TestEveryFieldCounts(t *testing.T) {
	base := translog.Entry{At: time.UnixMilli(1), Kind: "k", Caller: "ca", Service: "se", Serial: "7", Rule: "r", Detail: "d"}
	seen := map[tlog.Hash]string{base.Leaf(): "base"}
	for name, change := range map[string]func(*translog.Entry){
		"time":          func(e *translog.Entry) { e.At = time.UnixMilli(2) },
		"negative time": func(e *translog.Entry) { e.At = time.UnixMilli(-1) },
		"kind":          func(e *translog.Entry) { e.Kind = "K" },
		"caller":        func(e *translog.Entry) { e.Caller = "c" },
		"service":       func(e *translog.Entry) { e.Service = "ase" },
		"moved":         func(e *translog.Entry) { e.Caller, e.Service = "c", "ase" },
		"serial":        func(e *translog.Entry) { e.Serial = "8" },
		"rule":          func(e *translog.Entry) { e.Rule = "" },
		"rule moved":    func(e *translog.Entry) { e.Rule, e.Detail = "", "rd" },
		"detail":        func(e *translog.Entry) { e.Detail = "D" },
		"subject":       func(e *translog.Entry) { e.Subject[31] = 1 },
	} {
		e := base
		change(&e)
		if other, taken := seen[e.Leaf()]; taken {
			t.Errorf("%s has the leaf of %s", name, other)
		}
		seen[e.Leaf()] = name
		back, err := translog.ParseEntry(e.Marshal())
		if err != nil || back.Marshal() == nil || !bytes.Equal(back.Marshal(), e.Marshal()) || !back.At.Equal(e.At) || back.Kind != e.Kind || back.Subject != e.Subject {
			t.Errorf("%s: read back %+v, %v", name, back, err)
		}
	}
	one, two := translog.NewFields("x").Texts([]string{"a", "b"}), translog.NewFields("x").Texts([]string{"a"}).Text("b")
	if one.Digest() == two.Digest() {
		t.Error("a list of two and a list of one with a text behind it are the same")
	}
}

func TestEntryRefused(t *testing.T) {
	good := translog.Entry{Kind: "issued"}.Marshal()
	for name, data := range map[string][]byte{
		"nothing": nil, "cut": good[:len(good)-1], "one more": append(bytes.Clone(good), 0),
		"other form":   bytes.Replace(good, []byte("entry 1"), []byte("entry 2"), 1),
		"long length":  append([]byte{0xff, 0xff, 0xff, 0xff}, good[4:]...),
		"short time":   translog.NewFields("artstore-pki entry 1").Text("1234567").Texts(nil).Text("").Text("").Text("").Text("").Text("").Text(""),
		"short digest": translog.NewFields("artstore-pki entry 1").Int(0).Text("").Text("").Text("").Text("").Text("").Text("").Text("x"),
	} {
		if e, err := translog.ParseEntry(data); err == nil {
			t.Errorf("%s was read as %+v", name, e)
		}
	}
}

func TestHead(t *testing.T) {
	key := newKey(t, 1)
	want := translog.Head{Size: 42, Root: sha256.Sum256([]byte("root")), Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	text, err := key.Sign(want)
	if err != nil {
		t.Fatal(err)
	}
	v, err := translog.ParseVerifier(key.Verifier().String() + "\n")
	if err != nil {
		t.Fatal(err)
	}
	want.Origin = v.Origin()
	if got, err := v.Open(text); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if size, ok := translog.SizeOf(text); !ok || size != 42 {
		t.Errorf("size %d %v", size, ok)
	}
	if lines := strings.Split(string(text), "\n"); lines[0] != v.Origin() || lines[1] != "42" || lines[2] != base64.StdEncoding.EncodeToString(want.Root[:]) {
		t.Errorf("not the form of a checkpoint: %q", text)
	}
	if _, err := newKey(t, 2).Verifier().Open(text); !errors.Is(err, translog.ErrForeign) {
		t.Errorf("another key: %v", err)
	}
	forged := bytes.Replace(text, []byte("\n42\n"), []byte("\n43\n"), 1)
	if _, err := v.Open(forged); !errors.Is(err, translog.ErrForeign) {
		t.Errorf("forged: %v", err)
	}
	for name, bad := range map[string][]byte{"empty": nil, "no note": []byte("x\n1\n"), "long": bytes.Repeat([]byte("x"), translog.MaxHead+1)} {
		if _, err := v.Open(bad); err == nil || errors.Is(err, translog.ErrForeign) {
			t.Errorf("%s: %v", name, err)
		}
		if _, ok := translog.SizeOf(bad); ok {
			t.Errorf("%s has a size", name)
		}
	}
	if _, err := translog.NewKey(nil); err == nil {
		t.Error("no key is a key")
	}
	if _, err := translog.ParseVerifier("x+1+y"); err == nil {
		t.Error("a broken public key was read")
	}
}

func TestHeadRefused(t *testing.T) {
	root := base64.StdEncoding.EncodeToString(make([]byte, 32))
	good := "log\n7\n" + root + "\nother extension\n"
	if h, err := translog.ParseHead(good); err != nil || h.Size != 7 || !h.Time.IsZero() {
		t.Errorf("%+v %v", h, err)
	}
	for _, text := range []string{
		"", "log\n7\n" + root, "\n7\n" + root + "\n", "log\n07\n" + root + "\n", "log\n-1\n" + root + "\n", "log\n+7\n" + root + "\n", "log\nx\n" + root + "\n",
		"log\n7\nAAAA\n", "log\n7\n!\n", "log\n7\n" + root + "\n\n", "log\n7\n" + root + "\ntime yesterday\n", "log\n7\n" + strings.Repeat("A", translog.MaxHead) + "\n",
	} {
		if h, err := translog.ParseHead(text); err == nil {
			t.Errorf("%.60q was read as %+v", text, h)
		}
	}
}

// FuzzParseEntry: whatever is read is written back byte for byte.
func FuzzParseEntry(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(translog.Entry{At: time.UnixMilli(-5), Kind: "issued", Serial: "7", Detail: "d"}.Marshal())
	f.Add([]byte("\x00\x00\x00\x14artstore-pki entry 1\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := translog.ParseEntry(data)
		if err == nil && !bytes.Equal(e.Marshal(), data) {
			t.Errorf("%x was read as %+v", data, e)
		}
	})
}

// FuzzHead: nothing that the key did not sign opens, and what reads has a sane size.
func FuzzHead(f *testing.F) {
	key := newKey(f, 1)
	text, err := key.Sign(translog.Head{Size: 1})
	if err != nil {
		f.Fatal(err)
	}
	signed, _, _ := strings.Cut(string(text), "\n\n")
	f.Add(text)
	f.Add([]byte(signed + "\n"))
	f.Add([]byte("a\n1\n\n— a AAAA\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if h, err := key.Verifier().Open(data); err == nil && (h.Size != 1 || !bytes.HasPrefix(data, []byte(signed))) {
			t.Errorf("opened %q as %+v", data, h)
		}
		if h, err := translog.ParseHead(string(data)); err == nil && (h.Size < 0 || h.Origin == "") {
			t.Errorf("read %q as %+v", data, h)
		}
	})
}
