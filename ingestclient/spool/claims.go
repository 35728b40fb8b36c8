package spool

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// claimOnDisk is one claim as its directory shows it.
type claimOnDisk struct {
	id     string
	name   string // "" if there is no file in it
	info   fs.FileInfo
	reason *reason // nil if it was not quarantined
}

// list reads the claims in one of the directories of claims. It ignores entries that
// are no claims.
func (l layout) list(dir string) ([]claimOnDisk, error) {
	entries, err := l.readDir(dir)
	if err != nil {
		return nil, err
	}
	var out []claimOnDisk
	for _, e := range entries {
		if !validID(e.Name()) {
			continue
		}
		h, err := l.readHeld(filepath.Join(dir, e.Name()), e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // a running spool has moved it
		}
		if err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, nil
}

func (l layout) readDir(name string) ([]fs.DirEntry, error) {
	d, err := l.state.Open(name)
	if err != nil {
		return nil, err
	}
	entries, err := d.ReadDir(-1)
	return entries, errors.Join(err, d.Close())
}

// readHeld reads one claim: its file and its reason, if they exist.
func (l layout) readHeld(dir, id string) (claimOnDisk, error) {
	h := claimOnDisk{id: id}
	if err := l.checkDir(dir); err != nil {
		return h, err
	}
	if err := l.findContent(&h, filepath.Join(dir, contentDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return h, err
	}
	raw, err := l.readOwn(filepath.Join(dir, reasonFile))
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	r := &reason{}
	if err == nil {
		err = json.Unmarshal(raw, r)
	}
	if err == nil && r.State != quarantineFailed && r.State != quarantineAmbiguous {
		err = fmt.Errorf("state %q", r.State)
	}
	if err != nil {
		return h, fmt.Errorf("reading %s: %w", l.path(filepath.Join(dir, reasonFile)), err)
	}
	h.reason = r
	return h, nil
}

// findContent looks for the file of a claim below its directory of contents. The
// directories on the way are ours, with nothing else in them. A directory that is not
// so was put in the place of the file at the moment of the claim, and is not entered.
func (l layout) findContent(h *claimOnDisk, base string) error {
	if err := l.checkDir(base); err != nil {
		return err
	}
	entries, err := l.readDir(base)
	for at := base; err == nil && len(entries) == 1; {
		at = filepath.Join(at, entries[0].Name())
		if h.info, err = l.state.Lstat(at); err != nil {
			break
		}
		if h.name, err = filepath.Rel(base, at); err != nil || !h.info.IsDir() || checkOwnedDir(at, h.info) != nil {
			return err
		}
		if entries, err = l.readDir(at); len(entries) > 1 {
			return err
		}
		h.name, h.info = "", nil
	}
	if len(entries) > 1 {
		return fmt.Errorf("%s holds more than the file that was claimed; take the others away", l.path(base))
	}
	return err
}
