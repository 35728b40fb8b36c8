package spool

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// someRecords covers what a line can hold.
func someRecords() []*record {
	file := identity{Dev: 1, Ino: 2, Size: 3, MTime: 4}
	out := []*record{
		{Op: opIntent, ID: "one", File: file, At: time.Unix(5, 0).UTC()},
		{Op: opUnsent, ID: "one", File: file, At: time.Unix(6, 0).UTC()},
		{Op: opStored, ID: "two", FileID: "f", SHA256: "s", File: file, At: time.Unix(7, 0).UTC()},
		{Op: opKept, ID: "three", FileID: "f", SHA256: "s", File: file, At: time.Unix(8, 0).UTC()},
	}
	for i, name := range []string{"a.txt", `quo"te\ ` + "\n", "sub/файл", "bad\xff"} {
		out[i].setName(name)
	}
	return out
}

func encode(t testing.TB, recs []*record) []byte {
	t.Helper()
	var b []byte
	for _, r := range recs {
		var err error
		b, err = appendLine(b, r)
		must(t, err)
	}
	return b
}

func decode(t testing.TB, b []byte) (out []*record, torn, damaged bool) {
	t.Helper()
	torn, damaged, err := readRecords(bytes.NewReader(b), func(r *record) { out = append(out, r) })
	must(t, err)
	return out, torn, damaged
}

func TestRecordsComeBack(t *testing.T) {
	want := someRecords()
	got, torn, damaged := decode(t, encode(t, want))
	if torn || damaged || len(got) != len(want) {
		t.Fatalf("%d records, torn %v, damaged %v", len(got), torn, damaged)
	}
	for i := range want {
		if got[i].name() != want[i].name() || fmt.Sprint(*got[i]) != fmt.Sprint(*want[i]) {
			t.Errorf("%d: got %+v, want %+v", i, got[i], want[i])
		}
	}
}

// A journal that was cut at any byte gives the records before the cut, and no
// other, and is no damage.
func TestTornAtEveryByte(t *testing.T) {
	whole := encode(t, someRecords())
	for n := range whole {
		got, torn, damaged := decode(t, whole[:n])
		lines := bytes.Count(whole[:n], []byte("\n"))
		if len(got) != lines || damaged || torn != (n > 0 && whole[n-1] != '\n') {
			t.Fatalf("cut at %d: %d records of %d lines, torn %v, damaged %v", n, len(got), lines, torn, damaged)
		}
	}
}

// A changed byte before the last line is damage, and costs one record at most
// two (a lost line end joins it to the next).
func TestDamageIsNoticed(t *testing.T) {
	whole := encode(t, someRecords())
	last := bytes.LastIndexByte(whole[:len(whole)-1], '\n')
	for n := range last - 1 {
		b := bytes.Clone(whole)
		b[n] ^= 0x10
		got, _, damaged := decode(t, b)
		if same := len(got) == len(someRecords()); same == damaged {
			t.Fatalf("byte %d: %d records, damaged %v", n, len(got), damaged)
		}
	}
	long := append([]byte(strings.Repeat("x", 3*maxLine)+"\n"), whole...)
	if got, _, damaged := decode(t, long); len(got) != 4 || !damaged {
		t.Errorf("after a long line: %d records, damaged %v", len(got), damaged)
	}
}

// FuzzJournal: never panics; what it accepts is whole, so writing it again and
// reading that gives the same; a cut can only shorten the list.
func FuzzJournal(f *testing.F) {
	whole := encode(f, someRecords())
	f.Add(whole, len(whole)/2)
	f.Add([]byte(`{"crc":"00000000","rec":{}}`+"\n"), 3)
	f.Add([]byte("\n\n"), 1)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		first, _, _ := decode(t, b)
		again, torn, damaged := decode(t, encode(t, first))
		if torn || damaged || len(again) != len(first) {
			t.Fatalf("%d records became %d", len(first), len(again))
		}
		for i := range first {
			if first[i].name() != again[i].name() || first[i].ID != again[i].ID || first[i].Op != again[i].Op {
				t.Fatalf("%+v became %+v", first[i], again[i])
			}
		}
		if cut = min(max(cut, 0), len(b)); len(b) < maxLine {
			if part, _, _ := decode(t, b[:cut]); len(part) > len(first) {
				t.Fatalf("a cut made %d records of %d", len(part), len(first))
			}
		}
	})
}

func openTest(t *testing.T, l layout) *journal {
	t.Helper()
	j, damaged, err := openJournal(l)
	must(t, err)
	if damaged {
		t.Fatal("damaged")
	}
	must(t, j.start())
	t.Cleanup(func() { _ = j.close() })
	return j
}

// Records of many goroutines are all there, and share their commits.
func TestGroupCommit(t *testing.T) {
	l := testLayout(t)
	j := openTest(t, l)
	var wg sync.WaitGroup
	for n := range 64 {
		wg.Go(func() {
			for i := range 20 {
				r := &record{Op: opIntent, ID: fmt.Sprintf("%d-%d", n, i)}
				if err := j.append(r); err != nil {
					t.Error(err)
				}
				if got := j.of(r.ID); got != r {
					t.Errorf("%s is not there after append", r.ID)
				}
			}
		})
	}
	wg.Wait()
	must(t, j.close())
	if err := j.append(&record{Op: opIntent, ID: "late"}); !errors.Is(err, errJournal) {
		t.Errorf("append after close: %v", err)
	}
	if again := openTest(t, l); len(again.live) != 64*20 {
		t.Errorf("%d records came back", len(again.live))
	}
}

// History goes, when there is enough of it, and what matters stays.
func TestCompaction(t *testing.T) {
	l := testLayout(t)
	j := openTest(t, l)
	must(t, j.append(&record{Op: opKept, ID: "kept", Name: "k"}))
	j.forget("kept")
	must(t, j.append(&record{Op: opIntent, ID: "open", Name: "o"}))
	for n := range 3 * compactFrom / 1000 {
		id := fmt.Sprint(n)
		must(t, j.append(&record{Op: opStored, ID: id, Name: strings.Repeat("n", 1000)}))
		j.forget(id)
	}
	info, err := os.Stat(l.path(journalName))
	must(t, err)
	if info.Size() > 2*compactFrom {
		t.Errorf("%d bytes", info.Size())
	}
	must(t, j.close())
	again := openTest(t, l)
	if again.keptAs("k") == nil || again.of("open") == nil {
		t.Error("lost what matters")
	}
	again.prune(func(string) bool { return false }, func(string) bool { return false })
	if len(again.identities()) != 0 || again.of("open") != nil {
		t.Error("prune left something")
	}
}

// A write that fails half-way is taken back; a failed fsync ends the journal.
func TestWriteFailures(t *testing.T) {
	l := testLayout(t)
	j := openTest(t, l)
	must(t, j.append(&record{Op: opIntent, ID: "good"}))
	must(t, j.file.Close())
	if err := j.append(&record{Op: opIntent, ID: "bad"}); !errors.Is(err, errJournal) || j.of("bad") != nil {
		t.Errorf("append to a closed file: %v", err)
	}
	if j.broken() == nil { // it could not be taken back either
		t.Error("not broken")
	}
	if again := openTest(t, l); again.of("good") == nil || again.of("bad") != nil {
		t.Error("what was acknowledged is not what is there")
	}
}
