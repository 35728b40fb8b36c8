package ingestclient_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
)

// TestEventsAreNotChanged expects that an error that an observer got is never changed
// afterwards.
func TestEventsAreNotChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reading sync.WaitGroup
		cfg := config()
		cfg.MaxAttempts = 4
		observe := func(err error) {
			reading.Go(func() {
				for range 2 { // at once, and when the caller below gives up
					if failed, ok := errors.AsType[*ingestclient.RequestError](err); ok {
						_ = fmt.Sprintf("%+v", *failed)
					}
					if auth, ok := errors.AsType[*ingestclient.AuthError](err); ok {
						_ = fmt.Sprintf("%+v", *auth)
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
		cfg.Observer = ingestclient.Observer{
			Upload: func(_ time.Duration, _ int64, _ int, err error) { observe(err) },
			Retry:  func(_ int, _ int64, err error) { observe(err) },
			Token:  func(_ time.Duration, err error) { observe(err) },
		}
		c := over(t, cfg, ingestclient.NewFakeIdentity((&fakeServers{status: 503}).generation(1)))
		for range 20 {
			ctx, giveUp := context.WithCancel(t.Context())
			time.AfterFunc(time.Millisecond, giveUp) // between two attempts
			if _, err := c.Upload(ctx, ingestclient.BytesContent("x", nil), ingestclient.Meta{}); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			time.Sleep(time.Minute)
		}
		reading.Wait()
	})
}
