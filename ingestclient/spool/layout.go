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
// directory: claims are renames, and those do not leave a file system.
const StateDir = ".artstore-ingest"

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
}

// layout knows the paths below the spooled directory, and every step that moves
// a file. Each step is one system call that happens or does not; what a crash
// leaves between two of them is said at each.
type layout struct {
	dir   string // spooled
	state string
	keep  bool // sources stay: claims are hard links
}

func newLayout(dir string, keep bool) layout {
	return layout{dir: dir, state: filepath.Join(dir, StateDir), keep: keep}
}

func (l layout) claimed() string        { return filepath.Join(l.state, "claimed") }
func (l layout) done() string           { return filepath.Join(l.state, "done") }
func (l layout) asides(a aside) string  { return filepath.Join(l.state, string(a)) }
func (l layout) claim(id string) string { return filepath.Join(l.claimed(), id) }
func (l layout) source(name string) string {
	return filepath.Join(l.dir, name)
}
func (l layout) content(id, name string) string {
	return filepath.Join(l.claim(id), contentDir, name)
}

// make creates the directories of the state, and removes what interrupted
// writes left in it.
func (l layout) make() error {
	info, err := os.Stat(l.dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", l.dir)
	}
	if err := l.guard(); err != nil {
		return err
	}
	left, err := filepath.Glob(filepath.Join(l.state, ".*.tmp*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// guard makes the directories of the state, and refuses those that somebody else
// made or can change: whoever may write to the spooled directory could otherwise
// have files read, sent and removed that only we may touch. Below directories
// that are ours and closed to others, nobody else can put anything.
func (l layout) guard() error {
	for _, d := range []string{l.state, l.claimed(), l.done(), l.asides(asideFailed), l.asides(asideAmbiguous)} {
		if err := os.Mkdir(d, durable.Dir); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := ownedDirectory(d); err != nil {
			return err
		}
	}
	for _, f := range []string{lockName, snapshotName, "journal"} {
		if err := ownedFile(filepath.Join(l.state, f)); err != nil {
			return err
		}
	}
	return nil
}

// errMoved: what stands at the name is not what was looked at.
var errMoved = errors.New("it changed since it was looked at")

// take claims the file at name under id: one rename, or one link if sources
// stay. Killed before it, an empty directory is left; after it, the claim is
// whole, because its path says all there is to know. Only a regular file that
// is still the one that was seen is kept.
func (l layout) take(id, name string, seen identity) error {
	to := l.content(id, name)
	if err := durable.MkdirAll(filepath.Dir(to)); err != nil {
		return err
	}
	move := os.Rename
	if l.keep {
		move = os.Link
	}
	if err := move(l.source(name), to); err != nil {
		return errors.Join(err, l.drop(id))
	}
	info, err := os.Lstat(to)
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
	from := l.content(id, name)
	if !l.keep {
		if err := os.Link(from, l.source(name)); err != nil && !l.same(from, l.source(name)) {
			return err
		}
		if err := durable.SyncDir(filepath.Dir(l.source(name))); err != nil {
			return err
		}
	}
	return l.drop(id)
}

// archive moves the stored file of a claim to done/, beside a namesake if there
// is one. Nothing is ever replaced.
func (l layout) archive(id, name string) error {
	from, to := l.content(id, name), filepath.Join(l.done(), name)
	if err := durable.MkdirAll(filepath.Dir(to)); err != nil {
		return err
	}
	err := os.Link(from, to)
	if errors.Is(err, fs.ErrExist) && !l.same(from, to) {
		to += "~" + id
		err = os.Link(from, to)
	}
	if err != nil && !l.same(from, to) { // the same: a crash came between link and drop
		return err
	}
	if err := durable.SyncDir(filepath.Dir(to)); err != nil {
		return err
	}
	return l.drop(id)
}

func (l layout) same(a, b string) bool {
	x, err := os.Lstat(a)
	if err != nil {
		return false
	}
	y, err := os.Lstat(b)
	return err == nil && os.SameFile(x, y)
}

// drop removes a claim with what is in it. Its file is stored, given back,
// archived or linked elsewhere. Killed half-way, what is left is removed by the
// next start for the same reason.
func (l layout) drop(id string) error { return os.RemoveAll(l.claim(id)) }

// putAside moves a whole claim to failed/ or ambiguous/, with its reason. The
// reason is written first: killed before the rename, the next start reads it and
// renames.
func (l layout) putAside(r *reason) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(l.claim(r.ID), reasonFile), append(raw, '\n'), durable.Private); err != nil {
		return err
	}
	return l.finishAside(r.ID, r.State)
}

func (l layout) finishAside(id string, to aside) error {
	if err := os.Rename(l.claim(id), filepath.Join(l.asides(to), id)); err != nil {
		return err
	}
	return errors.Join(durable.SyncDir(l.asides(to)), durable.SyncDir(l.claimed()))
}

// retake brings a claim back from ambiguous/. Killed before its reason is
// removed, the next start puts it aside again.
func (l layout) retake(id string) error {
	if err := os.Rename(filepath.Join(l.asides(asideAmbiguous), id), l.claim(id)); err != nil {
		return err
	}
	return os.Remove(filepath.Join(l.claim(id), reasonFile))
}

// settle makes the claim itself durable. A power cut that undid the rename
// after the upload began would let the file be claimed, and sent, once more.
func (l layout) settle(id, name string) error {
	dirs := []string{filepath.Dir(l.source(name))}
	for d := filepath.Dir(l.content(id, name)); d != l.state; d = filepath.Dir(d) {
		dirs = append(dirs, d)
	}
	for _, d := range dirs {
		if err := durable.SyncDir(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err // a source directory may be gone by now: so is the name in it
		}
	}
	return nil
}

// held is one claim as its directory tells it.
type held struct {
	id     string
	name   string // "": there is no file in it
	info   fs.FileInfo
	reason *reason // nil: it was not put aside
}

// list reads the claims in one of the directories of claims. What is no claim
// is left alone: it is not ours.
func (l layout) list(root string) ([]held, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	var out []held
	for _, e := range entries {
		if !e.IsDir() || !validID(e.Name()) {
			continue
		}
		h, err := readHeld(filepath.Join(root, e.Name()), e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // a running daemon was quicker
		}
		if err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, nil
}

func readHeld(dir, id string) (held, error) {
	h := held{id: id}
	base := filepath.Join(dir, contentDir)
	err := filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if h.name, err = filepath.Rel(base, path); err != nil {
			return err
		}
		h.info, err = d.Info()
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return h, err
	}
	raw, err := readOwn(filepath.Join(dir, reasonFile))
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	r := &reason{}
	if err == nil {
		err = json.Unmarshal(raw, r)
	}
	if err == nil && r.State != asideFailed && r.State != asideAmbiguous {
		err = fmt.Errorf("state %q", r.State)
	}
	if err != nil {
		return h, fmt.Errorf("reading %s: %w", filepath.Join(dir, reasonFile), err)
	}
	h.reason = r
	return h, nil
}

// known lists what must not be claimed where sources stay: it is stored, on its
// way, or put aside, and has a second name in the directory.
func (l layout) known(j *journal) (map[identity]bool, error) {
	known := map[identity]bool{}
	for _, id := range j.identities() {
		known[id] = true
	}
	for _, dir := range []string{l.claimed(), l.asides(asideFailed), l.asides(asideAmbiguous)} {
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
