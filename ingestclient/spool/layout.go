package spool

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/artstore/artstore-pki/ingestclient/spool/internal/fileat"
	"github.com/artstore/artstore-pki/ingestclient/spool/internal/journal"
	"github.com/artstore/artstore-pki/internal/durable"
)

// StateDir is the name of the state directory, which is in the spooled directory unless
// Config.StateDir is set.
const StateDir = ".artstore-ingest"

// Directories of the state; those of [quarantine] are the others.
const (
	claimedDir = "claimed"
	doneDir    = "done"
)

const (
	contentDir = "file"        // in a claim: the file, below its path
	reasonFile = "reason.json" // in a claim: why it was quarantined
)

// quarantine is a directory for claims that were not stored.
type quarantine string

const (
	quarantineFailed    quarantine = "failed"
	quarantineAmbiguous quarantine = "ambiguous"
)

// reason is the content of reason.json, for the operator.
type reason struct {
	State    quarantine `json:"state"`
	ID       string     `json:"id"`      // of the claim
	FileID   string     `json:"file_id"` // at the element, or the id that it was offered; "" if neither is known
	Name     string     `json:"name"`
	Size     int64      `json:"size"` // bytes
	SHA256   string     `json:"sha256,omitempty"`
	Status   int        `json:"status,omitempty"` // HTTP
	Error    string     `json:"error"`
	Attempts int        `json:"attempts"`
	At       time.Time  `json:"at"`
	Advice   string     `json:"advice"`

	Elements  []string     `json:"elements,omitempty"`   // that may have it, as far as that is known
	OnSuccess SourceAction `json:"on_success,omitempty"` // Config.OnSuccess when it was quarantined
}

// layout is the spooled directory and the state, with every step that moves a file.
// Each step is one system call, which happens or does not; each method says what a
// crash between two of them leaves.
//
// Both directories are opened once, and each step works in the open directories. So a
// user who may write to the spooled directory and renames in it cannot lead a step to
// another place.
type layout struct {
	dir     string   // spooled
	sources *os.File // the same, open
	state   *os.Root // names in it are relative to it
	claims  *os.File // the same, for steps between the two
	keep    bool     // sources stay: claims are hard links
}

func claimPath(id string) string         { return filepath.Join(claimedDir, id) }
func contentPath(id, name string) string { return filepath.Join(claimPath(id), contentDir, name) }

// path returns the path of a name in the state, for messages.
func (l layout) path(name string) string { return filepath.Join(l.state.Name(), name) }

// errMoved reports that the name has another file than the one that was inspected.
var errMoved = errors.New("it changed since it was looked at")

// claimFile claims the file at name under id: one rename, or one link if sources stay.
// Killed before it, an empty directory is left; after it, the claim is complete,
// because its path tells its id and name. The claim is undone if its file is not
// regular, or not the one that was seen.
func (l layout) claimFile(id, name string, seen fileat.ID) error {
	to := contentPath(id, name)
	if err := l.state.MkdirAll(filepath.Dir(to), durable.Dir); err != nil {
		return err
	}
	move := fileat.Entry.Rename
	if l.keep {
		move = fileat.Entry.Link
	}
	if err := l.between(name, to, move); err != nil {
		if l.keep && errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("keeping files takes a second name for each, and Linux has none for files of others that we may not write (fs.protected_hardlinks): %w", err)
		}
		return errors.Join(err, l.removeClaim(id))
	}
	info, err := l.state.Lstat(to)
	if err == nil && info.Mode().IsRegular() && fileat.IDOf(info) == seen {
		return nil
	}
	if err == nil {
		err = errMoved
	}
	return errors.Join(err, l.unclaim(id, name))
}

// unclaim undoes a claim, unless another file has the name now: then the claim stays and err
// is [fs.ErrExist]. Killed between link and remove, the file has both names, and the next
// start removes that of the claim.
func (l layout) unclaim(id, name string) error {
	if !l.keep {
		err := l.between(name, contentPath(id, name), func(source, claim fileat.Entry) error {
			if err := claim.Move(source); err != nil && !claim.Same(source) {
				return err
			}
			return durable.SyncOpenDir(source.Dir)
		})
		if err != nil {
			return err
		}
	}
	return l.removeClaim(id)
}

