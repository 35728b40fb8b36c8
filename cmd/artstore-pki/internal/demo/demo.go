// Package demo shows that services keep working while their certificates, keys, issuers and roots
// are replaced. It runs an authority, an Admin Module, a Storage Element and an ingester in one
// process, on loopback, uploads without a break, and replaces one after the other.
//
//	err := demo.Show(ctx, u, demo.Options{Duration: 4 * time.Minute, LeafLifetime: time.Minute, Dir: dir, Logger: logger})
//
// Invariants (testdata/script/demo.txtar runs a whole demo):
//
//   - The services use what they would use on machines of their own: TLS, and a one-time token
//     for the first certificate. They share no memory.
//   - An upload or a change of the authority that has begun is finished, also when the time of
//     the demo is over.
//   - The figures of the report come from the servers and from the disk.
package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// errFailed makes the exit status 1; the report above it says what failed.
var errFailed = errors.New("the demo saw failures")

// Show starts the services, uploads, carries out the plan of changes meanwhile, and reports. It
// returns when all goroutines have ended. A failed upload, a finding of the audit or a service
// that does not answer is an error, which is returned after the report was printed. If ctx ends
// before the time is over, there is no report, and the error is that of ctx.
func Show(ctx context.Context, u *ui.UI, opt Options) (err error) {
	start := time.Now()
	w, err := startStack(ctx, opt)
	if err != nil {
		return fmt.Errorf("starting the demo: %w", err)
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	u.Infof("all services answer after %.1fs; state in %s", time.Since(start).Seconds(), opt.Dir)
	for _, s := range w.services {
		address := s.url
		if address == "" {
			address = "uploads, with certificate-bound tokens"
		}
		u.Infof("  %-16s %s", s.name, address)
	}
	for _, p := range w.pages {
		u.Infof("  %-16s %s", p.name, p.url)
	}

	runCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	load := newLoadGenerator(w.client)
	plan := newPlan(w, opt)
	status := startStatus(u, w, load, plan)
	planDone := make(chan error, 1)
	go func() { planDone <- plan.Run(runCtx, status.event) }()
	go func() { plan.Over(runCtx); cancel() }()
	load.Run(runCtx) // returns when the last upload has ended
	planErr := <-planDone
	status.stop()
	if ctx.Err() != nil {
		if failed := load.FirstErrors(); failed != nil { // there is no report that would show them
			u.Infof("uploads that failed:\n%v", failed)
		}
		return ctx.Err()
	}
	u.Infof("uploads stopped; reading every stored file back from disk")
	report, err := w.report(ctx, u, load, plan)
	if err != nil {
		return err
	}
	if err := report.write(u); err != nil {
		return err
	}
	if planErr != nil {
		return planErr
	}
	if report.failed() {
		return ui.WithHint(errFailed, "run it again with --verbose to see what the packages log")
	}
	return nil
}
