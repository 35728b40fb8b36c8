package ca

import (
	"context"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/acmestore"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/translog"
)

// The marker, certs/log.head, is what this directory knows of its record. A record
// that does not hold it is refused at the next start: docs/design/0014 has the
// cases. Here is when it is written: at the start, at the end, and in between at a
// bounded rate, because each time costs two flushes of the disk. What is recorded
// after the last time can be rolled back without this directory knowing it; the
// heads that agents keep tell.

// markEvery is the shortest time between two markers.
const markEvery = 2 * time.Second

// marker is how far the marker on the disk is.
type marker struct {
	mu     sync.Mutex // guards what follows, and the file within this process
	size   int64
	at     time.Time
	failed bool // logged once
	every  time.Duration
}

// mark writes the newest head to the marker, if it is newer and the last one is
// long enough ago, or if it must be now. The head was read from the record after
// its commit, so the marker is never ahead of the record. A failure is logged:
// an older marker is a good one.
func (a *Authority) mark(ctx context.Context, now bool) {
	h, m := a.head.Load(), &a.marker
	if h == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if h.Size <= m.size || !now && time.Since(m.at) < m.every {
		return
	}
	m.at = time.Now()
	err := statedir.WriteMarker(a.files.Path, h.text)
	if err == nil {
		m.size = h.Size
	} else if !m.failed {
		a.logger.WarnContext(ctx, "marker not written, will retry", "path", a.files.File(statedir.MarkerFile), "err", err)
	}
	m.failed = err != nil
}

// lastHead bounds how long the end waits for a database that may be away.
const lastHead = 2 * time.Second

// markLast signs a head over what was recorded since the last one, so that a record
// put back after a clean stop is refused, whatever it lacks. If the head cannot be
// signed, the marker names the one before, and the next start signs this one.
func (a *Authority) markLast() {
	if a.head.Load() == nil {
		return // it never opened
	}
	ctx, cancel := context.WithTimeout(a.life, lastHead)
	defer cancel()
	if err := a.sequence(ctx); err != nil {
		a.logger.WarnContext(ctx, "last head not signed, the next start does it", "err", err)
	}
	a.mark(ctx, true)
}

// openRecord opens the record and brings the marker up to it. A directory that
// was made before there were markers gets its first one here.
func (a *Authority) openRecord(ctx context.Context, cfg policy.Config) (err error) {
	if a.logKey, err = a.files.OpenLogKey(); err != nil {
		return err
	}
	in, err := statedir.OpenRecord(ctx, a.files.Path, cfg.Database, a.logKey.Verifier())
	if err != nil {
		return err
	}
	a.record, a.acmeRecord = in.Store, acmestore.New(in.DB)
	if err := a.setHead(in.Text); err != nil {
		return err
	}
	if in.Marker == (translog.Head{}) {
		// Without any marker nothing would be noticed the next time, so this must succeed.
		if err := statedir.WriteMarker(a.files.Path, in.Text); err != nil {
			return err
		}
		in.Marker = in.Head
	}
	a.marker.size, a.marker.every = in.Marker.Size, markEvery
	a.mark(ctx, true)
	return nil
}
