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

// An observer must not block, so it may hand the event on: what it was told is
// read at any time, and nobody changes it any more.
func TestEventsAreNotChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reading sync.WaitGroup
		cfg := config()
		cfg.MaxAttempts = 4
		cfg.Observer = func(e ingestclient.Event) {
			reading.Go(func() {
				for range 2 { // at once, and when the caller below gives up
					if failed, ok := errors.AsType[*ingestclient.RequestError](e.Err); ok {
						_ = fmt.Sprintf("%+v", *failed)
					}
					if auth, ok := errors.AsType[*ingestclient.AuthError](e.Err); ok {
						_ = fmt.Sprintf("%+v", *auth)
					}
					time.Sleep(time.Millisecond)
				}
			})
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
