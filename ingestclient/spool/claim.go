package spool

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/artstore/artstore-pki/ingestclient/spool/internal/fileat"
	"github.com/artstore/artstore-pki/internal/uuid"
)

// claim claims files as long as the breaker lets files through and the queue has room.
// While the breaker stops them, two claims are enough: the trial can then be another
// file than the one that failed. The others stay in their directory, where their
// writer can still take them back.
func (l *loop) claim() {
	l.checkDisk()
	rest, failed := l.ready[:0], 0
	for i, f := range l.ready {
		if l.lowDisk != nil || failed >= maxBalks || !l.breaker.open() && l.queue.size()+l.queue.busy > 1 {
			rest = append(rest, l.ready[i:]...)
			break
		}
		if !l.queue.hasRoom(f.id.Size >= largeFrom) {
			rest = append(rest, f)
			continue
		}
		if !l.claimOne(f) {
			failed++
		}
	}
	l.ready = rest
}

// claimOne claims one file. It returns false if the claims of other files may fail too.
func (l *loop) claimOne(f foundFile) bool {
	it := &item{id: uuid.New(), name: f.name, seen: f.id}
	l.waiting--
	delete(l.stability.seen, f.name)
	err := l.layout.claimFile(it.id, it.name, it.seen)
	if err != nil {
		info, stayed := l.layout.state.Lstat(contentPath(it.id, it.name))
		if stayed != nil { // there is no claim: the file is where it was, or was removed
			if errors.Is(err, errMoved) || errors.Is(err, fs.ErrNotExist) {
				return true
			}
			l.failedNames[f.name], l.claimFailed = true, true
			l.logTrouble(fmt.Errorf("claiming: %w", err))
			return false
		}
		l.seeAgain(it, info) // the claim has another file, and its name is taken: it cannot be returned
	}
	if l.layout.keep {
		l.excluded[it.seen] = true
	}
	delete(l.failedNames, f.name)
	l.queue.push(it)
	return true
}

// checkDisk logs once when there is less free space than MinFree, and when that ends.
func (l *loop) checkDisk() {
	var low error
	if l.cfg.MinFree >= 0 && len(l.ready) > 0 {
		if free, err := fileat.FreeBytes(l.layout.state.Name()); err == nil && free < l.cfg.MinFree {
			low = fmt.Errorf("%d bytes are free, and %d are wanted", free, l.cfg.MinFree)
		}
	}
	switch {
	case low != nil && l.lowDisk == nil:
		l.cfg.Logger.Warn("files are not claimed", "path", l.cfg.Dir, "reason", reasonLowDisk, "err", low)
	case low == nil && l.lowDisk != nil:
		l.cfg.Logger.Info("files are claimed again", "path", l.cfg.Dir)
	}
	l.lowDisk = low
}

// unclaimItem returns a file that was not sent. A file that may be stored stays
// claimed, and the next start goes on with it.
func (l *loop) unclaimItem(it *item) {
	if it.open || it.stored != nil || it.quarantined != nil {
		if !l.stopping {
			l.refresh(it)
		}
		return
	}
	l.scanned = false // a scan must find it again
	if err := l.layout.unclaim(it.id, it.name); err != nil {
		l.cfg.Logger.Warn("file not given back; it stays claimed", "path", it.name, "id", it.id, "err", err)
		if !l.stopping {
			l.refresh(it)
		}
		return
	}
	l.forget(it)
}

// refresh queues an item again, with the file as it is now.
func (l *loop) refresh(it *item) {
	if info, err := l.layout.state.Lstat(contentPath(it.id, it.name)); err == nil {
		l.seeAgain(it, info)
	}
	l.requeue(it)
}

// seeAgain updates the item to the claim as it is now. One that is no regular file can
// only be quarantined.
func (s *Spool) seeAgain(it *item, info fs.FileInfo) {
	it.seen = fileat.IDOf(info)
	if info.Mode().IsRegular() {
		return
	}
	to := quarantineFailed
	if it.open {
		to = quarantineAmbiguous
	}
	it.quarantined = s.newReason(it, errIrregular, to)
}

var errIrregular = errors.New("it is not a regular file, and cannot go back to where it was")

// forget removes a claim that has ended without a receipt.
func (l *loop) forget(it *item) {
	if !it.open { // otherwise it may be stored, and must not be sent under another id
		delete(l.excluded, it.seen)
	}
	l.forgetRecord(it)
	if err := l.layout.removeClaim(it.id); err != nil {
		l.cfg.Logger.Warn("claim not removed", "id", it.id, "err", err)
	}
}
