package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/report"
	"github.com/artstore/artstore-pki/audit/source"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/output"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/records"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// summary is what the end of the demo prints.
type summary struct {
	uploads, bytes, failures int64
	p50, p99                 time.Duration
	errors                   error
	fetches, fetchFailures   int64
	taken, left              []string
	stored                   int // files on disk whose content was read back and fits its checksum
	storedErr                error
	rotations                []string
	unhealthy                error // which services no longer answer
	audit                    *audit.Summary
	table                    bytes.Buffer // what the audit found
	elapsed                  time.Duration
}

// report collects the figures; it asks the servers and the disk, not our own memory of them.
func (w *stack) report(ctx context.Context, u *ui.UI, l *loadGenerator, p *plan) (*summary, error) {
	stats := w.client.Stats()
	q := l.quantiles(0.50, 0.99)
	r := &summary{
		uploads: l.Uploads.Load(), bytes: l.Bytes.Load(), failures: l.Failures.Load(),
		p50: q[0], p99: q[1], errors: l.FirstErrors(),
		fetches: stats.TokenFetches, fetchFailures: stats.TokenFailures,
		elapsed: time.Since(p.start),
	}
	r.taken, r.left = p.done()
	r.stored, r.storedErr = w.storage.Verify(ctx)
	for _, s := range w.services {
		r.rotations = append(r.rotations, fmt.Sprintf("%s %d", s.name, s.rotations.Load()))
		if s.healthPath != "" { // nobody connects to a client
			r.unhealthy = errors.Join(r.unhealthy, w.healthy(ctx, s))
		}
	}
	var err error
	if r.audit, err = w.audit(ctx, u, &r.table); err != nil {
		return nil, fmt.Errorf("auditing: %w", err)
	}
	return r, nil
}

// audit looks at everything the demo started: its directory, its servers as a
// stranger meets them, and the authority's record.
func (w *stack) audit(ctx context.Context, u *ui.UI, table io.Writer) (*audit.Summary, error) {
	dir := filepath.Join(w.opt.Dir, "ca")
	record, release, err := records.Local(ctx, dir, flags.Dir, time.Now())
	if err != nil {
		return nil, err
	}
	defer release()
	servers := source.Targets{Bundle: w.authority.Roots(), Timeout: healthTimeout}
	for _, s := range w.services {
		if s.url != "" {
			servers.Names = append(servers.Names, s.url)
		}
	}
	width, _ := u.Terminal(u.Out)
	out, err := report.New(output.Table, table, report.Terminal{Width: width})
	if err != nil {
		return nil, err
	}
	return audit.Run(ctx, audit.Config{Report: out, Sources: []audit.Source{source.Targets{Names: []string{w.opt.Dir}}, servers, record}})
}

// failed reports whether anything went wrong: one upload or token that failed is
// enough, and so is a file that is not on disk as it was sent.
func (r *summary) failed() bool {
	findings, unchecked := r.audit.Count(audit.Warn)
	return r.failures > 0 || r.fetchFailures > 0 || r.uploads == 0 || int64(r.stored) != r.uploads ||
		r.storedErr != nil || r.unhealthy != nil || findings+unchecked > 0
}

// write prints the figures and what the audit found on stdout, and the first
// errors on stderr.
func (r *summary) write(u *ui.UI) error {
	lines := []string{
		"",
		fmt.Sprintf("uploads        %d in %s (%.1f/s), each compared by size and SHA-256", r.uploads, r.elapsed.Round(time.Second), float64(r.uploads)/r.elapsed.Seconds()),
		fmt.Sprintf("bytes          %s", ui.Size(r.bytes)),
		fmt.Sprintf("read back      %d files on disk fit their checksum", r.stored),
		fmt.Sprintf("latency        p50 %s, p99 %s", r.p50.Round(100*time.Microsecond), r.p99.Round(100*time.Microsecond)),
		fmt.Sprintf("token fetches  %d (%d failed)", r.fetches, r.fetchFailures),
		"rotations      " + strings.Join(r.rotations, ", "),
	}
	for _, s := range r.taken {
		lines = append(lines, "changed        "+s)
	}
	for _, s := range r.left {
		lines = append(lines, "not reached    "+s+" (a longer --duration does)")
	}
	lines = append(lines, fmt.Sprintf("failures       %d", r.failures), "")
	for _, line := range lines {
		if err := u.Outf("%s", line); err != nil {
			return err
		}
	}
	if _, err := r.table.WriteTo(u.Out); err != nil {
		return err
	}
	for _, err := range []error{r.errors, r.storedErr, r.unhealthy} {
		if err != nil {
			u.Infof("%s", strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	}
	return nil
}
