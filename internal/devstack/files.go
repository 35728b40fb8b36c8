package devstack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/internal/durable"
)

const (
	metaSuffix = ".json"
	// copyBuffer is the memory of one upload, in bytes. It does not depend on the file.
	copyBuffer = 64 << 10
)

var (
	errTooLarge  = errors.New("the file is larger than allowed")
	errFull      = errors.New("there is no room left")
	errDuplicate = errors.New("the file is already there")
)

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// metadata is stored beside each content, as ID.json. A file exists if and only if its
// metadata does: metadata is written after the content and removed before it.
type metadata struct {
	ID          string    `json:"file_id"`
	Name        string    `json:"original_filename"`
	Size        int64     `json:"size"`
	SHA256      string    `json:"sha256"`
	ContentType string    `json:"content_type"`
	Description string    `json:"description,omitempty"`
	Version     string    `json:"version,omitempty"`
	Tags        []string  `json:"tags,omitempty"`
	Retention   string    `json:"retention_policy"`
	TTLDays     int       `json:"ttl_days,omitempty"`
	UploadedBy  string    `json:"uploaded_by"`
	UploadedAt  time.Time `json:"uploaded_at"`
}

// filestore keeps files on disk and an index of them in memory.
type filestore struct {
	files, tmp string // directories
	// maxFile bounds one file and total all files, in bytes.
	maxFile, total int64

	// mu is never held during I/O.
	mu    sync.Mutex
	index map[string]*metadata
	// taken has the ids of files that are being committed, so that two uploads with one id
	// cannot both succeed.
	taken map[string]bool
	// used counts the bytes of stored files and of uploads in progress.
	used int64
}

// openFiles reads what is stored. It removes temporary files and contents without
// metadata: their uploads were never acknowledged. Damaged metadata is an error, because
// it was acknowledged.
func openFiles(dir string, maxFile, total int64) (*filestore, error) {
	s := &filestore{
		files: filepath.Join(dir, "files"), tmp: filepath.Join(dir, "tmp"), maxFile: maxFile, total: total,
		index: map[string]*metadata{}, taken: map[string]bool{},
	}
	if err := os.RemoveAll(s.tmp); err != nil {
		return nil, fmt.Errorf("removing unfinished uploads: %w", err)
	}
	for _, d := range []string{s.files, s.tmp} {
		if err := durable.MkdirAll(d); err != nil {
			return nil, fmt.Errorf("opening the file store: %w", err)
		}
	}
	entries, err := os.ReadDir(s.files)
	if err != nil {
		return nil, fmt.Errorf("opening the file store: %w", err)
	}
	for _, e := range entries {
		id, isMeta := strings.CutSuffix(e.Name(), metaSuffix)
		if !isMeta || !uuidForm.MatchString(id) {
			continue
		}
		m, err := readMetadata(filepath.Join(s.files, e.Name()))
		if err != nil {
			return nil, err
		}
		s.index[id], s.used = m, s.used+m.Size
	}
	return s, s.removeUnnamed(entries)
}

// readMetadata reads the metadata of one file. An id that is not its file name is damage.
func readMetadata(path string) (*metadata, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading metadata: %w", err)
	}
	m := &metadata{}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("reading metadata: %s is damaged: %w", path, err)
	}
	if m.ID+metaSuffix != filepath.Base(path) || m.Size < 0 {
		return nil, fmt.Errorf("reading metadata: %s is damaged: id or size is wrong", path)
	}
	return m, nil
}

// removeUnnamed removes contents without metadata. It touches only names of the form that
// this store makes: a directory given by mistake keeps its files.
func (s *filestore) removeUnnamed(entries []fs.DirEntry) error {
	for _, e := range entries {
		ours := uuidForm.MatchString(e.Name())
		if !ours || s.index[e.Name()] != nil {
			continue
		}
		if err := os.Remove(filepath.Join(s.files, e.Name())); err != nil {
			return fmt.Errorf("removing unacknowledged content: %w", err)
		}
	}
	return nil
}

// incoming is an upload in progress: written, measured and hashed, without a name yet.
type incoming struct {
	store *filestore
	path  string // of the temporary file
	size  int64  // bytes, all of them reserved
	sum   string
}

// receive streams r to a temporary file, which is durable when it returns. Room is reserved
// with each piece, so that uploads at the same time cannot count on the same room. The
// announced size is not reserved: a client could announce much and send nothing.
func (s *filestore) receive(r io.Reader) (*incoming, error) {
	f, err := os.CreateTemp(s.tmp, "upload-*") // 0600
	if err != nil {
		return nil, fmt.Errorf("storing an upload: %w", err)
	}
	in := &incoming{store: s, path: f.Name()}
	whole := false
	defer func() { // a flag, not err: a dropped connection unwinds as a panic
		if !whole {
			_ = f.Close() // already failed; the first error is the telling one
			in.discard()
		}
	}()
	hash := sha256.New()
	if err := in.receiveFrom(io.MultiWriter(f, hash), r); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, fmt.Errorf("storing an upload: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("storing an upload: %w", err)
	}
	whole, in.sum = true, hex.EncodeToString(hash.Sum(nil))
	return in, nil
}

