package revocation

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// MaxKept is the largest number of entries that are kept. The longest list that
	// clients read has fewer, so an authority may drop all of its entries at once.
	MaxKept = 1 << 20
	// MaxFile is the longest form of [Kept] on disk, in bytes.
	MaxFile = 64 << 20

	header = "revoked certificates that later lists do not name, version 1, entries: "
)

// ErrTooMany is returned if more than [MaxKept] entries would have to be kept.
var ErrTooMany = fmt.Errorf("more than %d revoked certificates would have to be kept that the lists no longer name", MaxKept)

// Kept are entries of earlier lists that the present ones do not have and that have
// not ended. It is not changed once made; nil keeps none.
type Kept struct{ entries Index }

// Names reports whether the entry is kept.
func (k *Kept) Names(issuer Issuer, serial string) bool {
	return k != nil && k.entries.Names(issuer, serial)
}

// Len returns the number of entries.
func (k *Kept) Len() int {
	if k == nil {
		return 0
	}
	return k.entries.Len()
}

// Lasting returns how many entries are of certificates that end after t.
func (k *Kept) Lasting(t time.Time) (n int) {
	if k == nil {
		return 0
	}
	for _, entries := range k.entries {
		for _, end := range entries {
			if end > t.Unix() {
				n++
			}
		}
	}
	return n
}

// All calls yield for each entry, in no order.
func (k *Kept) All(yield func(issuer Issuer, serial string) bool) {
	if k == nil {
		return
	}
	for issuer, entries := range k.entries {
		for serial := range entries {
			if !yield(issuer, serial) {
				return
			}
		}
	}
}

// Join returns the entries of k and o together, without those that [Kept.Follow] drops.
func (k *Kept) Join(o *Kept, lists Index, now time.Time) (*Kept, error) {
	if o.Len() == 0 {
		return k.Follow(nil, lists, now)
	}
	return k.Follow(o.entries, lists, now)
}

// Follow returns the entries to keep when the lists next replace the lists before: those
// of k and of before, without those that next has and those of certificates that ended.
func (k *Kept) Follow(before, next Index, now time.Time) (*Kept, error) {
	out, n := &Kept{Index{}}, 0
	sources := []Index{before}
	if k != nil {
		sources = append(sources, k.entries)
	}
	for _, from := range sources {
		for issuer, entries := range from {
			for serial, end := range entries {
				if end < now.Unix() || next.Names(issuer, serial) {
					continue
				}
				if n += out.add(issuer, serial, end); n > MaxKept {
					return nil, ErrTooMany
				}
			}
		}
	}
	if n == 0 {
		return nil, nil //nolint:nilnil // nil keeps none
	}
	return out, nil
}

// add returns how many entries it added: none if the entry is there, with the later end.
func (k *Kept) add(issuer Issuer, serial string, end int64) int {
	entries := k.entries[issuer]
	if entries == nil {
		entries = map[string]int64{}
		k.entries[issuer] = entries
	}
	have, there := entries[serial]
	entries[serial] = max(have, end)
	if there {
		return 0
	}
	return 1
}

// Encode returns the form of k on disk, nil for none: a header with the number of
// entries, and for each issuer a line with its name and lines with serial number and end.
func (k *Kept) Encode() []byte {
	if k.Len() == 0 {
		return nil
	}
	out := fmt.Appendf(nil, "%s%d\n", header, k.Len())
	byName := func(x, y Issuer) int { return bytes.Compare(x[:], y[:]) }
	for _, issuer := range slices.SortedFunc(maps.Keys(k.entries), byName) {
		out = fmt.Appendf(out, "issuer %x\n", issuer)
		for _, serial := range slices.Sorted(maps.Keys(k.entries[issuer])) {
			out = append(hex.AppendEncode(out, []byte(serial)), ' ')
			out = append(strconv.AppendInt(out, k.entries[issuer][serial], 10), '\n')
		}
	}
	return out
}

// ParseKept reads what Encode wrote. Anything else is an error: a file that is cut
// off would let revoked certificates in.
func ParseKept(data []byte) (*Kept, error) {
	if len(data) == 0 {
		return nil, nil //nolint:nilnil // nil keeps none
	}
	if len(data) > MaxFile {
		return nil, fmt.Errorf("longer than %d bytes", MaxFile)
	}
	text, whole := strings.CutSuffix(string(data), "\n")
	first, rest, _ := strings.Cut(text, "\n")
	promised, ours := strings.CutPrefix(first, header)
	if !ours || !whole {
		return nil, errors.New("the first line is not that of revoked certificates, or the last one is cut off")
	}
	k := &Kept{Index{}}
	var entries map[string]int64
	number := 1
	for line := range strings.SplitSeq(rest, "\n") {
		number++
		if name, ok := strings.CutPrefix(line, "issuer "); ok {
			issuer, err := hex.DecodeString(name)
			if err != nil || len(issuer) != len(Issuer{}) || k.entries[Issuer(issuer)] != nil {
				return nil, fmt.Errorf("line %d: not a new issuer", number)
			}
			entries = map[string]int64{}
			k.entries[Issuer(issuer)] = entries
			continue
		}
		serial, end, err := parseEntry(line)
		if _, there := entries[serial]; err != nil || there || entries == nil {
			return nil, fmt.Errorf("line %d: not a new serial number in hex and an end in Unix seconds, below an issuer", number)
		}
		entries[serial] = end
	}
	if n := k.Len(); n > MaxKept || strconv.Itoa(n) != promised {
		return nil, fmt.Errorf("%d entries, want those that the first line promises, and %d at most", n, MaxKept)
	}
	return k, nil
}

func parseEntry(line string) (serial string, end int64, err error) {
	number, at, _ := strings.Cut(line, " ")
	octets, err := hex.DecodeString(number)
	if err == nil && len(octets) > 0 && octets[0] == 0 {
		err = errors.New("a leading zero")
	}
	if err != nil {
		return "", 0, err
	}
	end, err = strconv.ParseInt(at, 10, 64)
	return string(octets), end, err
}
