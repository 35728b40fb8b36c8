package spool

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"
)

var errDamaged = errors.New("the journal is damaged in its middle")

func jitter() float64 { return rand.Float64() } //nolint:gosec // G404: spreads probes, guards nothing

func or[T cmp.Ordered](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

func orLogger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.Default()
	}
	return l
}

func orObserver(f func(Event)) func(Event) {
	if f == nil {
		return func(Event) {}
	}
	return f
}

// recover settles what a crash or a stop left in claimed/. Each claim is where its
// directory says and may be at the element if the journal says so; the table is
// in the package comment.
func (s *Spool) recover() (err error) {
	var damaged bool
	if s.journal, damaged, err = openJournal(s.layout); err != nil {
		return err
	}
	if damaged {
		if err := s.setAsideJournal(); err != nil {
			return err
		}
	}
	if s.cfg.RetryAmbiguous {
		// Not before the journal can be written: that is what allows the second copy.
		defer func() { err = errors.Join(err, s.retryAmbiguous()) }()
	}
	claims, err := s.claims(damaged)
	if err != nil {
		return err
	}
	if err := s.journal.start(); err != nil {
		return err
	}
	for _, h := range claims {
		if err := s.resume(h); err != nil {
			return fmt.Errorf("recovering %s: %w", s.layout.path(claimPath(h.id)), err)
		}
	}
	slices.SortFunc(s.found, func(a, b *item) int { return cmp.Compare(a.seen.MTime, b.seen.MTime) })
	return nil
}

// setAsideJournal keeps a copy of a damaged journal for whoever wants to look.
// Claims without a record count as open then; but which files were kept, only
// the journal knew.
func (s *Spool) setAsideJournal() error {
	if s.layout.keep {
		return fmt.Errorf("%w: it alone says which of the kept files were uploaded; move it away to upload all of them again: %s", errDamaged, s.layout.path(journalName))
	}
	damaged := journalName + ".damaged"
	if err := s.layout.state.Link(journalName, damaged); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	s.cfg.Logger.Error("journal damaged; claims without a record count as sent", "path", s.layout.path(damaged))
	return nil
}

// claims lists what is in claimed/, and makes the journal say of each what it has
// to say of it: a damaged one does not know any more which were not sent.
func (s *Spool) claims(damaged bool) ([]held, error) {
	if err := s.restore(); err != nil {
		return nil, err
	}
	claims, err := s.layout.list(claimedDir)
	if err != nil {
		return nil, err
	}
	present := map[string]bool{}
	for _, h := range claims {
		present[h.id] = true
		if rec := s.journal.of(h.id); damaged && h.name != "" && (rec == nil || rec.Op == opUnsent) {
			s.journal.assume((&item{id: h.id, name: h.name, seen: identify(h.info)}).record(opIntent))
		}
	}
	if s.layout.keep { // what is aside has a source, and only the record stays if somebody removes the rest
		for _, r := range s.journal.unfinished() {
			present[r.ID] = true
		}
	}
	s.journal.prune(func(id string) bool { return present[id] }, s.layout.exists)
	return claims, nil
}

func (s *Spool) resume(h held) error {
	switch {
	case h.name == "": // killed between two steps of a claim, or after the last
		return s.layout.drop(h.id)
	case h.reason != nil && s.decided(h.id): // killed while it was brought back
		if err := s.layout.state.Remove(filepath.Join(claimPath(h.id), reasonFile)); err != nil {
			return err
		}
		h.reason = nil
		return s.resume(h)
	case h.reason != nil: // killed between the reason and the rename
		return s.layout.finishAside(h.id, h.reason.State)
	case s.waits(h): // killed between link and removal while it was given back
		return s.layout.drop(h.id)
	}
	it := &item{id: h.id, name: h.name}
	if !h.info.Mode().IsRegular() { // killed while such a claim was given back
		if err := s.layout.giveBack(h.id, h.name); !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	rec := s.journal.of(h.id)
	switch {
	case rec == nil:
	case rec.Op == opStored, rec.Op == opKept:
		it.stored, it.logged = rec, true
	case rec.Op == opIntent:
		it.open, it.proven, it.reach = true, rec.Proven, rec.Elements
	}
	s.seeAgain(it, h.info)
	s.found = append(s.found, it)
	return nil
}

// decided reports whether what was put aside was settled since.
func (s *Spool) decided(id string) bool {
	rec := s.journal.of(id)
	return rec != nil && rec.Decided
}

// waits reports whether a claim of which nothing was sent still has its name in
// the spooled directory: the next scan claims it again.
func (s *Spool) waits(h held) bool {
	rec := s.journal.of(h.id)
	unsent := rec == nil || rec.Op == opUnsent
	return unsent && !s.layout.keep && s.layout.isSource(h.name, contentPath(h.id, h.name))
}

// retryAmbiguous claims again what lies in ambiguous/. The journal forgets the
// intent first: the operator has said that a second copy is acceptable.
func (s *Spool) retryAmbiguous() error {
	list, err := s.layout.list(string(asideAmbiguous))
	if err != nil {
		return err
	}
	for _, h := range list {
		if h.name == "" || !h.info.Mode().IsRegular() {
			continue
		}
		r := &record{Op: opUnsent, ID: h.id, File: identify(h.info), Decided: true, At: time.Now().UTC()}
		r.setName(h.name)
		if err := s.journal.append(r); err != nil {
			return err
		}
		if err := s.layout.retake(h.id, asideAmbiguous); err != nil {
			return err
		}
		s.found = append(s.found, &item{id: h.id, name: h.name, seen: identify(h.info)})
	}
	return nil
}
