package serving_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
)

// TestGroupIsJoined: stop ends the parts, and returns when the slowest has ended.
func TestGroupIsJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		group, parts, stop := serving.NewGroup(t.Context())
		ended := false
		group.Go(func() error {
			<-parts.Done()
			time.Sleep(time.Minute)
			ended = true
			return parts.Err()
		})
		stop()
		if !ended {
			t.Error("a part still runs")
		}
	})
}
