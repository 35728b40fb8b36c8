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
	// p50 and p99 are quantiles of the times of uploads.
	p50, p99 time.Duration
	// errors are the first few of the failed uploads.
	errors error
	// fetches and fetchFailures count token requests.
	fetches, fetchFailures int64
	// taken and left are the names of steps of the plan.
	taken, left []string
	// stored counts files on disk whose content was read back and fits its checksum.
	stored    int
	storedErr error
	// rotations has a word for each service, with how often its leaf was replaced.
	rotations []string
	// unhealthy says which services do not answer at the end.
	unhealthy error
	audit     *audit.Summary
	table     bytes.Buffer // the report of the audit
	elapsed   time.Duration
}

// report collects the figures. It asks the servers for their health, reads every stored file back
// from the disk, and audits everything that was started. An error means that the audit could not
// be made; what it and the others found is in the summary.
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
		if s.healthPath != "" { // "" for the client, which listens nowhere
			r.unhealthy = errors.Join(r.unhealthy, w.healthy(ctx, s))
		}
	}
	var err error
	if r.audit, err = w.audit(ctx, u, &r.table); err != nil {
		return nil, fmt.Errorf("auditing: %w", err)
	}
	return r, nil
}

// audit looks at everything that the demo has started: its directory, its servers as any client
// without a certificate meets them, and the record of the authority. It writes the report to
// table, for the terminal of u.
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

// failed reports whether anything went wrong: one upload or token request that failed is enough,
// and so is a file that is not on disk as it was sent, a warning of the audit, or no upload at all.
func (r *summary) failed() bool {
	findings, unchecked := r.audit.Count(audit.Warn)
	return r.failures > 0 || r.fetchFailures > 0 || r.uploads == 0 || int64(r.stored) != r.uploads ||
		r.storedErr != nil || r.unhealthy != nil || findings+unchecked > 0
}

// write prints the figures and the report of the audit on stdout, and the first errors on stderr,
// one line for each kind.
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
