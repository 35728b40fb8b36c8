package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ingestclient/spool/internal/fileat"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// someRecords returns records with everything that a line can have.
func someRecords() []*Record {
	file := fileat.ID{Dev: 1, Ino: 2, Size: 3, MTime: 4}
	out := []*Record{
		{Op: OpIntent, ID: "one", File: file, At: time.Unix(5, 0).UTC()},
		{Op: OpUnsent, ID: "one", File: file, At: time.Unix(6, 0).UTC()},
		{Op: OpStored, ID: "two", FileID: "f", SHA256: "s", File: file, At: time.Unix(7, 0).UTC()},
		{Op: OpKept, ID: "three", FileID: "f", SHA256: "s", File: file, At: time.Unix(8, 0).UTC()},
	}
	for i, name := range []string{"a.txt", `quo"te\ ` + "\n", "sub/файл", "bad\xff"} {
		out[i].SetPath(name)
	}
	return out
}

func encode(t testing.TB, recs []*Record) []byte {
	t.Helper()
	var b []byte
	for _, r := range recs {
		var err error
		b, err = appendLine(b, r)
		must(t, err)
	}
	return b
}

func decode(t testing.TB, b []byte) (out []*Record, torn, damaged bool) {
	t.Helper()
	torn, damaged, err := readRecords(bytes.NewReader(b), func(r *Record) { out = append(out, r) })
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
		if got[i].Path() != want[i].Path() || fmt.Sprint(*got[i]) != fmt.Sprint(*want[i]) {
			t.Errorf("%d: got %+v, want %+v", i, got[i], want[i])
		}
	}
}

// TestTornAtEveryByte cuts a journal at any byte. The records before the cut are read,
// and no others, and that is no damage.
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

// TestDamageIsNoticed changes a byte before the last line. That is damage, and costs one
// record, or two if a lost line end joins two lines.
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

// FuzzJournal expects that accepted records are the same after they are written and read
// again, and that a cut gives no more records.
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
			if first[i].Path() != again[i].Path() || first[i].ID != again[i].ID || first[i].Op != again[i].Op {
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

const testClaims = "claimed"

// testState returns an empty state.
func testState(t *testing.T) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	must(t, err)
	t.Cleanup(func() { _ = root.Close() })
	must(t, root.Mkdir(testClaims, 0o700))
	return root
}

func openTest(t *testing.T, root *os.Root) *Journal {
	t.Helper()
	j := New(root, testClaims)
	if f, err := root.Open(FileName); err == nil {
		damaged, err := j.Read(f)
		must(t, errors.Join(err, f.Close()))
		if damaged {
			t.Fatal("damaged")
		}
	}
	must(t, j.Start())
	t.Cleanup(func() { _ = j.Close() })
	return j
}

// TestGroupCommit expects that the records of many goroutines are all on disk after
// Append.
func TestGroupCommit(t *testing.T) {
	root := testState(t)
	j := openTest(t, root)
	var wg sync.WaitGroup
	for n := range 64 {
		wg.Go(func() {
			for i := range 20 {
				r := &Record{Op: OpIntent, ID: fmt.Sprintf("%d-%d", n, i)}
				if err := j.Append(r); err != nil {
					t.Error(err)
				}
				if got := j.Last(r.ID); got != r {
					t.Errorf("%s is not there after append", r.ID)
				}
			}
		})
	}
	wg.Wait()
	must(t, j.Close())
	if err := j.Append(&Record{Op: OpIntent, ID: "late"}); !errors.Is(err, ErrWrite) {
		t.Errorf("append after close: %v", err)
	}
	if again := openTest(t, root); len(again.live) != 64*20 {
		t.Errorf("%d records came back", len(again.live))
	}
}

// TestCompaction expects that history is removed when there is enough of it, and that
// the records that count stay.
func TestCompaction(t *testing.T) {
	root := testState(t)
	j := openTest(t, root)
	must(t, j.Append(&Record{Op: OpKept, ID: "kept", Name: "k"}))
	j.Forget("kept")
	must(t, j.Append(&Record{Op: OpIntent, ID: "open", Name: "o"}))
	for n := range 3 * compactFrom / 1000 {
		id := fmt.Sprint(n)
		must(t, j.Append(&Record{Op: OpStored, ID: id, Name: strings.Repeat("n", 1000)}))
		j.Forget(id)
	}
	info, err := root.Stat(FileName)
	must(t, err)
	if info.Size() > 2*compactFrom {
		t.Errorf("%d bytes", info.Size())
	}
	must(t, j.Close())
	again := openTest(t, root)
	if again.KeptAs("k") == nil || again.Last("open") == nil {
		t.Error("lost what matters")
	}
	again.Prune(func(string) bool { return false }, func(string) bool { return false })
	if len(again.KeptFiles()) != 0 || again.Last("open") != nil {
		t.Error("prune left something")
	}
}

// TestWriteFailures expects that a failed write is undone, or that nothing more is
// written.
func TestWriteFailures(t *testing.T) {
	root := testState(t)
	j := openTest(t, root)
	must(t, j.Append(&Record{Op: OpIntent, ID: "good"}))
	must(t, j.file.Close())
	if err := j.Append(&Record{Op: OpIntent, ID: "bad"}); !errors.Is(err, ErrWrite) || j.Last("bad") != nil {
		t.Errorf("append to a closed file: %v", err)
	}
	if j.Err() == nil { // it could not be taken back either
		t.Error("not broken")
	}
	if again := openTest(t, root); again.Last("good") == nil || again.Last("bad") != nil {
		t.Error("what was acknowledged is not what is there")
	}
}
