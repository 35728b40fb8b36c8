package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/internal/durable"
)

// compactFrom is the size in bytes from which a journal is written anew, if
// most of it is history.
const compactFrom = 1 << 20

const journalName = "journal"

// errJournal marks failures of our own disk, which no file is to blame for.
var errJournal = errors.New("journal not written")

// journal says what the element may know of each claimed file. Where a file is,
// the directories say; a record whose claim is gone from claimed/ is history.
//
// A record counts when append has returned: it is on disk then, with all
// records that were waiting, by one write and one fsync. What a crash leaves of
// a write under way is a torn tail, and nobody has acted on it.
type journal struct {
	root *os.Root // the state

	mu    sync.Mutex // guards what follows; never held during I/O
	next  *batch     // collects while the one before is written
	live  map[string]*record
	kept  map[string]*record // by name
	ids   map[string]*record // by the URL of an element: what becomes of our ids there
	fatal error              // after a failed fsync nobody knows what is on disk

	disk  sync.Mutex // held by whoever writes the file; it guards what follows
	file  *os.File
	size  int64  // of what is good
	last  uint64 // number of its last line
	limit int64  // compact from here
}

// batch is what shares a write.
type batch struct {
	recs []*record
	done chan struct{}
	err  error // valid once done is closed
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

// openJournal reads what is there and writes it anew without history and
// without a torn tail. A new file replaces the old one in one step; killed
// before that, the next start does the same again.
func openJournal(l layout) (j *journal, damaged bool, err error) {
	j = &journal{root: l.state, next: newBatch(), live: map[string]*record{}, kept: map[string]*record{}, ids: map[string]*record{}}
	f, err := l.openFile(journalName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, false, fmt.Errorf("opening the journal: %w", err)
	default:
		_, damaged, err = readRecords(f, j.apply)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, false, fmt.Errorf("reading the journal: %w", err)
		}
	}
	return j, damaged, nil
}

// start begins writing, once the caller has looked at what was read.
func (j *journal) start() error {
	j.disk.Lock()
	defer j.disk.Unlock()
	return j.compact()
}

// apply is called with mu held, or before anybody else knows j.
func (j *journal) apply(r *record) {
	switch r.Op {
	case opKeepsIDs, opIgnoresIDs:
		j.ids[r.ID] = r
		return
	case opKept:
		j.kept[r.name()] = r
	}
	j.live[r.ID] = r
}

