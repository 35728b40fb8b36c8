// Package journal is the write-ahead log of a spool. Its records say what an element may have
// of each claimed file. It knows no directory but its own.
//
// Invariants:
//
//   - When Append has returned nil, the record is on disk (TestGroupCommit).
//   - A journal that a crash has cut at any byte gives all records before the cut, and is not
//     damaged (TestTornAtEveryByte).
//   - A changed byte before the last line is noticed (TestDamageIsNoticed).
//   - After a failed write, the file has exactly the acknowledged records, or nothing more is
//     written (TestWriteFailures).
//   - Compaction keeps the records that count (TestCompaction).
package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/ingestclient/spool/internal/fileat"
	"github.com/artstore/artstore-pki/internal/durable"
)

// compactFrom is the size in bytes from which a journal is written again without the records
// of claims that have ended.
const compactFrom = 1 << 20

// FileName is the name of a journal in its directory.
const FileName = "journal"

// ErrWrite marks failures of our own disk, which are not the fault of any file.
var ErrWrite = errors.New("journal not written")

// Journal has the last record of each claim. The directories of the spool say where a file
// is. A record without a claim is history.
type Journal struct {
	root   *os.Root // the state
	claims string   // its directory of claims

	mu    sync.Mutex         // guards next to fatal; never held during I/O
	next  *batch             // collects records while the batch before is written
	live  map[string]*Record // by claim
	kept  map[string]*Record // by name
	ids   map[string]*Record // by the URL of an element: whether it keeps our ids
	fatal error              // after a failed fsync it is unknown what is on disk

	disk  sync.Mutex // held while the file is written; guards the fields below
	file  *os.File
	size  int64  // of the complete lines, in bytes
	last  uint64 // number of the last line
	limit int64  // the size from which it is compacted
}

type batch struct {
	recs []*Record // that share a write
	done chan struct{}
	err  error // valid once done is closed
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

// New returns a journal without records. root is the state, and claims the name of
// its directory of claims.
func New(root *os.Root, claims string) *Journal {
	return &Journal{root: root, claims: claims, next: newBatch(), live: map[string]*Record{}, kept: map[string]*Record{}, ids: map[string]*Record{}}
}

// Read adds the records of a journal as a crash or a stop has left it. damaged reports that
// acknowledged records are missing. Nothing is written before Start.
func (j *Journal) Read(r io.Reader) (damaged bool, err error) {
	_, damaged, err = readRecords(r, j.apply)
	return damaged, err
}

// Start begins writing: it writes the journal anew, without history and without a torn
// tail. The new file replaces the old one in one step; killed before that, the next
// start does the same again.
func (j *Journal) Start() error {
	j.disk.Lock()
	defer j.disk.Unlock()
	return j.compact()
}

// apply adds r. The caller holds mu, or is the only one that uses j.
func (j *Journal) apply(r *Record) {
	switch r.Op {
	case OpKeepsIDs, OpIgnoresIDs:
		j.ids[r.ID] = r
		return
	case OpKept:
		j.kept[r.Path()] = r
	}
	j.live[r.ID] = r
}

// Append returns when r is on disk, or the write has failed. The first caller of a batch
// writes it, after the batch before; the others wait for it. So a record waits for one
// write under way and its own, and never for a timer.
func (j *Journal) Append(r *Record) error {
	j.mu.Lock()
	b := j.next
	b.recs = append(b.recs, r)
	first := len(b.recs) == 1
	j.mu.Unlock()
	if first {
		j.commit(b)
	}
	<-b.done
	return b.err
}

// commit writes a batch, and compacts the journal if it has become too long.
func (j *Journal) commit(b *batch) {
	j.disk.Lock()
	defer j.disk.Unlock()
	j.mu.Lock()
	j.next = newBatch() // b gets no more records
	j.mu.Unlock()
	lines, err := numberLines(b.recs, j.last)
	if err == nil {
		err = j.write(lines)
	}
	if err != nil {
		b.err = fmt.Errorf("%w: %w", ErrWrite, err)
	} else {
		j.last += uint64(len(b.recs))
		j.mu.Lock()
		for _, r := range b.recs {
			j.apply(r)
		}
		j.mu.Unlock()
	}
	close(b.done)
	if j.size >= j.limit && j.Err() == nil {
		if err := j.compact(); err != nil {
			j.limit = 2 * j.size // the old file is still in use, so this is tried again later
		}
	}
}

// write adds lines and makes them durable. A write that failed half-way, as on a full
// disk, is undone, so that later lines follow complete ones.
func (j *Journal) write(lines []byte) error {
	if err := j.Err(); err != nil {
		return err
	}
	if _, err := j.file.WriteAt(lines, j.size); err != nil {
		if cut := j.file.Truncate(j.size); cut != nil {
			j.fail(errors.Join(err, cut))
		}
		return err
	}
	if err := j.file.Sync(); err != nil {
		j.fail(err) // the kernel may have dropped the pages, and a later fsync would succeed without them
		return err
	}
	j.size += int64(len(lines))
	return nil
}

// compact writes the file anew without history. The caller holds disk. The removal of
// the claims whose records were forgotten is made durable first: otherwise a power cut
// could bring back a stored file without its receipt.
func (j *Journal) compact() error {
	if err := durable.SyncDirIn(j.root, j.claims); err != nil {
		return fmt.Errorf("compacting the journal: %w", err)
	}
	recs := j.snapshot()
	lines, err := numberLines(recs, 0)
	if err == nil {
		err = durable.WriteFileIn(j.root, FileName, lines, durable.Private)
	}
	if err != nil {
		return fmt.Errorf("compacting the journal: %w", err)
	}
	f, err := j.root.OpenFile(FileName, os.O_RDWR, 0)
	if err != nil {
		j.fail(err) // the old file is unlinked, and records in it would be lost
		return fmt.Errorf("reopening the journal: %w", err)
	}
	if j.file != nil {
		_ = j.file.Close() // everything of it was synced, and is replaced
	}
	j.file, j.size, j.last = f, int64(len(lines)), uint64(len(recs))
	j.limit = max(compactFrom, 4*j.size)
	return nil
}

// snapshot returns the records that still count, those of kept files first: a later
// claim of the same name replaces them.
func (j *Journal) snapshot() []*Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	head := &Record{Op: opHead, ID: FileName, At: time.Now().UTC()}
	recs := slices.Concat([]*Record{head}, slices.Collect(maps.Values(j.ids)), slices.Collect(maps.Values(j.kept)))
	for _, r := range j.live {
		if j.kept[r.Path()] != r {
			recs = append(recs, r)
		}
	}
	head.Count = len(recs) - 1
	return recs
}

