package enroll_test

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/logtest"
	"github.com/artstore/artstore-pki/rotation"
)

// TestEachRenewalIsLoggedOnce: the source and the identity share a log.
func TestEachRenewalIsLoggedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Hour)
		var log logtest.Buffer
		w.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) // from level info
		id, err := rotation.Open(t.Context(), rotation.Config{Source: w.source(), Logger: w.cfg.Logger})
		if err != nil {
			t.Fatal(err)
		}
		var serials []string
		stop := id.Subscribe(func(c rotation.Change) {
			if c.Err == nil && !c.Generation.Leaf().Equal(c.Previous.Leaf()) {
				serials = append(serials, certs.Serial(c.Generation.Leaf()))
			}
		})
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		stop()
		if len(serials) < 3 {
			t.Fatalf("%d renewals in three lives", len(serials))
		}
		for _, serial := range serials {
			var lines []string
			for line := range strings.Lines(log.String()) {
				if strings.Contains(line, serial) {
					lines = append(lines, line)
				}
			}
			if len(lines) != 1 || !strings.Contains(lines[0], `msg="identity rotated"`) {
				t.Errorf("lines about the renewal %s: %q", serial, lines)
			}
		}
		if n := strings.Count(log.String(), "identity rotated"); n != len(serials) {
			t.Errorf("%d rotations in the log, %d renewals", n, len(serials))
		}
		if err := id.Close(); err != nil {
			t.Error(err)
		}
	})
}
