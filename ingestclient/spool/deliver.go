package spool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
)

// outcome is what a worker reports.
type outcome struct {
	item    *item
	verdict verdict
	err     error
	as      admission
	asked   bool // the element answered: it is alive whatever it said
}

var errOther = errors.New("the element holds other content under this id")

// deliver brings a claim one step further: to its end, or to what must happen
// before the next attempt. The order is the promise:
//
//	content sent → claim durable → intent durable → end of the request sent → receipt verified → receipt durable → source disposed of
//
// Killed before the intent, the element has no whole request and stores nothing:
// the claim is simply queued again. Killed after it, the file may be stored: if
// each element was known to keep our ids, it is looked up and sent under the
// same id, else it is ambiguous. Killed after the receipt, only the disposal is
// left.
func (s *Spool) deliver(ctx context.Context, it *item) outcome {
	switch {
	case it.aside != nil:
		return s.finish(it, s.putAside(it), verdictRefused)
	case it.stored != nil:
		return s.finish(it, s.acknowledge(it), verdictStored)
	}
	if it.open {
		if out, over := s.resolve(ctx, it); over {
			return out
		}
	} else if out, over := s.unchanged(ctx, it); over {
		return out
	}
	meta := s.cfg.Meta
	if !it.open {
		it.proven, it.reach = s.proven(ctx), s.reach(ctx)
	}
	if s.cfg.Finder != nil {
		meta.FileID, meta.FileIDOffered = it.id, it.proven == nil
	}
	it.tries++
	content := &claimContent{spool: s, item: it}
	rec, err := s.cfg.Uploader.Upload(ctx, content, meta)
	content.finish()
	if err != nil {
		return s.failed(ctx, it, err)
	}
	if err := s.learn(meta.FileID, rec); err != nil {
		s.cfg.Logger.Debug("not written down", "element", rec.Element, "err", err) // the next receipt says it again
	}
	s.receive(it, rec)
	return s.finish(it, s.acknowledge(it), verdictStored)
}

// finish is the end of a claim, unless our own disk failed: the claim is tried again then.
func (s *Spool) finish(it *item, err error, v verdict) outcome {
	if err != nil {
		return outcome{item: it, verdict: verdictLocal, err: err}
	}
	return outcome{item: it, verdict: v, asked: v == verdictStored && it.tries > 0}
}

// announce makes the claim and the intent durable. It is called when all but the
// end of the request is sent.
func (s *Spool) announce(it *item) error {
	if it.open {
		return nil
	}
	if err := s.layout.settle(it.id, it.name); err != nil {
		return fmt.Errorf("making a claim durable: %w", err)
	}
	intent := it.record(opIntent)
	if intent.Proven = it.proven; it.proven == nil {
		intent.Elements = it.reach
	}
	if err := s.journal.append(intent); err != nil {
		return err
	}
	it.open = true
	return nil
}

func (it *item) record(what op) *record {
	r := &record{Op: what, ID: it.id, File: it.seen, At: time.Now().UTC()}
	r.setName(it.name)
	return r
}

// receive turns a verified receipt into what will be written of it.
func (s *Spool) receive(it *item, rec *ingestclient.File) {
	what := opStored
	if s.layout.keep {
		what = opKept
	}
	it.stored = it.record(what)
	it.stored.FileID, it.stored.SHA256 = rec.FileID, rec.SHA256
}

// acknowledge writes the receipt, says so, and disposes of the source. Killed
// before the receipt is durable, the file is looked up again; after it, only
// the disposal is repeated, and the event with it.
func (s *Spool) acknowledge(it *item) error {
	if !it.logged {
		if err := s.journal.append(it.stored); err != nil {
			return err
		}
		it.logged = true
	}
	if err := s.dispose(it); err != nil {
		return fmt.Errorf("disposing of a stored file: %w", err)
	}
	if it.silent {
		return nil
	}
	s.stored.Add(1)
	s.bytes.Add(it.seen.Size)
	s.cfg.Observer(Event{Kind: "stored", Name: it.name, FileID: it.stored.FileID, SHA256: it.stored.SHA256, Size: it.seen.Size})
	return nil
}

// forgetRecord drops the record of a claim that is none any more. Where sources stay,
// an intent without an end stays too: the source is there, and only the record
// says that it was sent.
func (s *Spool) forgetRecord(it *item) {
	if !s.layout.keep || !it.open || it.stored != nil {
		s.journal.forget(it.id)
	}
}

