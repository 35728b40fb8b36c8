package spool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/spool/internal/journal"
)

// workResult is the report of a worker about one item.
type workResult struct {
	item    *item
	outcome outcome
	err     error
	as      admission
	asked   bool // the element answered, so it works
}

var errOther = errors.New("the element holds other content under this id")

// deliver makes one attempt to send a claim and to dispose of its source. The promises of the
// spool depend on the order of the steps:
//
//	content sent → claim durable → intent durable → end of the request sent → receipt verified → receipt durable → source disposed of
//
// Killed before the intent, the element has no complete request and stores nothing: the next
// start queues the claim again. Killed after it, the file may be stored: if each element was
// known to keep our ids, it is looked up and sent under the same id, else it is ambiguous.
// Killed after the receipt, only the disposal is left.
func (s *Spool) deliver(ctx context.Context, it *item) workResult {
	switch {
	case it.quarantined != nil:
		return s.finish(it, s.quarantineClaim(it), outcomeRefused)
	case it.stored != nil:
		return s.finish(it, s.acknowledge(it), outcomeStored)
	}
	if it.open {
		if out, over := s.resolveAmbiguous(ctx, it); over {
			return out
		}
	} else if out, over := s.skipUnchanged(ctx, it); over {
		return out
	}
	meta := s.cfg.Meta
	if !it.open {
		it.proven, it.reach = s.provenElements(ctx), s.reachableElements(ctx)
	}
	if s.cfg.Finder != nil {
		meta.FileID, meta.FileIDOffered = it.id, it.proven == nil
	}
	it.tries++
	content := &claimContent{spool: s, item: it}
	rec, err := s.cfg.Uploader.Upload(ctx, content, meta)
	content.finish()
	if err != nil {
		return s.handleFailure(ctx, it, err)
	}
	if err := s.recordIDSupport(meta.FileID, rec); err != nil {
		s.cfg.Logger.Debug("not written down", "element", rec.Element, "err", err) // the next receipt shows it again
	}
	s.newReceipt(it, rec)
	return s.finish(it, s.acknowledge(it), outcomeStored)
}

// finish returns the outcome v, or outcomeLocal if err is not nil: our own disk
// failed, and the item is tried again.
func (s *Spool) finish(it *item, err error, v outcome) workResult {
	if err != nil {
		return workResult{item: it, outcome: outcomeLocal, err: err}
	}
	return workResult{item: it, outcome: v, asked: v == outcomeStored && it.tries > 0}
}

// journalIntent makes the claim and the intent durable. It is called when all of the
// request but its end is sent.
func (s *Spool) journalIntent(it *item) error {
	if it.open {
		return nil
	}
	if err := s.layout.syncClaim(it.id, it.name); err != nil {
		return fmt.Errorf("making a claim durable: %w", err)
	}
	intent := it.newRecord(journal.OpIntent)
	if intent.Proven = it.proven; it.proven == nil {
		intent.Elements = it.reach
	}
	if err := s.journal.Append(intent); err != nil {
		return err
	}
	it.open = true
	return nil
}

// newRecord returns a record about the item, with the time.
func (it *item) newRecord(what journal.Op) *journal.Record {
	r := &journal.Record{Op: what, ID: it.id, File: it.seen, At: time.Now().UTC()}
	r.SetPath(it.name)
	return r
}

// newReceipt sets the record of a verified receipt.
func (s *Spool) newReceipt(it *item, rec *ingestclient.File) {
	what := journal.OpStored
	if s.layout.keep {
		what = journal.OpKept
	}
	it.stored = it.newRecord(what)
	it.stored.FileID, it.stored.SHA256 = rec.FileID, rec.SHA256
}

// acknowledge records the receipt, disposes of the source, and reports the event.
// Killed before the receipt is durable, the file is looked up again; after it, only
// the disposal is repeated, and the event with it.
func (s *Spool) acknowledge(it *item) error {
	if !it.logged {
		if err := s.journal.Append(it.stored); err != nil {
			return err
		}
		it.logged = true
	}
	if err := s.disposeSource(it); err != nil {
		return fmt.Errorf("disposing of a stored file: %w", err)
	}
	if it.noEvent {
		return nil
	}
	s.stored.Add(1)
	s.bytes.Add(it.seen.Size)
	s.cfg.Observer(Event{Kind: "stored", Name: it.name, FileID: it.stored.FileID, SHA256: it.stored.SHA256, Size: it.seen.Size})
	return nil
}

// forgetRecord drops the record of a claim that has ended. With KeepSource an intent
// without an end stays: the source is still there, and only the record says that it
// was sent.
func (s *Spool) forgetRecord(it *item) {
	if !s.layout.keep || !it.open || it.stored != nil {
		s.journal.Forget(it.id)
	}
}

// disposeSource deletes or moves a stored source, and forgets its record. Killed in between,
// the next start does it again.
func (s *Spool) disposeSource(it *item) error {
	end := s.layout.removeClaim
	if s.cfg.OnSuccess == MoveSource {
		end = func(id string) error { return s.layout.archive(id, it.name) }
	}
	if err := end(it.id); err != nil {
		return err
	}
	s.journal.Forget(it.id)
	return nil
}

