package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/artstore/artstore-pki/ingestclient/spool/internal/journal"
)

// restoreRemoved looks for claims that the element may have, and that are in none of the
// directories: somebody has removed them. Where sources stay, their files would be sent
// again. So they are claimed again, under the same ids, and count as sent.
func (s *Spool) restoreRemoved() error {
	present, empty, err := s.presentAndEmpty()
	if err != nil {
		return err
	}
	for _, r := range s.journal.Unfinished() {
		if present[r.ID] || !validID(r.ID) {
			continue
		}
		err := errMoved
		if s.layout.keep {
			err = s.claimAgain(r, empty[r.ID])
		}
		switch {
		case err == nil:
			s.cfg.Logger.Warn("a claim that may be stored was removed, and is made again", "path", r.Path(), "id", r.ID)
		case errors.Is(err, errMoved), errors.Is(err, fs.ErrNotExist):
			s.cfg.Logger.Warn("a claim that may be stored was removed, and its file with it", "path", r.Path(), "id", r.ID)
			s.journal.Forget(r.ID)
		default:
			return fmt.Errorf("claiming %s again, which may be stored: %w", r.Path(), err)
		}
	}
	return nil
}

// claimAgain claims the file of a record again. Before that it removes the rest of the claim,
// which would be in the way when the claim is quarantined.
func (s *Spool) claimAgain(r *journal.Record, empty string) error {
	if empty != "" {
		if err := s.layout.state.RemoveAll(empty); err != nil {
			return err
		}
	}
	return s.layout.claimFile(r.ID, r.Path(), r.File)
}

// presentAndEmpty returns the ids of claims that have their file, and the directories of
// quarantined claims that have none.
func (s *Spool) presentAndEmpty() (present map[string]bool, empty map[string]string, err error) {
	present, empty = map[string]bool{}, map[string]string{}
	for _, dir := range []string{claimedDir, string(quarantineFailed), string(quarantineAmbiguous)} {
		list, err := s.layout.list(dir)
		if err != nil {
			return nil, nil, err
		}
		for _, h := range list {
			switch {
			case h.name != "":
				present[h.id] = true
			case dir != claimedDir:
				empty[h.id] = filepath.Join(dir, h.id)
			}
		}
	}
	return present, empty, nil
}
