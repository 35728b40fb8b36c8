package ca

import (
	"context"
	"time"

	"github.com/artstore/artstore-pki/internal/stepapi"
)

// Hooks for the external tests.

// VerifySign runs the first step of signing against the current state.
func (a *Authority) VerifySign(ctx context.Context, req stepapi.SignRequest) error {
	_, err := a.verifySign(ctx, a.state.Load(), req)
	return err
}

// CloseRecord makes every later commit fail, as a full disk would.
func (a *Authority) CloseRecord() error { return a.record.Close() }

// ParseConfig is the parser of pki.yaml.
func ParseConfig(data []byte) error {
	_, err := parseConfig(data)
	return err
}

// TakeRefusals counts how many of n refusals of one caller would be recorded.
func TakeRefusals(n int, now time.Time) (recorded int) {
	var q quota
	for range n {
		if q.take("caller", now) {
			recorded++
		}
	}
	return recorded
}
