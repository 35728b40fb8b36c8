package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// errDemoFailed makes the exit status 1; the report above it says what failed.
var errDemoFailed = errors.New("the demo saw failures")

// demoOptions say what to demonstrate.
type demoOptions struct {
	Duration     time.Duration // of the upload load
	LeafLifetime time.Duration
	Dir          string // empty directory for all state
	Logger       *slog.Logger
}

// demonstrate starts the stack, loads it, changes what it stands on, and reports.
func demonstrate(ctx context.Context, u *ui.UI, opt demoOptions) (err error) {
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

	runCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	load := newLoadGenerator(w.client)
	plan := newPlan(w, opt)
	status := startStatus(u, w, load, plan)
	planDone := make(chan error, 1)
	go func() { planDone <- plan.Run(runCtx, status.event) }()
	go func() { plan.Over(runCtx); cancel() }()
	load.Run(runCtx)
	planErr := <-planDone
	status.stop()
	if ctx.Err() != nil {
		if failed := load.FirstErrors(); failed != nil { // an interruption must not hide them
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
		return ui.WithHint(errDemoFailed, "run it again with --verbose to see what the packages log")
	}
	return nil
}
