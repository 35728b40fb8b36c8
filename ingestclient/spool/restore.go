package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// restore looks for claims of which the element may know, and which are in none
// of the directories: somebody removed them. Where sources stay, the file would be
// sent again. It is claimed again, under the same id, and counts as sent.
func (s *Spool) restore() error {
	there, hollow, err := s.aliveAndHollow()
	if err != nil {
		return err
	}
	for _, r := range s.journal.unfinished() {
		if there[r.ID] || !validID(r.ID) {
			continue
		}
		err := errMoved
		if s.layout.keep {
			err = s.claimAgain(r, hollow[r.ID])
		}
		switch {
		case err == nil:
			s.cfg.Logger.Warn("a claim that may be stored was removed, and is made again", "path", r.name(), "id", r.ID)
		case errors.Is(err, errMoved), errors.Is(err, fs.ErrNotExist):
			s.cfg.Logger.Warn("a claim that may be stored was removed, and its file with it", "path", r.name(), "id", r.ID)
			s.journal.forget(r.ID)
		default:
			return fmt.Errorf("claiming %s again, which may be stored: %w", r.name(), err)
		}
	}
	return nil
}

// claimAgain first removes what is left of a claim without its file: it would be
// in the way when the claim is put aside.
func (s *Spool) claimAgain(r *record, hollow string) error {
	if hollow != "" {
		if err := s.layout.state.RemoveAll(hollow); err != nil {
			return err
		}
	}
	return s.layout.take(r.ID, r.name(), r.File)
}

// aliveAndHollow lists the ids of claims that have their file, and the directories
// of those put aside that have none.
func (s *Spool) aliveAndHollow() (alive map[string]bool, hollow map[string]string, err error) {
	alive, hollow = map[string]bool{}, map[string]string{}
	for _, dir := range []string{claimedDir, string(asideFailed), string(asideAmbiguous)} {
		list, err := s.layout.list(dir)
		if err != nil {
			return nil, nil, err
		}
		for _, h := range list {
			switch {
			case h.name != "":
				alive[h.id] = true
			case dir != claimedDir:
				hollow[h.id] = filepath.Join(dir, h.id)
			}
		}
	}
	return alive, hollow, nil
}
