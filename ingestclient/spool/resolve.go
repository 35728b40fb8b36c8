package spool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path/filepath"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/spool/internal/fileat"
	"github.com/artstore/artstore-pki/ingestclient/spool/internal/journal"
)

// Decision says what is done with a file that was quarantined.
type Decision string

// All decisions.
const (
	DecideStored  Decision = "stored" // an element has it: its source is disposed of
	DecideResend  Decision = "resend" // no element has it: the next start sends it
	DecideNothing Decision = "stays"  // it is not known, and nothing is done
)

// ResolveConfig says which files of a spool to settle, and how. Dir and either
// Decision or Lister are required.
type ResolveConfig struct {
	// Dir and StateDir are those of the spool's Config.
	Dir, StateDir string
	// IDs name files in ambiguous/ or, with a Decision, in failed/. Empty means all in ambiguous/.
	IDs []string
	// Decision is that of the operator: DecideStored or DecideResend. Empty means that
	// Lister is asked.
	Decision Decision
	// Lister lists what each element has stored. *ingestclient.Client is one. Files
	// ends without an error only if it has yielded each file that was there.
	Lister interface {
		Elements(ctx context.Context) ([]ingestclient.Element, error)
		Files(ctx context.Context, url string) iter.Seq2[*ingestclient.File, error]
	}
	// Apply executes the decisions. Without it nothing is changed.
	Apply bool
}

// Resolution is what was decided about one file, and why.
type Resolution struct {
	ID       string   `json:"id"` // of the directory that holds it
	Name     string   `json:"name"`
	Size     int64    `json:"size"` // bytes
	SHA256   string   `json:"sha256,omitempty"`
	Decision Decision `json:"decision"`
	Why      string   `json:"why"`
	FileID   string   `json:"file_id,omitempty"` // at the element, if it is known
	Element  string   `json:"element,omitempty"` // the URL
	Done     bool     `json:"done"`
}

// ErrUnknownID is returned by Resolve for an id of no quarantined file.
var ErrUnknownID = errors.New("no file was put aside under this id")

// Resolve decides about files that were quarantined, and with Apply executes the decisions.
// It holds the lock of the spool meanwhile: beside a running instance it returns
// [ErrLocked]. A stored source is treated as it was configured when it was quarantined.
//
// Killed at any moment, a file is where it was, or resolved; another call goes on. On an
// error the files before the one that failed are resolved.
func Resolve(ctx context.Context, cfg ResolveConfig) (out []Resolution, err error) {
	s, err := openQuarantine(cfg)
	if err == nil {
		defer func() { err = errors.Join(err, s.Close()) }()
		out, err = s.resolveAll(ctx, cfg)
	}
	if err != nil {
		return out, fmt.Errorf("resolving in the spool %s: %w", cfg.Dir, err)
	}
	return out, nil
}

