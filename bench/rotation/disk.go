package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
)

// reader is a watcher of files, asked for the serial and the number of
// certificates that it would serve now.
type reader struct {
	serving func() (serial string, chain int)
	stop    func()
}

type readerKind struct {
	name string
	open func(ctx context.Context, cert, key, ca string) (reader, error)
}

func readers() []readerKind {
	return []readerKind{{oursName, openReader}, {"controller-runtime certwatcher", openWatchReader}}
}

func openReader(ctx context.Context, cert, key, ca string) (reader, error) {
	id, err := rotation.Open(ctx, rotation.Config{
		Source: files.Source(files.Set{Cert: cert, Key: key, CA: ca}), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return reader{}, err
	}
	return reader{
		stop: func() { _ = id.Close() }, // documented to return nil
		serving: func() (string, int) {
			g := id.Current()
			return g.Leaf().SerialNumber.String(), len(g.Chain())
		},
	}, nil
}

func openWatchReader(ctx context.Context, cert, key, _ string) (reader, error) {
	w, stop, err := running(ctx, cert, key)
	if err != nil {
		return reader{}, err
	}
	return reader{stop: stop, serving: func() (string, int) {
		c, err := w.GetCertificate(nil)
		if err != nil {
			return "", 0
		}
		return c.Leaf.SerialNumber.String(), len(c.Certificate)
	}}, nil
}

// change is one way in which a new identity comes to lie on the disk. kubelet's
// swap needs the folder it made.
type change struct {
	name  string
	links bool
	apply func(dir string, id identity, f *folder) error
}

func changes() []change {
	return []change{
		{"..data swap", true, func(_ string, id identity, f *folder) error { return f.swap(id) }},
		{"renamed over", false, func(dir string, id identity, _ *folder) error { return plain(dir, id) }},
		{"rm, made anew", false, removed},
		{"directory replaced", false, replaced},
	}
}

func removed(dir string, id identity, _ *folder) error {
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	<-time.After(50 * time.Millisecond) // every watcher has seen them gone
	return plain(dir, id)
}

func replaced(dir string, id identity, _ *folder) error {
	if err := plain(dir+".new", id); err != nil {
		return err
	}
	if err := os.Rename(dir, dir+".old"); err != nil {
		return err
	}
	return os.Rename(dir+".new", dir)
}

// diskTable: how long until a change is served, and what becomes of a file that
// is written in two steps.
func diskTable(ctx context.Context, t *table, dir string, o options) error {
	repeats, limit, patience := 9, 35*time.Second, 12*time.Second // a poll of either is due within
	if o.quick {
		repeats, limit, patience = 1, time.Second, time.Second
	}
	t.line("\nA change on disk, until it is served (median of %d; once where it takes seconds)", repeats)
	t.line("watcher\t%s\t%s\t%s\t%s\tchain cut short: while / after", changes()[0].name, changes()[1].name, changes()[2].name, changes()[3].name)
	ca, err := newAuthority("disk")
	if err != nil {
		return err
	}
	for i, kind := range readers() {
		row := make([]any, 0, 6)
		row = append(row, kind.name)
		tr := trial{ca: ca, kind: kind, dir: fmt.Sprintf("%s-%d", dir, i), repeats: repeats, limit: limit, patience: patience}
		for _, c := range changes() {
			seen, err := tr.delay(ctx, c)
			if err != nil {
				return fmt.Errorf("changing files of %s, %s: %w", kind.name, c.name, err)
			}
			row = append(row, seen)
		}
		torn, err := tr.cutShort(ctx)
		if err != nil {
			return err
		}
		t.line("%s\t%s\t%s\t%s\t%s\t%s", append(row, torn)...)
	}
	return nil
}

// trial is one watcher in front of one kind of folder.
type trial struct {
	ca       *authority
	kind     readerKind
	dir      string // prefix of those it makes
	made     int
	repeats  int
	limit    time.Duration // of one wait for a change
	patience time.Duration // for a file that was completed
}

func (tr *trial) makeFolder() string {
	tr.made++
	return fmt.Sprintf("%s-%d", tr.dir, tr.made)
}

func (tr *trial) open(ctx context.Context, dir string) (reader, error) {
	r, err := tr.kind.open(ctx, filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "ca.crt"))
	if err == nil {
		pause(ctx, 100*time.Millisecond) // watches are set up
	}
	return r, err
}

// pair makes the identity of before and that of after.
func (tr *trial) pair() (first, next identity, err error) {
	if first, err = tr.ca.issue("server", 30); err != nil {
		return first, next, err
	}
	next, err = tr.ca.issue("server", 31)
	return first, next, err
}

func (tr *trial) delay(ctx context.Context, c change) (string, error) {
	var values []float64
	for range tr.repeats {
		took, err := tr.once(ctx, c)
		if err != nil {
			return "", err
		}
		if took >= tr.limit {
			return fmt.Sprintf("not in %s", tr.limit), nil
		}
		values = append(values, took.Seconds()*1e3)
		if took > time.Second {
			break
		}
	}
	m := median(values)
	if m >= 1000 {
		return fmt.Sprintf("%.1f s", m/1e3), nil
	}
	return fmt.Sprintf("%.0f ms", m), nil
}

// once returns the limit when the change was not seen by then.
func (tr *trial) once(ctx context.Context, c change) (time.Duration, error) {
	first, next, err := tr.pair()
	if err != nil {
		return 0, err
	}
	dir := tr.makeFolder()
	var links *folder
	if c.links {
		links, err = newFolder(dir, first)
	} else {
		err = plain(dir, first)
	}
	if err != nil {
		return 0, err
	}
	r, err := tr.open(ctx, dir)
	if err != nil {
		return 0, err
	}
	defer r.stop()
	if err := c.apply(dir, next, links); err != nil {
		return 0, err
	}
	began := time.Now()
	for time.Since(began) < tr.limit {
		if serial, _ := r.serving(); serial == next.serial() {
			return time.Since(began), nil
		}
		if !pause(ctx, time.Millisecond) {
			return 0, ctx.Err()
		}
	}
	return tr.limit, nil
}

// cutShort writes a new pair whose chain still lacks the intermediate, as a
// reader may find it, and completes it later.
func (tr *trial) cutShort(ctx context.Context) (string, error) {
	first, next, err := tr.pair()
	if err != nil {
		return "", err
	}
	dir := tr.makeFolder()
	if err := plain(dir, first); err != nil {
		return "", err
	}
	r, err := tr.open(ctx, dir)
	if err != nil {
		return "", err
	}
	defer r.stop()
	half := next
	half.cert.Certificate = next.cert.Certificate[:1]
	if err := plain(dir, half); err != nil {
		return "", err
	}
	pause(ctx, 300*time.Millisecond) // it has looked by now
	while := describe(r, next)
	if err := plain(dir, next); err != nil {
		return "", err
	}
	for end := time.Now().Add(tr.patience); time.Now().Before(end) && describe(r, next) != "new, 2"; {
		if !pause(ctx, 10*time.Millisecond) {
			return "", ctx.Err()
		}
	}
	return while + " / " + describe(r, next), nil
}

// describe names the leaf that is served and how many certificates go with it; two are right.
func describe(r reader, next identity) string {
	serial, n := r.serving()
	if serial == next.serial() {
		return fmt.Sprintf("new, %d", n)
	}
	return fmt.Sprintf("last good, %d", n)
}
