package source

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/format"
)

// Live has the targets of a program that audits them for months. It keeps the subjects of each
// file and of each server, and reads those again that have changed. It is an [audit.Source] of
// the kept subjects, in the order in which [Targets] yields them.
//
//	live := targets.Live(cfg.Keeper(), time.Hour)
//	live.Scan(ctx)                    // all paths; the first time it reads all files
//	live.Changed(ctx, []string{path}) // what a notification of the file system has named
//	live.Ask(ctx, "storage:8010")     // one server
//
// A file, directory or server that fails keeps its subjects: they get [audit.Subject.Stale], and
// a subject with the error stands beside them. What is gone without an error has no subject any
// more. Scan, Changed and Rejudge are called by one goroutine, all other methods by any.
type Live struct {
	targets Targets
	reread  time.Duration
	reader  *fileReader
	bundle  []*cert.Certificate
	talking chan struct{} // see collection.endpointSem
	trees   *trees        // of the scan before

	mu      sync.RWMutex // guards what follows, and all that it leads to
	keep    func(audit.Subject) audit.Subject
	roots   []*liveRoot
	servers []*liveServer
	dirs    map[string][]*liveDir // by path; there are several if one target is in another
	reads   uint64                // of files and swapped sets
}

// LiveStatus is how one target is.
type LiveStatus struct {
	Name   string
	Server bool
	// Err is why the last attempt failed, nil after a success.
	Err error
	// Success is the end of the last attempt that did not fail; zero if there was none.
	Success time.Time
	// Took is how long the last attempt took.
	Took             time.Duration
	Rounds, Failures uint64
}

// outcome is what is remembered of attempts to read something.
type outcome struct {
	err              error
	success          time.Time
	took             time.Duration
	rounds, failures uint64
}

// note adds an attempt that began at a moment.
func (o *outcome) note(began time.Time, err error) {
	o.err, o.took = err, time.Since(began)
	o.rounds++
	if err != nil {
		o.failures++
		return
	}
	o.success = began.Add(o.took)
}

// liveRoot is one path that was named, or one that matches a pattern.
type liveRoot struct {
	name string // as it was named
	path string
	top  *liveDir  // of a directory
	file *liveUnit // of a file
	outcome
}

// liveServer is one server.
type liveServer struct {
	name     string
	place    string // the name without a password
	subjects []audit.Subject
	outcome
}

// liveUnit is what is read at once: a file, or a set that is swapped.
type liveUnit struct {
	signature signature
	set       []signature // of a swapped set, or of a named file with those beside it
	subjects  []audit.Subject
	due       time.Time // is read again at this moment, also if it has not changed
	err       error     // why it could not be read; then the subjects are older
	read      time.Time // when the subjects were read
}

// Live returns the targets for repeated audits. keep is what [audit.Config.Keeper] has returned
// for these. Each file is read again after the time reread, spread at random by a quarter, because
// the verdict on it depends on more than its content: the files that it refers to, and the
// certificates above it. Stdin is no target of a Live.
func (t Targets) Live(keep func(audit.Subject) audit.Subject, reread time.Duration) *Live {
	if t.Timeout == 0 {
		t.Timeout = defaultTimeout
	}
	if t.Parallel == 0 {
		t.Parallel = defaultParallel
	}
	l := &Live{
		targets: t, keep: keep, reread: reread, talking: make(chan struct{}, t.Parallel), dirs: map[string][]*liveDir{},
		reader: &fileReader{Context: &format.Context{Known: &cert.Cache{}, Passwords: t.Passwords, Documents: t.Documents}},
	}
	for _, b := range t.Bundle {
		l.bundle = append(l.bundle, l.reader.Known.Canonical(cert.FromX509(b)))
	}
	return l
}

// Endpoints reports whether there are servers among the targets.
func (l *Live) Endpoints() bool { return l.targets.Endpoints() }

// Collect yields the kept subjects: paths first, then servers.
func (l *Live) Collect(ctx context.Context, yield func(audit.Subject)) {
	l.mu.RLock()
	roots, servers := slices.Clone(l.roots), slices.Clone(l.servers)
	l.mu.RUnlock()
	for _, r := range roots {
		if ctx.Err() != nil {
			return
		}
		l.collectRoot(r, yield)
	}
	for _, s := range servers {
		l.mu.RLock()
		one := liveUnit{subjects: s.subjects, err: s.err, read: s.success}
		l.mu.RUnlock()
		one.yield(audit.Subject{Kind: audit.KindEndpoint, Place: s.place}, yield)
	}
}

// yield yields the subjects of a unit. failed is the place of the error, if there is one.
func (u *liveUnit) yield(failed audit.Subject, yield func(audit.Subject)) {
	if u.err != nil {
		failed.Err = u.err
		if len(u.subjects) > 0 {
			failed.Err = fmt.Errorf("%w; what was found at %s is still listed", u.err, u.read.UTC().Format(time.RFC3339))
		}
		yield(failed)
	}
	for _, s := range u.subjects {
		if u.err != nil {
			s.Stale = u.read
		}
		yield(s)
	}
}

