package journal

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

	"github.com/artstore/artstore-pki/ingestclient/spool/internal/fileat"
)

// maxLine bounds one line of the journal: a path of 4096 bytes, escaped, and the rest.
const maxLine = 64 << 10

// Op is what the element may know of a file.
type Op string

// What a record says.
const (
	OpIntent     Op = "intent"      // an upload may begin: from here on it may be stored
	OpUnsent     Op = "unsent"      // the attempt ended, and provably stored nothing
	OpStored     Op = "stored"      // its receipt was verified
	OpKept       Op = "kept"        // the same, and the source stays: remember it
	OpKeepsIDs   Op = "keeps ids"   // a Storage Element, whose URL is the id, stores under the id that it is offered
	OpIgnoresIDs Op = "ignores ids" // it makes ids itself
	// The first line of a journal: how many lines were written together with it.
	opHead Op = "head"
)

// Record is one line of the journal.
type Record struct {
	Op     Op        `json:"op"`
	ID     string    `json:"id"`                   // of the claim: the directory's name; of an element: its URL
	Name   string    `json:"name,omitempty"`       // path below the spool's directory
	Raw    []byte    `json:"name_bytes,omitempty"` // the same, where it is not UTF-8: JSON would change it
	File   fileat.ID `json:"file,omitzero"`
	FileID string    `json:"file_id,omitempty"` // at the element
	SHA256 string    `json:"sha256,omitempty"`  // lower-case hex
	Proven []string  `json:"proven,omitempty"`  // of an intent: the elements that may have it, if each was known to keep our ids
	// Elements is of an intent without Proven: those that may have it, as far as that is known.
	Elements []string  `json:"elements,omitempty"`
	Decided  bool      `json:"decided,omitempty"` // of unsent, stored and kept: about a claim that was aside, which comes back
	Count    int       `json:"count,omitempty"`   // of a head: the lines behind it that were written with it
	N        uint64    `json:"n,omitempty"`       // of the line, from 1; 0 from versions that did not number them
	At       time.Time `json:"at"`
}

// SetPath sets the path of the file, which need not be UTF-8.
func (r *Record) SetPath(name string) {
	if r.Name, r.Raw = name, nil; !utf8.ValidString(name) {
		r.Name, r.Raw = "", []byte(name)
	}
}

// Path returns the path of the file, below the directory of the spool.
func (r *Record) Path() string {
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

func checksum(raw []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(raw, castagnoli)) }

// appendLine adds r as one line to b.
func appendLine(b []byte, r *Record) ([]byte, error) {
	raw, err := json.Marshal(r)
	if err != nil {
		return b, err
	}
	b = fmt.Appendf(b, `{"crc":%q,"rec":%s}`, checksum(raw), raw)
	return append(b, '\n'), nil
}

var (
	errBadLine = errors.New("not a line of the journal")
)

func parseLine(b []byte) (*Record, error) {
	var l line
	if err := json.Unmarshal(b, &l); err != nil {
		return nil, errBadLine
	}
	if l.CRC != checksum(l.Rec) {
		return nil, errBadLine
	}
	r := &Record{}
	if err := json.Unmarshal(l.Rec, r); err != nil || r.ID == "" {
		return nil, errBadLine
	}
	switch r.Op {
	case OpIntent, OpUnsent, OpStored, OpKept, OpKeepsIDs, OpIgnoresIDs, opHead:
		return r, nil
	}
	return nil, errBadLine
}

// readRecords calls apply for each complete record, in order. torn: there is a line
// without its end, or with bytes that never arrived on the disk and read as 0. A crash
// leaves that of the last write, which was not acknowledged. damaged: there is a record
// behind a torn line, another line that is no record, or a missing number. Then records
// that were acknowledged are lost. A last line that is lost completely cannot be told
// from one that was never written.
func readRecords(r io.Reader, apply func(*Record)) (torn, damaged bool, err error) {
	in := bufio.NewReaderSize(r, maxLine)
	var order sequence
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

// sequence finds missing lines by their numbers. Lines without numbers prove nothing.
type sequence struct{ last, least uint64 }

func (q *sequence) follows(r *Record) bool {
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

func (q *sequence) complete() bool { return q.last >= q.least }
