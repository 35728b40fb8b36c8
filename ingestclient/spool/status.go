package spool

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ingestclient/spool/internal/fileat"
	"github.com/artstore/artstore-pki/ingestclient/spool/status"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/flock"
)

const (
	lockName     = "lock"
	snapshotName = "state.json"
)

// Snapshot returns the present state.
func (s *Spool) Snapshot() status.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot
}

// Ready returns nil if files are sent, or would be if there were any.
func (s *Spool) Ready() error {
	now := s.Snapshot()
	if now.State == "running" && now.Reason == "" {
		return nil
	}
	return fmt.Errorf("%s", strings.TrimRight(strings.Join([]string{cmp.Or(now.State, "starting"), now.Reason, now.Error}, ": "), ": "))
}

// publish makes a snapshot, and writes it to state.json once a second at most.
func (l *loop) publish(now time.Time) {
	n := status.Snapshot{
		PID: os.Getpid(), At: now.UTC().Truncate(time.Millisecond), State: "running",
		Waiting: l.waiting, Claimed: l.queue.size() + l.queue.busy, Uploading: l.queue.busy,
		Stored: l.stored.Load(), Bytes: l.bytes.Load(), Failed: l.quarantinedNow[0].Load(), Ambiguous: l.quarantinedNow[1].Load(),
	}
	age := l.queue.oldest(now)
	for _, f := range l.ready {
		age = max(age, now.Sub(time.Unix(0, f.id.MTime)))
	}
	n.Oldest = age.Seconds()
	switch {
	case l.breaker.failures > 0:
		n.State, n.Reason, n.Error = "paused", pauseReason(l.breaker.why, l.breaker.err), l.breaker.err.Error()
		n.Since, n.Next = l.breaker.since.UTC(), l.breaker.until.UTC()
	case l.trouble != nil:
		n.Reason, n.Error = reasonDirectory, l.trouble.Error()
	case l.lowDisk != nil:
		n.Reason, n.Error = reasonLowDisk, l.lowDisk.Error()
	}
	l.storeSnapshot(n, false)
}

func (s *Spool) publishLast() {
	n := s.Snapshot()
	n.State, n.Uploading, n.At = "stopped", 0, time.Now().UTC().Truncate(time.Millisecond)
	n.Stored, n.Bytes, n.Failed, n.Ambiguous = s.stored.Load(), s.bytes.Load(), s.quarantinedNow[0].Load(), s.quarantinedNow[1].Load()
	s.storeSnapshot(n, true)
}

// storeSnapshot keeps n and writes state.json, if it is due or always is set. Only `ingest
// status` reads the file, so a failure to write it stops nothing.
func (s *Spool) storeSnapshot(n status.Snapshot, always bool) {
	s.mu.Lock()
	was := s.published
	s.snapshot = n
	if due := always || n.At.Sub(was.At) >= publishInterval && !s.cfg.bubble; !due {
		s.mu.Unlock()
		return
	}
	s.published = n
	s.mu.Unlock()
	raw, err := json.Marshal(n)
	if err == nil {
		err = durable.WriteFileIn(s.layout.state, snapshotName, append(raw, '\n'), durable.Private)
	}
	if err != nil {
		s.cfg.Logger.Debug("state not written", "err", err)
	}
}

// ReadStatus reads the state of a spool, which may be running, and changes nothing. It uses
// Dir, StateDir and Recursive of cfg, which must be those of the spool.
func ReadStatus(ctx context.Context, cfg Config) (*status.Report, error) {
	l, err := openLayout(cfg, false)
	if err != nil {
		return nil, fmt.Errorf("reading the spool %s: %w", cfg.Dir, err)
	}
	st, err := readStatus(ctx, l, cfg.Recursive)
	if err = errors.Join(err, l.Close()); err != nil {
		return nil, fmt.Errorf("reading the spool %s: %w", cfg.Dir, err)
	}
	st.Dir = filepath.Clean(cfg.Dir)
	return st, nil
}

func readStatus(ctx context.Context, l layout, recursive bool) (st *status.Report, err error) {
	none := []status.Item{} // an empty list in JSON, not null
	st = &status.Report{Dir: l.dir, Waiting: none, Claimed: none, Failed: none, Ambiguous: none}
	known := map[fileat.ID]bool{}
	if l.state != nil {
		if known, err = readState(l, st); err != nil {
			return nil, err
		}
	}
	files, err := scanner{dir: l.dir, recursive: recursive}.scan(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(files, compareAge)
	for _, f := range files {
		if !known[f.id] {
			st.Waiting = append(st.Waiting, status.Item{Name: f.name, Size: f.id.Size, Modified: time.Unix(0, f.id.MTime).UTC()})
		}
	}
	return st, nil
}

// readState adds to st what the state tells. known are files that have a name in the spooled
// directory and do not wait: where sources stay, those that are stored, claimed or
// quarantined.
func readState(l layout, st *status.Report) (known map[fileat.ID]bool, err error) {
	if st.Running, err = l.locked(); err != nil {
		return nil, err
	}
	raw, err := l.readOwn(snapshotName)
	if err == nil {
		st.Last = &status.Snapshot{}
		err = json.Unmarshal(raw, st.Last)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for dir, to := range map[string]*[]status.Item{claimedDir: &st.Claimed, string(quarantineFailed): &st.Failed, string(quarantineAmbiguous): &st.Ambiguous} {
		if *to, err = items(l, dir); err != nil {
			return nil, err
		}
	}
	j, _, err := openJournal(l) // only reads, because Start is not called
	if err != nil {
		return nil, err
	}
	return l.excludedFiles(j)
}

// items lists the claims in one directory, the oldest first.
func items(l layout, dir string) ([]status.Item, error) {
	list, err := l.list(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	out := []status.Item{}
	for _, h := range list {
		if h.name == "" {
			continue
		}
		it := status.Item{ID: h.id, Name: h.name, Size: h.info.Size(), Modified: h.info.ModTime().UTC()}
		if r := h.reason; r != nil {
			it.FileID, it.Since, it.Error, it.Advice, it.Attempts = r.FileID, r.At, r.Error, r.Advice, r.Attempts
		}
		out = append(out, it)
	}
	slices.SortFunc(out, func(a, b status.Item) int { return a.Modified.Compare(b.Modified) })
	return out, nil
}

// locked reports whether a process holds the lock of the state.
func (l layout) locked() (bool, error) {
	f, err := l.state.OpenFile(lockName, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = flock.Close(f) }() // nothing was written
	return flock.Try(f, true)
}