// append returns when r is on disk, or could not be put there. The first one
// of a batch writes it, after the batch before; the others wait for it. So a
// record waits for one write under way and its own, and never for a clock.
func (j *journal) append(r *record) error {
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

func (j *journal) commit(b *batch) {
	j.disk.Lock()
	defer j.disk.Unlock()
	j.mu.Lock()
	j.next = newBatch() // nobody joins b any more
	j.mu.Unlock()
	lines, err := numbered(b.recs, j.last)
	if err == nil {
		err = j.write(lines)
	}
	if err != nil {
		b.err = fmt.Errorf("%w: %w", errJournal, err)
	} else {
		j.last += uint64(len(b.recs))
		j.mu.Lock()
		for _, r := range b.recs {
			j.apply(r)
		}
		j.mu.Unlock()
	}
	close(b.done)
	if j.size >= j.limit && j.broken() == nil {
		if err := j.compact(); err != nil {
			j.limit = 2 * j.size // the old file is as good as before, only longer
		}
	}
}

// write adds lines and makes them durable. A write that failed half-way, as on
// a full disk, is taken back, so that what is written later stands on whole lines.
func (j *journal) write(lines []byte) error {
	if err := j.broken(); err != nil {
		return err
	}
	if _, err := j.file.WriteAt(lines, j.size); err != nil {
		if cut := j.file.Truncate(j.size); cut != nil {
			j.breakWith(errors.Join(err, cut))
		}
		return err
	}
	if err := j.file.Sync(); err != nil {
		j.breakWith(err) // the kernel may have dropped the pages: a later fsync would lie
		return err
	}
	j.size += int64(len(lines))
	return nil
}

// compact writes the file anew with what still matters. It is called with disk
// held. Records are dropped for claims that were forgotten; their directories'
// removal is made durable first, or a power cut could bring back a stored file
// without its receipt.
func (j *journal) compact() error {
	if err := durable.SyncDirIn(j.root, claimedDir); err != nil {
		return fmt.Errorf("compacting the journal: %w", err)
	}
	recs := j.snapshot()
	lines, err := numbered(recs, 0)
	if err == nil {
		err = durable.WriteFileIn(j.root, journalName, lines, durable.Private)
	}
	if err != nil {
		return fmt.Errorf("compacting the journal: %w", err)
	}
	f, err := j.root.OpenFile(journalName, os.O_RDWR, 0)
	if err != nil {
		j.breakWith(err) // the old file is unlinked: writing there would be writing nowhere
		return fmt.Errorf("reopening the journal: %w", err)
	}
	if j.file != nil {
		_ = j.file.Close() // everything of it was synced, and is replaced
	}
	j.file, j.size, j.last = f, int64(len(lines)), uint64(len(recs))
	j.limit = max(compactFrom, 4*j.size)
	return nil
}

// snapshot is the journal without its history. What was kept goes first: a
// later claim of the same name says more.
func (j *journal) snapshot() []*record {
	j.mu.Lock()
	defer j.mu.Unlock()
	head := &record{Op: opHead, ID: journalName, At: time.Now().UTC()}
	recs := slices.Concat([]*record{head}, slices.Collect(maps.Values(j.ids)), slices.Collect(maps.Values(j.kept)))
	for _, r := range j.live {
		if j.kept[r.name()] != r {
			recs = append(recs, r)
		}
	}
	head.Count = len(recs) - 1
	return recs
}

// numbered makes lines of records, behind the line of number last. What others
// read of the records is not touched.
func numbered(recs []*record, last uint64) (lines []byte, err error) {
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

// of returns the last record of a claim, or nil.
func (j *journal) of(id string) *record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.live[id]
}

// keptAs returns what was kept under a name, or nil.
func (j *journal) keptAs(name string) *record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.kept[name]
}

// idsAt is what is known of our ids at an element: opKeepsIDs, opIgnoresIDs, or
// "" for nothing.
func (j *journal) idsAt(url string) op {
	j.mu.Lock()
	defer j.mu.Unlock()
	if r := j.ids[url]; r != nil {
		return r.Op
	}
	return ""
}

// unfinished lists the intents without an end.
func (j *journal) unfinished() []*record {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []*record
	for _, r := range j.live {
		if r.Op == opIntent {
			out = append(out, r)
		}
	}
	return out
}

// assume takes a record over that is written with the next start of writing.
func (j *journal) assume(r *record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.apply(r)
}

// forget drops a claim whose directory is gone. What was kept stays known by name.
func (j *journal) forget(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.live, id)
}

// prune drops what the predicate refuses: claims by id, kept files by name.
func (j *journal) prune(claim, name func(string) bool) {
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

// received lists what is known to be stored.
func (j *journal) received() []*record {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := slices.Collect(maps.Values(j.kept))
	for _, r := range j.live {
		if r.Op == opStored {
			out = append(out, r)
		}
	}
	return out
}

func (j *journal) identities() []identity {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make([]identity, 0, len(j.kept))
	for _, r := range j.kept {
		out = append(out, r.File)
	}
	return out
}

// broken is why nothing can be written until the next start, or nil.
func (j *journal) broken() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.fatal
}

func (j *journal) breakWith(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.fatal = err
}

// close waits for a write under way. Later records fail.
func (j *journal) close() error {
	j.disk.Lock()
	defer j.disk.Unlock()
	j.breakWith(fs.ErrClosed)
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}
