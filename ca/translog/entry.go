package translog

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// entryForm begins every entry. A change of the fields below needs a new form, so that old
// entries are still read as they were written.
const entryForm = "artstore-pki entry 1"

// Entry is what one leaf of the tree says: an event of the record.
type Entry struct {
	At      time.Time // to the millisecond
	Kind    string
	Caller  string
	Service string
	Serial  string // decimal
	Rule    string
	Detail  string
	Subject [sha256.Size]byte // digest of the row that the event tells of; zero if there is none
}

// Marshal is the one encoding of the entry.
func (e Entry) Marshal() []byte {
	return NewFields(entryForm).Int(e.At.UnixMilli()).
		Text(e.Kind).Text(e.Caller).Text(e.Service).Text(e.Serial).Text(e.Rule).Text(e.Detail).
		Bytes(e.Subject[:])
}

// Leaf is the hash by which the entry stands in the tree.
func (e Entry) Leaf() tlog.Hash { return tlog.RecordHash(e.Marshal()) }

// ParseEntry reads what [Entry.Marshal] wrote, and nothing else.
func ParseEntry(data []byte) (e Entry, err error) {
	var at, subject []byte
	var form string
	r := reader{rest: data}
	r.text(&form)
	r.bytes(&at)
	for _, s := range []*string{&e.Kind, &e.Caller, &e.Service, &e.Serial, &e.Rule, &e.Detail} {
		r.text(s)
	}
	r.bytes(&subject)
	switch {
	case r.short || len(r.rest) > 0:
		err = errors.New("fields are missing or left over")
	case form != entryForm:
		err = fmt.Errorf("form %.40q: want %q", form, entryForm)
	case len(at) != 8 || len(subject) != sha256.Size:
		err = errors.New("a field has the wrong length")
	}
	if err != nil {
		return Entry{}, fmt.Errorf("parsing a log entry: %w", err)
	}
	e.At = time.UnixMilli(int64(binary.BigEndian.Uint64(at))).UTC() //nolint:gosec // G115: it was written from an int64, two's complement
	copy(e.Subject[:], subject)
	return e, nil
}

// Fields is a list of values, each after its length. So one encoding has one reading.
type Fields []byte

// NewFields begins a list with the name of its form.
func NewFields(form string) Fields {
	return make(Fields, 0, 2048).Text(form) // a certificate with its issuer fits, more or less
}

// Text appends a text as it is.
func (f Fields) Text(s string) Fields { return append(f.length(len(s)), s...) }

// Bytes appends bytes as they are.
func (f Fields) Bytes(b []byte) Fields { return append(f.length(len(b)), b...) }

// Int appends a number as eight bytes, big-endian.
func (f Fields) Int(n int64) Fields {
	return binary.BigEndian.AppendUint64(f.length(8), uint64(n)) //nolint:gosec // G115: two's complement, read back the same way
}

// Texts appends a list with its length: one list of two and two lists of one differ.
func (f Fields) Texts(list []string) Fields {
	f = f.Int(int64(len(list)))
	for _, s := range list {
		f = f.Text(s)
	}
	return f
}

// Digest is the SHA-256 of the list.
func (f Fields) Digest() [sha256.Size]byte { return sha256.Sum256(f) }

// length panics above 2 GiB, which no row can hold.
func (f Fields) length(n int) Fields {
	if n > math.MaxInt32 {
		panic("translog: a field of more than 2 GiB")
	}
	return binary.BigEndian.AppendUint32(f, uint32(n)) //nolint:gosec // G115: compared above
}

// reader reads fields in order. After a failure it reads nothing, so short is checked once.
type reader struct {
	rest  []byte
	short bool
}

func (r *reader) bytes(out *[]byte) {
	if r.short || len(r.rest) < 4 {
		r.short = true
		return
	}
	n := int64(binary.BigEndian.Uint32(r.rest))
	if n > int64(len(r.rest)-4) {
		r.short = true
		return
	}
	*out, r.rest = r.rest[4:4+n], r.rest[4+n:]
}

func (r *reader) text(out *string) {
	var b []byte
	r.bytes(&b)
	*out = string(b)
}