// openQuarantine locks a spool that was used before.
func openQuarantine(cfg ResolveConfig) (*Spool, error) {
	if cfg.Decision == "" && cfg.Lister == nil || cfg.Decision != "" && cfg.Decision != DecideStored && cfg.Decision != DecideResend {
		return nil, errors.New("it takes a decision, stored or resend, or elements to ask")
	}
	s := &Spool{cfg: Config{Dir: cfg.Dir, StateDir: cfg.StateDir}}
	var err error
	if s.layout, err = openLayout(s.cfg, false); err != nil {
		return nil, err
	}
	if s.layout.state == nil {
		return nil, errors.Join(fmt.Errorf("%w: ingest never ran there", fs.ErrNotExist), s.Close())
	}
	if err := s.takeLock(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// errUnread reports a damaged journal. Only Open can repair it, with the files in claimed/.
var errUnread = errors.New("the journal is damaged: start ingest once before, which decides what that means for each file")

func (s *Spool) resolveAll(ctx context.Context, cfg ResolveConfig) ([]Resolution, error) {
	journal, damaged, err := openJournal(s.layout) // only reads, until Start is called
	if err != nil {
		return nil, err
	}
	if damaged {
		return nil, errUnread
	}
	s.journal = journal
	files, err := s.listQuarantined(cfg)
	if err != nil {
		return nil, err
	}
	out := make([]Resolution, len(files))
	if cfg.Decision == "" {
		if out, err = s.resolveAuto(ctx, cfg.Lister, files); err != nil {
			return nil, err
		}
	}
	for i, f := range files {
		if cfg.Decision != "" {
			out[i] = Resolution{Decision: cfg.Decision, Why: "you said so", FileID: f.reason.FileID}
		}
		out[i].ID, out[i].Name, out[i].Size = f.id, f.name, f.info.Size()
	}
	if !cfg.Apply {
		return out, nil
	}
	if err := journal.Start(); err != nil {
		return nil, err
	}
	for i, f := range files {
		if err := s.applyResolution(ctx, f, &out[i]); err != nil {
			return out, fmt.Errorf("settling %s: %w", f.id, err)
		}
	}
	return out, nil
}

// quarantinedFile is a file that was quarantined.
type quarantinedFile struct {
	claimOnDisk
	in quarantine
}

// path returns the path of its content in the state.
func (f quarantinedFile) path() string { return filepath.Join(string(f.in), f.id, contentDir, f.name) }

// listQuarantined lists the chosen files, the oldest first. Without a decision of the operator
// these are only ambiguous files: a refused file is not stored.
func (s *Spool) listQuarantined(cfg ResolveConfig) ([]quarantinedFile, error) {
	var files []quarantinedFile
	for _, in := range []quarantine{quarantineAmbiguous, quarantineFailed} {
		list, err := s.layout.list(string(in))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, h := range list {
			named := slices.Contains(cfg.IDs, h.id)
			if in == quarantineFailed && (!named || cfg.Decision == "") || in == quarantineAmbiguous && len(cfg.IDs) > 0 && !named {
				continue
			}
			if h.name == "" || !h.info.Mode().IsRegular() && cfg.Decision != DecideResend { // if it is no regular file, it can only be returned
				continue
			}
			if h.reason == nil {
				h.reason = &reason{}
			}
			files = append(files, quarantinedFile{claimOnDisk: h, in: in})
		}
	}
	for _, id := range cfg.IDs {
		if !slices.ContainsFunc(files, func(f quarantinedFile) bool { return f.id == id }) {
			return nil, fmt.Errorf("%w: %s", ErrUnknownID, id)
		}
	}
	slices.SortFunc(files, func(a, b quarantinedFile) int { return a.reason.At.Compare(b.reason.At) })
	return files, nil
}

// applyResolution executes a decision. Killed before the record is durable, or before the
// rename, the file is still in quarantine, and another decision does no harm. After the
// rename it is a claim, and the next start executes its record.
func (s *Spool) applyResolution(ctx context.Context, f quarantinedFile, r *Resolution) error {
	rec := &journal.Record{Op: journal.OpUnsent, ID: f.id, File: fileat.IDOf(f.info), Decided: true, At: time.Now().UTC()}
	rec.SetPath(f.name)
	after := s.afterwards(f)
	switch r.Decision {
	case DecideResend:
	case DecideStored:
		if r.SHA256 == "" {
			digest, err := s.hashQuarantined(ctx, f)
			if err != nil {
				return err
			}
			r.SHA256 = digest
		}
		rec.Op, rec.FileID, rec.SHA256 = journal.OpStored, r.FileID, r.SHA256
		if after == KeepSource {
			rec.Op = journal.OpKept
		}
	default:
		return nil
	}
	if err := s.journal.Append(rec); err != nil {
		return err
	}
	if err := s.layout.reclaim(f.id, f.in); err != nil {
		return err
	}
	r.Done = true
	if r.Decision == DecideResend {
		return nil
	}
	if after == MoveSource {
		return s.layout.archive(f.id, f.name)
	}
	return s.layout.removeClaim(f.id)
}

// afterwards returns what to do with a stored source. If the claim is a link, its source is
// still in the directory and stays. If the reason does not say it, the file is moved,
// because that loses nothing.
func (s *Spool) afterwards(f quarantinedFile) SourceAction {
	if s.layout.isSource(f.name, f.path()) {
		return KeepSource
	}
	return cmp.Or(f.reason.OnSuccess, MoveSource)
}

// hashQuarantined returns the SHA-256 of a quarantined file in hex.
func (s *Spool) hashQuarantined(ctx context.Context, f quarantinedFile) (string, error) {
	file, err := s.layout.openFile(f.path())
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }() // only read from
	info, err := file.Stat()
	if err == nil && (!info.Mode().IsRegular() || fileat.IDOf(info) != fileat.IDOf(f.info)) {
		err = fmt.Errorf("%w: %s", ingestclient.ErrFileChanged, f.name)
	}
	if err != nil {
		return "", err
	}
	return digest(ctx, file)
}
