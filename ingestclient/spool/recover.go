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

	"github.com/artstore/artstore-pki/ingestclient/spool/internal/fileat"
	"github.com/artstore/artstore-pki/ingestclient/spool/internal/journal"
)

var errDamaged = errors.New("the journal is damaged in its middle")

func jitter() float64 { return rand.Float64() } //nolint:gosec // G404: spreads probes, guards nothing

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

// openJournal reads the journal of the state, if there is one. Nothing is written
// until Start.
func openJournal(l layout) (j *journal.Journal, damaged bool, err error) {
	j = journal.New(l.state, claimedDir)
	f, err := l.openFile(journal.FileName)
	if errors.Is(err, fs.ErrNotExist) {
		return j, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("opening the journal: %w", err)
	}
	damaged, err = j.Read(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, false, fmt.Errorf("reading the journal: %w", err)
	}
	return j, damaged, nil
}

// resumeClaims goes on with the claims that a crash or a stop has left in claimed/. The table
// of states is in the package comment.
func (s *Spool) resumeClaims() (err error) {
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
		// After the journal was started: a record must say that a second copy is permitted.
		defer func() { err = errors.Join(err, s.retryAmbiguous()) }()
	}
	claims, err := s.claims(damaged)
	if err != nil {
		return err
	}
	if err := s.journal.Start(); err != nil {
		return err
	}
	for _, h := range claims {
		if err := s.resume(h); err != nil {
			return fmt.Errorf("recovering %s: %w", s.layout.path(claimPath(h.id)), err)
		}
	}
	slices.SortFunc(s.recovered, func(a, b *item) int { return cmp.Compare(a.seen.MTime, b.seen.MTime) })
	return nil
}

// setAsideJournal keeps a copy of a damaged journal for an operator. Claims without a record
// count as sent then. Where sources stay, it returns an error, because only the journal
// knows which files were sent.
func (s *Spool) setAsideJournal() error {
	if s.layout.keep {
		return fmt.Errorf("%w: it alone says which of the kept files were uploaded; move it away to upload all of them again: %s", errDamaged, s.layout.path(journal.FileName))
	}
	damaged := journal.FileName + ".damaged"
	if err := s.layout.state.Link(journal.FileName, damaged); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	s.cfg.Logger.Error("journal damaged; claims without a record count as sent", "path", s.layout.path(damaged))
	return nil
}

// claims lists the claims in claimed/. If the journal is damaged, it adds an intent for each
// that has none: it is not known which of them were not sent.
func (s *Spool) claims(damaged bool) ([]claimOnDisk, error) {
	if err := s.restoreRemoved(); err != nil {
		return nil, err
	}
	claims, err := s.layout.list(claimedDir)
	if err != nil {
		return nil, err
	}
	present := map[string]bool{}
	for _, h := range claims {
		present[h.id] = true
		if rec := s.journal.Last(h.id); damaged && h.name != "" && (rec == nil || rec.Op == journal.OpUnsent) {
			s.journal.Assume((&item{id: h.id, name: h.name, seen: fileat.IDOf(h.info)}).newRecord(journal.OpIntent))
		}
	}
	if s.layout.keep { // sources of quarantined files still exist, and must stay known even if their claims were removed
		for _, r := range s.journal.Unfinished() {
			present[r.ID] = true
		}
	}
	s.journal.Prune(func(id string) bool { return present[id] }, s.layout.exists)
	return claims, nil
}

// resume goes on with one claim, by the table in the package comment.
func (s *Spool) resume(h claimOnDisk) error {
	switch {
	case h.name == "": // killed between two steps of a claim, or after the last
		return s.layout.removeClaim(h.id)
	case h.reason != nil && s.decided(h.id): // killed while it was brought back
		if err := s.layout.state.Remove(filepath.Join(claimPath(h.id), reasonFile)); err != nil {
			return err
		}
		h.reason = nil
		return s.resume(h)
	case h.reason != nil: // killed between the reason and the rename
		return s.layout.finishQuarantine(h.id, h.reason.State)
	case s.stillInSource(h): // killed between link and removal while it was given back
		return s.layout.removeClaim(h.id)
	}
	it := &item{id: h.id, name: h.name}
	if !h.info.Mode().IsRegular() { // killed while such a claim was given back
		if err := s.layout.unclaim(h.id, h.name); !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	rec := s.journal.Last(h.id)
	switch {
	case rec == nil:
	case rec.Op == journal.OpStored, rec.Op == journal.OpKept:
		it.stored, it.logged = rec, true
	case rec.Op == journal.OpIntent:
		it.open, it.proven, it.reach = true, rec.Proven, rec.Elements
	}
	s.seeAgain(it, h.info)
	s.recovered = append(s.recovered, it)
	return nil
}

// decided reports whether the claim was resolved after it was quarantined.
func (s *Spool) decided(id string) bool {
	rec := s.journal.Last(id)
	return rec != nil && rec.Decided
}

// stillInSource reports whether a claim of which nothing was sent still has its name in
// the spooled directory: the next scan claims it again.
func (s *Spool) stillInSource(h claimOnDisk) bool {
	rec := s.journal.Last(h.id)
	unsent := rec == nil || rec.Op == journal.OpUnsent
	return unsent && !s.layout.keep && s.layout.isSource(h.name, contentPath(h.id, h.name))
}

// retryAmbiguous claims the files in ambiguous/ again. A record that they were not sent comes
// first: the operator has said that a second copy is acceptable.
func (s *Spool) retryAmbiguous() error {
	list, err := s.layout.list(string(quarantineAmbiguous))
	if err != nil {
		return err
	}
	for _, h := range list {
		if h.name == "" || !h.info.Mode().IsRegular() {
			continue
		}
		r := &journal.Record{Op: journal.OpUnsent, ID: h.id, File: fileat.IDOf(h.info), Decided: true, At: time.Now().UTC()}
		r.SetPath(h.name)
		if err := s.journal.Append(r); err != nil {
			return err
		}
		if err := s.layout.reclaim(h.id, quarantineAmbiguous); err != nil {
			return err
		}
		s.recovered = append(s.recovered, &item{id: h.id, name: h.name, seen: fileat.IDOf(h.info)})
	}
	return nil
}
