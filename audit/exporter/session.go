package exporter

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/source"
	"github.com/artstore/artstore-pki/internal/filewatch"
)

const (
	// settle is how long a change of files waits for further ones: a writer may be in the middle.
	settle = 300 * time.Millisecond
	// settleMost bounds that, if changes do not end.
	settleMost = 2 * time.Second
	// maxNames bounds the changed paths that are remembered. Beyond it, all files are looked at.
	maxNames = 10_000
	// asking bounds the servers that are asked at a time.
	asking = 128
	// recordTimeout bounds the reading of a record.
	recordTimeout = 2 * time.Minute
)

// session is one configuration in effect.
type session struct {
	*Exporter
	cfg     *Config
	live    *source.Live
	files   [2]string     // signatures of the files that cfg names, and of lists
	ready   chan struct{} // is closed when all targets were looked at once
	renewed chan struct{} // tells that a file that cfg names has changed
	rejudge chan struct{} // tells that the record has other roots
	stale   chan struct{} // tells that files have changed since the record was read
	seen    atomic.Int64  // when the loop of the files was last at work, in Unix nanoseconds

	mu       sync.Mutex // guards what follows
	lists    map[string]*x509.RevocationList
	record   audit.Source // nil until it was read
	trust    []byte       // the roots and issuers of the record
	recorded recordOutcome
	watched  watchOutcome
}

// recordOutcome is how the attempts to read the record went.
type recordOutcome struct {
	err              error
	success          time.Time
	took             time.Duration
	rounds, failures uint64
}

// watchOutcome is how the notification by the file system goes.
type watchOutcome struct {
	dirs, watched int
	err           error
}

// newSession returns a session that has not begun. Its sources are empty until run has looked at them.
func (e *Exporter) newSession(c *Config) *session {
	s := &session{
		Exporter: e, cfg: c, files: c.signatures(), ready: make(chan struct{}), renewed: make(chan struct{}, 1), rejudge: make(chan struct{}, 1), stale: make(chan struct{}, 1),
		lists: map[string]*x509.RevocationList{},
	}
	if lists, err := c.readLists(); err == nil { // they were read a moment before
		s.lists = lists
	}
	s.live = c.targets.Live(s.keeper(nil), c.every.reread)
	return s
}

// keeper returns the function that judges subjects. record may be nil.
func (s *session) keeper(record audit.Source) func(audit.Subject) audit.Subject {
	cfg := s.cfg.audit
	s.mu.Lock()
	cfg.Lists = s.lists
	s.mu.Unlock()
	if record != nil {
		cfg.Sources = []audit.Source{record}
	}
	return cfg.Keeper()
}

// complete reports whether all targets were looked at.
func (s *session) complete() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

// stuck returns an error if the loop of the files has not been at work for long.
func (s *session) stuck(now time.Time) error {
	if idle := now.Sub(time.Unix(0, s.seen.Load())); idle > 5*s.cfg.every.files+10*time.Minute {
		return fmt.Errorf("no file has been looked at for %s", idle.Round(time.Second))
	}
	return nil
}

// run looks at all targets once and then as the configuration says, until ctx ends.
func (s *session) run(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	s.seen.Store(time.Now().UnixNano())
	if s.cfg.Record != "" {
		s.readRecord(ctx)
		s.judgeWithRecord()
		work.Go(func() { s.followRecord(ctx) })
	}
	// The directories are known after the first look only. What changes between that look and the
	// watch is seen by the look of the next period.
	watcher, err := filewatch.NewNamed(maxNames)
	s.noteWatch(nil, err)
	if err == nil {
		defer watcher.Close()
	}
	s.live.Scan(ctx)
	s.watch(watcher)
	s.askAll(ctx)
	if ctx.Err() != nil {
		return
	}
	close(s.ready)
	work.Go(func() { s.followServers(ctx) })
	s.followFiles(ctx, watcher)
}

// watch has the directories of all files watched.
func (s *session) watch(w *filewatch.Watcher) {
	if w != nil {
		s.noteWatch(w, w.SetDirs(s.dirs()))
	}
}