// collectRoot yields the subjects of one path. Nothing is locked while yield runs.
func (l *Live) collectRoot(r *liveRoot, yield func(audit.Subject)) {
	l.mu.RLock()
	failed, top, file := liveUnit{err: r.err}, r.top, r.file
	if file != nil {
		one := *file
		file = &one
	}
	asOf, scanned := r.success, r.rounds > 0
	l.mu.RUnlock()
	count := 0
	counted := func(s audit.Subject) {
		count++
		if failed.err != nil && s.Stale.IsZero() {
			s.Stale = asOf
		}
		yield(s)
	}
	if failed.err != nil {
		failed.yield(audit.Subject{Place: r.path}, yield)
	}
	if file != nil {
		file.yield(audit.Subject{Place: r.path}, counted)
	}
	if top != nil {
		l.collectDir(top, time.Time{}, counted)
		if count == 0 && scanned && failed.err == nil {
			yield(audit.Subject{Place: r.path, Err: errors.New("there is no certificate in this directory")})
		}
	}
}

// Status returns how each target is, in the order of Collect.
func (l *Live) Status() (out []LiveStatus) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	status := func(name string, server bool, o *outcome) {
		out = append(out, LiveStatus{name, server, o.err, o.success, o.took, o.rounds, o.failures})
	}
	for _, r := range l.roots {
		status(r.path, false, &r.outcome)
	}
	for _, s := range l.servers {
		status(s.place, true, &s.outcome)
	}
	return out
}

// Reads returns how often a file or a set was read.
func (l *Live) Reads() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.reads
}

// Dirs returns the directories in which a change matters, sorted.
func (l *Live) Dirs() []string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := slices.Collect(maps.Keys(l.dirs))
	for _, r := range l.roots {
		if r.file != nil {
			out = append(out, filepath.Dir(r.path))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Servers returns the servers among the targets, as the last Scan has found them.
func (l *Live) Servers() (out []string) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, s := range l.servers {
		out = append(out, s.name)
	}
	return out
}

// Ask asks one server. Several goroutines may call it; for one server at a time, one.
func (l *Live) Ask(ctx context.Context, name string) {
	began := time.Now()
	found := l.targets.answer(l.collection(ctx), name)
	if ctx.Err() != nil {
		return // it says nothing about the server
	}
	var failed error
	if len(found) == 1 && found[0].Cert == nil {
		failed = found[0].Err
	}
	for i := range found {
		found[i] = l.kept(found[i])
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.servers {
		if s.name != name {
			continue
		}
		if s.note(began, failed); failed == nil {
			s.subjects = slices.Clip(found)
		}
	}
}

// Rejudge replaces the function that keeps subjects, and makes each file due. Servers are judged
// anew when they are asked.
func (l *Live) Rejudge(keep func(audit.Subject) audit.Subject) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keep = keep
	for _, r := range l.roots {
		if r.file != nil {
			r.file.due = time.Time{}
		}
	}
	for _, same := range l.dirs {
		for _, d := range same {
			for _, u := range d.units {
				u.due = time.Time{}
			}
		}
	}
}

// kept returns a subject as it is kept.
func (l *Live) kept(s audit.Subject) audit.Subject {
	l.mu.RLock()
	keep := l.keep
	l.mu.RUnlock()
	return keep(s)
}

// collection returns what the functions of a walk need.
func (l *Live) collection(ctx context.Context) *collection {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return &collection{
		fileReader: l.reader, ctx: ctx, files: make(chan struct{}, runtime.GOMAXPROCS(0)), endpointSem: l.talking,
		pathFilter: filter{l.targets.Include, l.targets.Exclude}, bundle: l.bundle, trees: l.trees, omit: func(string, string) {},
	}
}

// fill puts what was read into a unit. If the file cannot be read now, the subjects of before
// stay, unless it is gone.
func (l *Live) fill(u *liveUnit, found []audit.Subject, now time.Time) {
	l.reads++
	u.due = now.Add(time.Duration(float64(l.reread) * (0.75 + rand.Float64()/2))) //nolint:gosec // G404: it spreads work
	if len(found) == 1 && found[0].Cert == nil && found[0].Document == nil && len(u.subjects) > 0 {
		if _, of := errors.AsType[syscall.Errno](found[0].Err); of {
			u.err = found[0].Err
			return
		}
	}
	u.subjects, u.err, u.read = slices.Clip(found), nil, now
	for i := range found {
		if ends := found[i].ChainEnds(); ends.After(now) && ends.Before(u.due) {
			u.due = ends
		}
	}
}