// receiveFrom copies r to w. An error of r is a readError, all others are of this side.
func (in *incoming) receiveFrom(w io.Writer, r io.Reader) error {
	buf := make([]byte, copyBuffer)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := in.store.reserve(in.size, int64(n)); err != nil {
				return err
			}
			in.size += int64(n)
			if _, err := w.Write(buf[:n]); err != nil {
				return fmt.Errorf("storing an upload: %w", err)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &readError{err}
		}
	}
}

// readError marks an error of the client's body. The answer is 400 then, and 500 for an
// error of the disk.
type readError struct{ err error }

func (e *readError) Error() string { return "reading an upload: " + e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// reserve takes more bytes for an upload that has reserved some before.
func (s *filestore) reserve(have, more int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have+more > s.maxFile {
		return errTooLarge
	}
	if s.used+more > s.total {
		return errFull
	}
	s.used += more
	return nil
}

// writable reports whether the disk takes data, by writing a few bytes and removing them.
func (s *filestore) writable() error {
	f, err := os.CreateTemp(s.tmp, "ready-*")
	if err != nil {
		return err
	}
	_, err = f.WriteString("ready?")
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// discard removes the upload and gives its room back. After commit it does nothing.
func (in *incoming) discard() {
	if in.path == "" {
		return
	}
	_ = os.Remove(in.path) // a leftover is removed at the next start
	in.path = ""
	in.store.mu.Lock()
	in.store.used -= in.size
	in.store.mu.Unlock()
}

// commit names the file: content first, metadata last. A crash in between leaves
// content that nothing names, which the next start removes.
func (in *incoming) commit(m *metadata) (err error) {
	s := in.store
	if err := s.claim(m.ID); err != nil {
		return err
	}
	m.Size, m.SHA256 = in.size, in.sum
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.taken, m.ID)
		if err == nil {
			s.index[m.ID] = m
			in.path = "" // its room is now the stored file's
		}
	}()
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding metadata: %w", err)
	}
	content := filepath.Join(s.files, m.ID)
	if err := os.Rename(in.path, content); err != nil {
		return fmt.Errorf("storing an upload: %w", err)
	}
	// The content's name must be durable before the metadata's: a power cut must
	// not leave metadata that promises a file.
	err = durable.SyncDir(s.files)
	if err == nil {
		err = durable.WriteFile(content+metaSuffix, data, durable.Private)
	}
	if err != nil {
		_, _ = os.Remove(content+metaSuffix), os.Remove(content) // what stays is removed at the next start
		return fmt.Errorf("writing metadata: %w", err)
	}
	return nil
}

// claim reserves an id, until commit is over.
func (s *filestore) claim(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index[id] != nil || s.taken[id] {
		return errDuplicate
	}
	s.taken[id] = true
	return nil
}

// get returns the metadata of a file, or nil if there is no such file.
func (s *filestore) get(id string) *metadata {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.index[id]
}

// open opens the content of a file. The caller closes it.
func (s *filestore) open(id string) (*os.File, error) {
	if s.get(id) == nil {
		return nil, fmt.Errorf("opening file %q: %w", id, fs.ErrNotExist)
	}
	return os.Open(filepath.Join(s.files, id))
}

// remove deletes a file. It leaves the index first, so that no request finds a file of
// which a part is gone. Metadata is removed and synced before the content: after a crash
// there may be content without metadata, which the next start removes. The room is free
// only when the content is gone.
func (s *filestore) remove(id string) error {
	s.mu.Lock()
	m := s.index[id]
	delete(s.index, id)
	s.mu.Unlock()
	if m == nil {
		return fmt.Errorf("removing file %q: %w", id, fs.ErrNotExist)
	}
	content := filepath.Join(s.files, id)
	if err := os.Remove(content + metaSuffix); err != nil { //nolint:gosec // G703: id is a key of the index, so a name we chose
		return fmt.Errorf("removing file %q: %w", id, err)
	}
	if err := errors.Join(durable.SyncDir(s.files), os.Remove(content)); err != nil { //nolint:gosec // G703: as above
		return fmt.Errorf("removing file %q: %w", id, err)
	}
	s.mu.Lock()
	s.used -= m.Size
	s.mu.Unlock()
	return nil
}

// list returns the files as they are now, in no order.
func (s *filestore) list() (all []*metadata, used int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.index {
		all = append(all, m)
	}
	return all, s.used
}

// verify reads every file again and compares size and SHA-256 with the metadata. A file
// that is damaged does not end it.
func (s *filestore) verify(ctx context.Context) (good int, err error) {
	files, _ := s.list()
	for _, m := range files {
		if ctx.Err() != nil {
			return good, errors.Join(err, ctx.Err())
		}
		if bad := s.verifyOne(m); bad != nil {
			err = errors.Join(err, fmt.Errorf("verifying file %s: %w", m.ID, bad))
			continue
		}
		good++
	}
	return good, err
}

// verifyOne reads one file and compares it with its metadata.
func (s *filestore) verifyOne(m *metadata) error {
	f, err := os.Open(filepath.Join(s.files, m.ID))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read from
	hash := sha256.New()
	n, err := io.Copy(hash, f)
	if err != nil {
		return err
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); n != m.Size || sum != m.SHA256 {
		return fmt.Errorf("it has %d bytes and SHA-256 %s, expected %d and %s", n, sum, m.Size, m.SHA256)
	}
	return nil
}