func (s *Spool) dispose(it *item) error {
	end := s.layout.drop
	if s.cfg.OnSuccess == MoveSource {
		end = func(id string) error { return s.layout.archive(id, it.name) }
	}
	if err := end(it.id); err != nil {
		return err
	}
	s.journal.forget(it.id)
	return nil
}

// unchanged recognises a kept file that was only touched, or replaced by an
// equal one. It costs one reading, of files of the same name and size only.
func (s *Spool) unchanged(ctx context.Context, it *item) (out outcome, over bool) {
	if !s.layout.keep {
		return outcome{}, false
	}
	was := s.journal.keptAs(it.name)
	if was == nil || was.File.Size != it.seen.Size {
		return outcome{}, false
	}
	digest, err := s.hash(ctx, it)
	if err != nil {
		return s.unread(it, err, asideFailed), true
	}
	if digest != was.SHA256 {
		return outcome{}, false
	}
	it.stored, it.silent = it.record(opKept), true
	it.stored.FileID, it.stored.SHA256 = was.FileID, was.SHA256
	return s.finish(it, s.acknowledge(it), verdictStored), true
}

// unread: a claimed file could not be read, or we were told to stop.
func (s *Spool) unread(it *item, err error, to aside) outcome {
	if errors.Is(err, context.Canceled) {
		return outcome{item: it, verdict: verdictStopped, err: err}
	}
	return s.refuse(it, err, to)
}

// resolve learns what became of an upload without an outcome. over: there is
// nothing to send now.
func (s *Spool) resolve(ctx context.Context, it *item) (out outcome, over bool) {
	if !s.canAsk(ctx, it) {
		return s.refuse(it, fmt.Errorf("interrupted: %w", ingestclient.ErrAmbiguous), asideAmbiguous), true
	}
	rec, err := s.cfg.Finder.Metadata(ctx, it.id)
	if errors.Is(err, ingestclient.ErrNotFound) {
		return outcome{}, false // and if it arrives yet, our next attempt is a duplicate of the same id
	}
	if err != nil {
		v := judge(ctx, err)
		if !v.pauses() && v != verdictStopped {
			v = verdictElement // a question stores nothing and proves nothing about the file
		}
		return outcome{item: it, verdict: v, err: err}, true
	}
	digest, err := s.hash(ctx, it)
	switch {
	case err != nil:
		return s.unread(it, err, asideAmbiguous), true
	case rec.Size != it.seen.Size || rec.SHA256 != digest:
		return s.refuse(it, errOther, asideAmbiguous), true
	}
	s.receive(it, rec)
	out = s.finish(it, s.acknowledge(it), verdictStored)
	out.asked = out.verdict == verdictStored
	return out, true
}

// failed judges an upload, and records what is certain.
func (s *Spool) failed(ctx context.Context, it *item, err error) outcome {
	if errors.Is(err, ingestclient.ErrAmbiguous) {
		it.open = true
	}
	if it.open && sentNothing(err, it.proven != nil) {
		if appended := s.journal.append(it.record(opUnsent)); appended == nil {
			it.open = false
		}
	}
	v := judge(ctx, err)
	switch {
	case v == verdictRefused:
		out := s.refuse(it, err, asideFailed)
		out.asked = out.verdict == verdictRefused && !errors.Is(err, ingestclient.ErrContent)
		return out
	case v == verdictUnknown && it.proven == nil:
		return s.refuse(it, err, asideAmbiguous)
	case v == verdictUnknown && ctx.Err() != nil:
		v = verdictStopped
	case v == verdictUnknown:
		v = verdictElement
	}
	return outcome{item: it, verdict: v, err: err}
}

// refuse puts a claim aside. What has no outcome at an element that makes ids
// itself also says something about the element: it pauses.
func (s *Spool) refuse(it *item, err error, to aside) outcome {
	it.aside = s.describe(it, err, to)
	if it.proven != nil && it.aside.FileID == "" {
		it.aside.FileID = it.id
	}
	out := s.finish(it, s.putAside(it), verdictRefused)
	if out.err == nil {
		out.err = err
	}
	if out.verdict == verdictRefused && to == asideAmbiguous {
		out.verdict = verdictUnknown
	}
	return out
}

func (s *Spool) putAside(it *item) error {
	if err := s.layout.putAside(it.aside); err != nil {
		return fmt.Errorf("putting a file aside: %w", err)
	}
	s.forgetRecord(it)
	i := 0
	if it.aside.State == asideAmbiguous {
		i = 1
	}
	s.asideNow[i].Add(1)
	s.cfg.Observer(Event{
		Kind: string(it.aside.State), Name: it.name, FileID: it.aside.FileID, Size: it.seen.Size, Err: errors.New(it.aside.Error),
	})
	return nil
}