// dirs returns the directories of all files: of those that are audited, and of those by which they are judged.
// A trust bundle that is read later than a leaf below its new root would make that leaf look bad.
func (s *session) dirs() []string {
	dirs := slices.Clone(s.live.Dirs())
	for _, file := range slices.Concat(s.cfg.named, s.cfg.lists) {
		dirs = append(dirs, filepath.Dir(file))
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// noteWatch notes how the notification goes. Without it, files are looked at by the schedule.
func (s *session) noteWatch(w *filewatch.Watcher, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.watched.err == nil {
		s.log.Warn("not all directories are watched: changes there are seen later", slog.Any("err", err))
	}
	s.watched = watchOutcome{err: err, dirs: len(s.dirs())}
	if w != nil {
		s.watched.watched = w.Watched()
	}
}

// followFiles looks at files when they change, and at all of them each period.
func (s *session) followFiles(ctx context.Context, w *filewatch.Watcher) {
	var changes <-chan struct{}
	if w != nil {
		changes = w.Changes()
	}
	all := time.NewTicker(s.cfg.every.files)
	defer all.Stop()
	for ctx.Err() == nil {
		s.seen.Store(time.Now().UnixNano())
		select {
		case <-ctx.Done():
			return
		case _, ok := <-changes:
			if !ok {
				changes = nil
				continue
			}
			s.settle(ctx, changes)
			s.ownFiles(ctx)
			select {
			case s.stale <- struct{}{}: // the record may know what is new here
			default:
			}
			if names, lost := w.Take(); lost {
				s.live.Scan(ctx)
			} else {
				s.live.Changed(ctx, names)
			}
			s.watch(w)
		case <-all.C:
			s.live.Scan(ctx)
			s.watch(w)
			s.ownFiles(ctx)
		case <-s.rejudge:
			s.judgeWithRecord()
			s.live.Scan(ctx)
		}
	}
}

// judgeWithRecord has the roots of the record judge what has no other bundle.
func (s *session) judgeWithRecord() {
	s.mu.Lock()
	record := s.record
	s.mu.Unlock()
	select {
	case <-s.rejudge:
	default:
	}
	s.live.Rejudge(s.keeper(record))
}

// settle waits until changes pause.
func (s *session) settle(ctx context.Context, changes <-chan struct{}) {
	end := time.After(settleMost)
	for {
		select {
		case <-ctx.Done():
			return
		case <-end:
			return
		case <-time.After(settle):
			return
		case _, ok := <-changes:
			if !ok {
				return
			}
		}
	}
}

// ownFiles looks at the files that the configuration names. Lists change often, and nothing has to
// be read again for them.
func (s *session) ownFiles(ctx context.Context) {
	now := s.cfg.signatures()
	before := s.files
	s.files = now
	if now[1] != before[1] {
		s.readLists(ctx)
	}
	if now[0] == before[0] {
		return
	}
	select {
	case s.renewed <- struct{}{}:
	default:
	}
}

// readLists reads the revocation lists again. Those that cannot be read leave the ones of before.
func (s *session) readLists(ctx context.Context) {
	lists, err := s.cfg.readLists()
	if err != nil {
		s.log.WarnContext(ctx, "revocation lists were not read, those of before stay", slog.Any("err", err))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists = lists
}

// askAll asks all servers once.
func (s *session) askAll(ctx context.Context) {
	room := make(chan struct{}, asking)
	var work sync.WaitGroup
	for _, name := range s.live.Servers() {
		room <- struct{}{}
		work.Go(func() {
			defer func() { <-room }()
			s.live.Ask(ctx, name)
		})
	}
	work.Wait()
}

// followServers asks each server once in a period, spread over it. It begins at a random moment,
// so that exporters which start together do not ask together.
func (s *session) followServers(ctx context.Context) {
	room := make(chan struct{}, asking)
	var work sync.WaitGroup
	defer work.Wait()
	begun := time.Now().Add(time.Duration(rand.Int64N(int64(s.cfg.every.servers)))) //nolint:gosec // G404: it spreads work
	asked := map[string]time.Time{}
	for {
		servers := s.live.Servers()
		maps.DeleteFunc(asked, func(name string, _ time.Time) bool { return !slices.Contains(servers, name) })
		for i, name := range servers {
			if asked[name].IsZero() {
				asked[name] = begun.Add(s.cfg.every.servers * time.Duration(i) / time.Duration(len(servers)))
			}
		}
		next, due := time.Now().Add(s.cfg.every.servers), ""
		for name, at := range asked {
			if at.Before(next) {
				next, due = at, name
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(next)):
		}
		if due == "" {
			continue
		}
		asked[due] = next.Add(s.cfg.every.servers)
		room <- struct{}{}
		work.Go(func() {
			defer func() { <-room }()
			s.live.Ask(ctx, due)
		})
	}
}

// followRecord reads the record each period.
func (s *session) followRecord(ctx context.Context) {
	for {
		next := time.NewTimer(s.cfg.every.record)
		select {
		case <-ctx.Done():
			next.Stop()
			return
		case <-next.C:
		case <-s.stale:
			next.Reset(s.recordPause())
			select {
			case <-ctx.Done():
				next.Stop()
				return
			case <-next.C:
			}
		}
		s.readRecord(ctx)
	}
}

// recordPause returns how long to wait until the record may be read out of turn: so long that reading costs a
// fiftieth of the time, and not longer than the period.
func (s *session) recordPause() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return min(max(50*s.recorded.took, recordSettle), s.cfg.every.record)
}

// recordSettle is the shortest pause before the record is read because of a changed file: a fleet that renews
// changes many.
const recordSettle = time.Second

// readRecord reads the record. One that cannot be read leaves the one of before.
func (s *session) readRecord(ctx context.Context) {
	began := time.Now()
	loaded, trust, err := s.loadRecord(ctx)
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.recorded
	r.err, r.took = err, time.Since(began)
	r.rounds++
	if err != nil {
		r.failures++
		s.log.WarnContext(ctx, "the record was not read, what was read before stays", slog.String("record", s.cfg.Record), slog.Any("err", err))
		return
	}
	r.success = time.Now()
	// Chains without another bundle are judged by the roots of the record, and so again if these are
	// others now.
	changed := !bytes.Equal(trust, s.trust)
	s.record, s.trust = loaded, trust
	if changed {
		select {
		case s.rejudge <- struct{}{}:
		default:
		}
	}
}

// loadRecord returns the record, and its roots and issuers as bytes.
func (s *session) loadRecord(ctx context.Context) (audit.Source, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	record, release, err := s.opts.Record(ctx, s.cfg)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	loaded, err := record.Load(ctx, s.keeper(nil))
	var trust []byte
	for _, c := range slices.Concat(record.Roots, record.Issuers) {
		trust = append(trust, c.Raw...)
	}
	return loaded, trust, err
}

// report runs an audit of what is known.
func (s *session) report(ctx context.Context, out audit.Renderer) error {
	cfg := s.cfg.audit
	s.mu.Lock()
	cfg.Lists, cfg.Sources = s.lists, []audit.Source{s.live}
	if err := s.recorded.err; err != nil {
		cfg.Sources = append(cfg.Sources, failedRecord{s.cfg.Record, err, s.recorded.success})
	}
	if s.record != nil {
		cfg.Sources = append(cfg.Sources, s.record)
	}
	s.mu.Unlock()
	cfg.Report = &honest{Renderer: out, complete: s.complete()}
	_, err := audit.Run(ctx, cfg)
	return err
}

// honest is a renderer whose summary is not complete while not all targets have been looked at.
type honest struct {
	audit.Renderer
	complete bool
}

// End implements [audit.Renderer].
func (h *honest) End(sum *audit.Summary) error {
	sum.Complete = sum.Complete && h.complete
	return h.Renderer.End(sum)
}

// failedRecord is a source with the error of a record.
type failedRecord struct {
	name string
	err  error
	read time.Time // the last success
}

// Collect implements [audit.Source].
func (f failedRecord) Collect(_ context.Context, yield func(audit.Subject)) {
	err := f.err
	if !f.read.IsZero() {
		err = fmt.Errorf("%w; what was read at %s is still listed", f.err, f.read.UTC().Format(time.RFC3339))
	}
	yield(audit.Subject{Kind: "record", Place: f.name, Err: err})
}

// Endpoints reports that it asks no server.
func (f failedRecord) Endpoints() bool { return false }