// numberLines returns the lines of records, with numbers from last+1. It changes no
// record, because other goroutines read them.
func numberLines(recs []*Record, last uint64) (lines []byte, err error) {
	for _, r := range recs {
		last++
		line := *r
		line.N = last
		if lines, err = appendLine(lines, &line); err != nil {
			return nil, err
		}
	}
	return lines, nil
}

// Last returns the last record of a claim, or nil.
func (j *Journal) Last(id string) *Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.live[id]
}

// KeptAs returns the record of the kept file of this name, or nil.
func (j *Journal) KeptAs(name string) *Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.kept[name]
}

// IDsAt returns whether an element keeps our ids: OpKeepsIDs, OpIgnoresIDs, or "" if
// that is not known.
func (j *Journal) IDsAt(url string) Op {
	j.mu.Lock()
	defer j.mu.Unlock()
	if r := j.ids[url]; r != nil {
		return r.Op
	}
	return ""
}

// Unfinished lists the intents without an end.
func (j *Journal) Unfinished() []*Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []*Record
	for _, r := range j.live {
		if r.Op == OpIntent {
			out = append(out, r)
		}
	}
	return out
}

// Assume adds a record without writing it; Start writes it.
func (j *Journal) Assume(r *Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.apply(r)
}

// Forget drops the record of a claim whose directory was removed. The record of a kept file
// stays, by its name.
func (j *Journal) Forget(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.live, id)
}

// Prune drops the claims and the kept files for which claim (by id) or name is false.
func (j *Journal) Prune(claim, name func(string) bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for id := range j.live {
		if !claim(id) {
			delete(j.live, id)
		}
	}
	for n := range j.kept {
		if !name(n) {
			delete(j.kept, n)
		}
	}
}

// Stored returns the records of files that are stored.
func (j *Journal) Stored() []*Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := slices.Collect(maps.Values(j.kept))
	for _, r := range j.live {
		if r.Op == OpStored {
			out = append(out, r)
		}
	}
	return out
}

// KeptFiles returns the identities of the files of the kept records.
func (j *Journal) KeptFiles() []fileat.ID {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make([]fileat.ID, 0, len(j.kept))
	for _, r := range j.kept {
		out = append(out, r.File)
	}
	return out
}

// Err returns why nothing can be written any more, or nil.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.fatal
}

func (j *Journal) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.fatal = err
}

// Close waits for a write under way. Later records fail.
func (j *Journal) Close() error {
	j.disk.Lock()
	defer j.disk.Unlock()
	j.fail(fs.ErrClosed)
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}