// skipUnchanged recognises a kept file that was only touched, or replaced by an equal
// one. It reads only files of the same name and size.
func (s *Spool) skipUnchanged(ctx context.Context, it *item) (out workResult, over bool) {
	if !s.layout.keep {
		return workResult{}, false
	}
	was := s.journal.KeptAs(it.name)
	if was == nil || was.File.Size != it.seen.Size {
		return workResult{}, false
	}
	digest, err := s.hash(ctx, it)
	if err != nil {
		return s.readFailure(it, err, quarantineFailed), true
	}
	if digest != was.SHA256 {
		return workResult{}, false
	}
	it.stored, it.noEvent = it.newRecord(journal.OpKept), true
	it.stored.FileID, it.stored.SHA256 = was.FileID, was.SHA256
	return s.finish(it, s.acknowledge(it), outcomeStored), true
}

// readFailure returns the result if a claimed file could not be read, or the run ends.
func (s *Spool) readFailure(it *item, err error, to quarantine) workResult {
	if errors.Is(err, context.Canceled) {
		return workResult{item: it, outcome: outcomeStopped, err: err}
	}
	return s.quarantineItem(it, err, to)
}

// resolveAmbiguous looks up an upload without an outcome. over reports that there is
// nothing to send now.
func (s *Spool) resolveAmbiguous(ctx context.Context, it *item) (out workResult, over bool) {
	if !s.canLookUp(ctx, it) {
		return s.quarantineItem(it, fmt.Errorf("interrupted: %w", ingestclient.ErrAmbiguous), quarantineAmbiguous), true
	}
	rec, err := s.cfg.Finder.Metadata(ctx, it.id)
	if errors.Is(err, ingestclient.ErrNotFound) {
		return workResult{}, false // if it arrives later, the element refuses the next attempt as a duplicate of its id
	}
	if err != nil {
		v := classify(ctx, err)
		if !v.pauses() && v != outcomeStopped {
			v = outcomeElement // a look-up proves nothing about the file
		}
		return workResult{item: it, outcome: v, err: err}, true
	}
	digest, err := s.hash(ctx, it)
	switch {
	case err != nil:
		return s.readFailure(it, err, quarantineAmbiguous), true
	case rec.Size != it.seen.Size || rec.SHA256 != digest:
		return s.quarantineItem(it, errOther, quarantineAmbiguous), true
	}
	s.newReceipt(it, rec)
	out = s.finish(it, s.acknowledge(it), outcomeStored)
	out.asked = out.outcome == outcomeStored
	return out, true
}

// handleFailure classifies a failed upload, and records it if nothing was stored.
func (s *Spool) handleFailure(ctx context.Context, it *item, err error) workResult {
	if errors.Is(err, ingestclient.ErrAmbiguous) {
		it.open = true
	}
	if it.open && sentNothing(err, it.proven != nil) {
		if appended := s.journal.Append(it.newRecord(journal.OpUnsent)); appended == nil {
			it.open = false
		}
	}
	v := classify(ctx, err)
	switch {
	case v == outcomeRefused:
		out := s.quarantineItem(it, err, quarantineFailed)
		out.asked = out.outcome == outcomeRefused && !errors.Is(err, ingestclient.ErrContent)
		return out
	case v == outcomeUnknown && it.proven == nil:
		return s.quarantineItem(it, err, quarantineAmbiguous)
	case v == outcomeUnknown && ctx.Err() != nil:
		v = outcomeStopped
	case v == outcomeUnknown:
		v = outcomeElement
	}
	return workResult{item: it, outcome: v, err: err}
}

// quarantineItem moves a claim to failed/ or ambiguous/. After an unknown outcome the
// spool pauses as well, because the element may lose what it is sent.
func (s *Spool) quarantineItem(it *item, err error, to quarantine) workResult {
	it.quarantined = s.newReason(it, err, to)
	if it.proven != nil && it.quarantined.FileID == "" {
		it.quarantined.FileID = it.id
	}
	out := s.finish(it, s.quarantineClaim(it), outcomeRefused)
	if out.err == nil {
		out.err = err
	}
	if out.outcome == outcomeRefused && to == quarantineAmbiguous {
		out.outcome = outcomeUnknown
	}
	return out
}

func (s *Spool) quarantineClaim(it *item) error {
	if err := s.layout.quarantineClaim(it.quarantined); err != nil {
		return fmt.Errorf("putting a file aside: %w", err)
	}
	s.forgetRecord(it)
	i := 0
	if it.quarantined.State == quarantineAmbiguous {
		i = 1
	}
	s.quarantinedNow[i].Add(1)
	s.cfg.Observer(Event{
		Kind: string(it.quarantined.State), Name: it.name, FileID: it.quarantined.FileID, Size: it.seen.Size, Err: errors.New(it.quarantined.Error),
	})
	return nil
}
