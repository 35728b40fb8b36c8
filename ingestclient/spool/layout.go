package spool

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/artstore/artstore-pki/internal/durable"
)

// StateDir is what the spool keeps its own files in, below the spooled
// directory, unless Config says another place.
const StateDir = ".artstore-ingest"

// Directories of the state; those of [aside] are the others.
const (
	claimedDir = "claimed"
	doneDir    = "done"
)

const (
	contentDir = "file"        // in a claim: the file, below its path
	reasonFile = "reason.json" // in a claim: why it was put aside
)

// aside is where a claim ends that was not stored.
type aside string

const (
	asideFailed    aside = "failed"
	asideAmbiguous aside = "ambiguous"
)

// reason is the content of reason.json, for whoever comes to look.
type reason struct {
	State    aside     `json:"state"`
	ID       string    `json:"id"`      // of the claim
	FileID   string    `json:"file_id"` // the element's, or the one it was offered; "" if neither is known
	Name     string    `json:"name"`
	Size     int64     `json:"size"` // bytes
	SHA256   string    `json:"sha256,omitempty"`
	Status   int       `json:"status,omitempty"` // HTTP
	Error    string    `json:"error"`
	Attempts int       `json:"attempts"`
	At       time.Time `json:"at"`
	Advice   string    `json:"advice"`

	Elements  []string     `json:"elements,omitempty"`   // that may have it, as far as that is known
	OnSuccess SourceAction `json:"on_success,omitempty"` // what was to become of the source
}

// layout knows the spooled directory and the state, and every step that moves a
// file. Each step is one system call that happens or does not; what a crash
// leaves between two of them is said at each.
//
// Both directories are opened once, and each step goes through what is open:
// whoever may write to the spooled directory can rename in it at any time, and
// leads no step anywhere else with that.
type layout struct {
	dir     string   // spooled
	sources *os.File // the same, open
	state   *os.Root // names in it are relative to it
	claims  *os.File // the same, for steps between the two
	keep    bool     // sources stay: claims are hard links
}

func claimPath(id string) string         { return filepath.Join(claimedDir, id) }
func contentPath(id, name string) string { return filepath.Join(claimPath(id), contentDir, name) }

// path is where something of the state is, for messages.
func (l layout) path(name string) string { return filepath.Join(l.state.Name(), name) }

// errMoved: what stands at the name is not what was looked at.
var errMoved = errors.New("it changed since it was looked at")

// take claims the file at name under id: one rename, or one link if sources
// stay. Killed before it, an empty directory is left; after it, the claim is
// whole, because its path says all there is to know. Only a regular file that
// is still the one that was seen is kept.
func (l layout) take(id, name string, seen identity) error {
	to := contentPath(id, name)
	if err := l.state.MkdirAll(filepath.Dir(to), durable.Dir); err != nil {
		return err
	}
	move := place.rename
	if l.keep {
		move = place.link
	}
	if err := l.between(name, to, move); err != nil {
		if l.keep && errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("keeping files takes a second name for each, and Linux has none for files of others that we may not write (fs.protected_hardlinks): %w", err)
		}
		return errors.Join(err, l.drop(id))
	}
	info, err := l.state.Lstat(to)
	if err == nil && info.Mode().IsRegular() && identify(info) == seen {
		return nil
	}
	if err == nil {
		err = errMoved
	}
	return errors.Join(err, l.giveBack(id, name))
}

// giveBack undoes a claim, unless another file has taken the name meanwhile:
// then the claim stays and err is [fs.ErrExist]. Killed between link and
// remove, the file has both names, and the next start finishes the claim's.
func (l layout) giveBack(id, name string) error {
	if !l.keep {
		err := l.between(name, contentPath(id, name), func(source, claim place) error {
			if err := claim.move(source); err != nil && !claim.same(source) {
				return err
			}
			return durable.SyncOpenDir(source.dir)
		})
		if err != nil {
			return err
		}
	}
	return l.drop(id)
}

// archive moves the stored file of a claim to done/, beside a namesake if there
// is one. Nothing is ever replaced.
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
	if err != nil && !l.same(from, to) && !errors.Is(err, fs.ErrNotExist) { // the same or gone: it was moved, and then came a crash or an error
		return err
	}
	if err := durable.SyncDirIn(l.state, filepath.Dir(to)); err != nil {
		return err
	}
	return l.drop(id)
}

func (l layout) moveTo(from, to string) error {
	source, err := at(l.claims, from)
	if err != nil {
		return err
	}
	defer source.close()
	target, err := at(l.claims, to)
	if err != nil {
		return err
	}
	defer target.close()
	return source.move(target)
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

// drop removes a claim with what is in it. Its file is stored, given back,
// archived or linked elsewhere. Killed half-way, what is left is removed by the
// next start for the same reason.
func (l layout) drop(id string) error { return l.state.RemoveAll(claimPath(id)) }

// putAside moves a whole claim to failed/ or ambiguous/, with its reason. The
// reason is written first: killed before the rename, the next start reads it and
// renames.
func (l layout) putAside(r *reason) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFileIn(l.state, filepath.Join(claimPath(r.ID), reasonFile), append(raw, '\n'), durable.Private); err != nil {
		return err
	}
	return l.finishAside(r.ID, r.State)
}

func (l layout) finishAside(id string, to aside) error {
	if err := l.state.Rename(claimPath(id), filepath.Join(string(to), id)); err != nil {
		return err
	}
	return errors.Join(durable.SyncDirIn(l.state, string(to)), durable.SyncDirIn(l.state, claimedDir))
}

// retake brings a claim back that was put aside. Killed before its reason is
// removed, the next start removes it, because a record says that it was decided.
func (l layout) retake(id string, from aside) error {
	if err := l.state.Rename(filepath.Join(string(from), id), claimPath(id)); err != nil {
		return err
	}
	if err := l.state.Remove(filepath.Join(claimPath(id), reasonFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// settle makes the claim itself durable. A power cut that undid the rename
// after the upload began would let the file be claimed, and sent, once more.
func (l layout) settle(id, name string) error {
	source, err := l.sourceAt(name)
	if err == nil {
		err = durable.SyncOpenDir(source.dir)
		source.close()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // a source directory may be gone by now: so is the name in it
	}
	for d := filepath.Dir(contentPath(id, name)); d != "."; d = filepath.Dir(d) {
		if err := durable.SyncDirIn(l.state, d); err != nil {
			return err
		}
	}
	return nil
}

// known lists what must not be claimed where sources stay: it is stored, on its
// way, or put aside, and has a second name in the directory.
func (l layout) known(j *journal) (map[identity]bool, error) {
	known := map[identity]bool{}
	for _, id := range j.identities() {
		known[id] = true
	}
	for _, dir := range []string{claimedDir, string(asideFailed), string(asideAmbiguous)} {
		list, err := l.list(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, h := range list {
			if h.name != "" {
				known[identify(h.info)] = true
			}
		}
	}
	return known, nil
}
