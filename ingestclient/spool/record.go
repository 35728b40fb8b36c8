package spool

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"
	"unicode/utf8"
)

// maxLine bounds one line of the journal: a path of 4096 bytes, escaped, and the rest.
const maxLine = 64 << 10

// op is what the element may know of a file.
type op string

const (
	opIntent op = "intent" // an upload may begin: from here on it may be stored
	opUnsent op = "unsent" // the attempt ended, and provably stored nothing
	opStored op = "stored" // its receipt was verified
	opKept   op = "kept"   // the same, and the source stays: remember it
	// What a receipt taught about a Storage Element. The id is its URL.
	opKeepsIDs   op = "keeps ids"   // it stores under the id that it is offered
	opIgnoresIDs op = "ignores ids" // it makes ids itself
	// The first line of a journal: how many lines were written together with it.
	opHead op = "head"
)

// identity tells whether two looks at a name saw the same content.
type identity struct {
	Dev   uint64 `json:"dev"`
	Ino   uint64 `json:"ino"`
	Size  int64  `json:"size"`  // bytes
	MTime int64  `json:"mtime"` // nanoseconds since 1970
}

// record is one line of the journal.
type record struct {
	Op     op       `json:"op"`
	ID     string   `json:"id"`                   // of the claim: the directory's name; of an element: its URL
	Name   string   `json:"name,omitempty"`       // path below the spool's directory
	Raw    []byte   `json:"name_bytes,omitempty"` // the same, where it is not UTF-8: JSON would change it
	File   identity `json:"file,omitzero"`
	FileID string   `json:"file_id,omitempty"` // at the element
	SHA256 string   `json:"sha256,omitempty"`  // lower-case hex
	Proven []string `json:"proven,omitempty"`  // of an intent: the elements that may have it, if each was known to keep our ids
	// Elements is of an intent without Proven: those that may have it, as far as that is known.
	Elements []string  `json:"elements,omitempty"`
	Decided  bool      `json:"decided,omitempty"` // of unsent, stored and kept: about a claim that was aside, which comes back
	Count    int       `json:"count,omitempty"`   // of a head: the lines behind it that were written with it
	N        uint64    `json:"n,omitempty"`       // of the line, from 1; 0 from versions that did not number them
	At       time.Time `json:"at"`
}

func (r *record) setName(name string) {
	if r.Name, r.Raw = name, nil; !utf8.ValidString(name) {
		r.Name, r.Raw = "", []byte(name)
	}
}

func (r *record) name() string {
	if r.Raw != nil {
		return string(r.Raw)
	}
	return r.Name
}

// line is the outer form: the checksum is over the bytes of rec as they stand.
type line struct {
	CRC string          `json:"crc"` // CRC-32C, eight hex digits
	Rec json.RawMessage `json:"rec"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sum(raw []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(raw, castagnoli)) }

// appendLine adds r as one line to b.
func appendLine(b []byte, r *record) ([]byte, error) {
	raw, err := json.Marshal(r)
	if err != nil {
		return b, err
	}
	b = fmt.Appendf(b, `{"crc":%q,"rec":%s}`, sum(raw), raw)
	return append(b, '\n'), nil
}

var (
	errBadLine = errors.New("not a line of the journal")
)

func parseLine(b []byte) (*record, error) {
	var l line
	if err := json.Unmarshal(b, &l); err != nil {
		return nil, errBadLine
	}
	if l.CRC != sum(l.Rec) {
		return nil, errBadLine
	}
	r := &record{}
	if err := json.Unmarshal(l.Rec, r); err != nil || r.ID == "" {
		return nil, errBadLine
	}
	switch r.Op {
	case opIntent, opUnsent, opStored, opKept, opKeepsIDs, opIgnoresIDs, opHead:
		return r, nil
	}
	return nil, errBadLine
}

// readRecords calls apply for each whole record, in order. A line without its
// end, or with bytes that never arrived on the disk and read as 0, is what a
// crash leaves of the last write, which nobody was told had succeeded: torn. With
// a record behind it, it is damage, and so is every other line that is no record,
// and each number that is missing: something that was acknowledged is gone. Only a
// last line that is gone without a trace cannot be told from one that was never
// written.
func readRecords(r io.Reader, apply func(*record)) (torn, damaged bool, err error) {
	in := bufio.NewReaderSize(r, maxLine)
	var order numbering
	for {
		b, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			torn = true // longer than any line of ours; its rest is looked at like a line
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return torn, damaged, err
		}
		// A line without its end was cut, even if what is there would parse.
		zero := bytes.LastIndexByte(b, 0)
		torn = torn || zero >= 0
		rec, bad := parseLine(b[zero+1:]) // the end of a line may be missing too
		switch {
		case err != nil:
			return torn || len(b) > 0, damaged || !order.complete(), nil
		case bad != nil:
			damaged = damaged || zero < 0
		default:
			damaged = !order.follows(rec) || damaged || torn
			if rec.Op != opHead {
				apply(rec)
			}
		}
	}
}

// numbering notices lines that are gone. Lines without numbers prove nothing.
type numbering struct{ last, least uint64 }

func (q *numbering) follows(r *record) bool {
	if r.N == 0 {
		return true
	}
	good := r.N == q.last+1 && (r.N == 1) == (r.Op == opHead)
	q.last = r.N
	if r.Op == opHead {
		q.least = r.N + uint64(max(0, r.Count))
	}
	return good
}

func (q *numbering) complete() bool { return q.last >= q.least }