// archive moves the stored file of a claim to done/. If a file of this name is there, it gets
// another name: no file is replaced. Killed between the two steps, the next start finds
// the moved file and removes the claim.
func (l layout) archive(id, name string) error {
	from, to := contentPath(id, name), filepath.Join(doneDir, name)
	if err := l.state.MkdirAll(filepath.Dir(to), durable.Dir); err != nil {
		return err
	}
	err := l.moveTo(from, to)
	if errors.Is(err, fs.ErrExist) && !l.same(from, to) {
		to += "~" + id
		err = l.moveTo(from, to)
	}
	// If from is the same file as to, or does not exist, it was moved before a crash or an error.
	if err != nil && !l.same(from, to) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := durable.SyncDirIn(l.state, filepath.Dir(to)); err != nil {
		return err
	}
	return l.removeClaim(id)
}

// moveTo gives a file of the state another name, and replaces nothing.
func (l layout) moveTo(from, to string) error {
	source, err := fileat.At(l.claims, from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := fileat.At(l.claims, to)
	if err != nil {
		return err
	}
	defer target.Close()
	return source.Move(target)
}

// same reports whether two names of the state are of one file.
func (l layout) same(a, b string) bool {
	x, err := l.state.Lstat(a)
	if err != nil {
		return false
	}
	y, err := l.state.Lstat(b)
	return err == nil && os.SameFile(x, y)
}

// removeClaim removes a claim and its file, which is stored, returned, archived or
// linked elsewhere. Killed half-way, the next start removes the rest for the same reason.
func (l layout) removeClaim(id string) error { return l.state.RemoveAll(claimPath(id)) }

// quarantineClaim moves a whole claim to failed/ or ambiguous/, with its reason. The
// reason is written first: killed before the rename, the next start reads it and
// renames.
func (l layout) quarantineClaim(r *reason) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFileIn(l.state, filepath.Join(claimPath(r.ID), reasonFile), append(raw, '\n'), durable.Private); err != nil {
		return err
	}
	return l.finishQuarantine(r.ID, r.State)
}

// finishQuarantine is the rename of quarantineClaim, made durable.
func (l layout) finishQuarantine(id string, to quarantine) error {
	if err := l.state.Rename(claimPath(id), filepath.Join(string(to), id)); err != nil {
		return err
	}
	return errors.Join(durable.SyncDirIn(l.state, string(to)), durable.SyncDirIn(l.state, claimedDir))
}

// reclaim brings a claim back that was quarantined. Killed before its reason is
// removed, the next start removes it, because a record says that it was decided.
func (l layout) reclaim(id string, from quarantine) error {
	if err := l.state.Rename(filepath.Join(string(from), id), claimPath(id)); err != nil {
		return err
	}
	if err := l.state.Remove(filepath.Join(claimPath(id), reasonFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// syncClaim makes the claim itself durable. A power cut that undid the rename
// after the upload began would let the file be claimed, and sent, once more.
func (l layout) syncClaim(id, name string) error {
	source, err := l.sourceAt(name)
	if err == nil {
		err = durable.SyncOpenDir(source.Dir)
		source.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // if the directory of the source was removed, its name was too
	}
	for d := filepath.Dir(contentPath(id, name)); d != "."; d = filepath.Dir(d) {
		if err := durable.SyncDirIn(l.state, d); err != nil {
			return err
		}
	}
	return nil
}

// excludedFiles lists the files that must not be claimed with KeepSource: they are
// stored, claimed or quarantined, and still have their name in the spooled directory.
func (l layout) excludedFiles(j *journal.Journal) (map[fileat.ID]bool, error) {
	known := map[fileat.ID]bool{}
	for _, id := range j.KeptFiles() {
		known[id] = true
	}
	for _, dir := range []string{claimedDir, string(quarantineFailed), string(quarantineAmbiguous)} {
		list, err := l.list(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, h := range list {
			if h.name != "" {
				known[fileat.IDOf(h.info)] = true
			}
		}
	}
	return known, nil
}
