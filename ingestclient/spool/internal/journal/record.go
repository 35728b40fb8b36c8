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

// maxLine bounds one line of the journal, in bytes: an escaped path of 4096 bytes and the rest.
const maxLine = 64 << 10

// Op says what the element may have of a file.
type Op string

// All kinds of records.
const (
	OpIntent     Op = "intent"      // the end of a request may be sent: from here on the file may be stored
	OpUnsent     Op = "unsent"      // the attempt ended, and it is proved that nothing was stored
	OpStored     Op = "stored"      // the receipt was verified
	OpKept       Op = "kept"        // the receipt was verified, and the source stays
	OpKeepsIDs   Op = "keeps ids"   // a Storage Element, whose URL is the id, stores under the id that it is offered
	OpIgnoresIDs Op = "ignores ids" // a Storage Element makes ids itself
	// opHead is the first line of a journal. It says how many lines were written with it.
	opHead Op = "head"
)

// Record is one line of the journal.
type Record struct {
	Op     Op        `json:"op"`
	ID     string    `json:"id"`                   // of the claim; about an element, its URL
	Name   string    `json:"name,omitempty"`       // path below the spool's directory
	Raw    []byte    `json:"name_bytes,omitempty"` // the path if it is not UTF-8, which JSON would change
	File   fileat.ID `json:"file,omitzero"`
	FileID string    `json:"file_id,omitempty"` // at the element
	SHA256 string    `json:"sha256,omitempty"`  // lower-case hex
	Proven []string  `json:"proven,omitempty"`  // of an intent: the elements that may have it, if each was known to keep our ids
	// Elements is for an intent without Proven: the elements that may have the file, as far
	// as that is known.
	Elements []string  `json:"elements,omitempty"`
	Decided  bool      `json:"decided,omitempty"` // of unsent, stored and kept: the claim was quarantined, and is resolved
	Count    int       `json:"count,omitempty"`   // of a head: the number of lines that were written with it
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

// line is one line of the file. The checksum is over the bytes of rec as they are in it.
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

// parseLine parses one line. The error does not say what is wrong: a bad line is damage.
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

// readRecords calls apply for each complete record, in order.
//
// torn reports a line without its end, or with bytes that never reached the disk and read as
// 0. A crash leaves that of the last write, which was not acknowledged. damaged reports a
// record after a torn line, another line that is no record, or a missing number: then
// acknowledged records are lost. If the last line is lost completely, that is not noticed.
func readRecords(r io.Reader, apply func(*Record)) (torn, damaged bool, err error) {
	in := bufio.NewReaderSize(r, maxLine)
	var order sequence
	for {
		b, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			torn = true // longer than any line of a journal; the rest is read like another line
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return torn, damaged, err
		}
		// A line without its end was cut, even if the rest of it can be parsed.
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

// sequence finds missing lines by their numbers. Old versions wrote lines without numbers.
type sequence struct {
	last  uint64 // number of the last line
	least uint64 // number of the last line that was written with the head
}

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
