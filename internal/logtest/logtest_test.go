package logtest_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/artstore/artstore-pki/internal/logtest"
)

// Many goroutines write while one reads; nothing is lost or torn.
func TestBuffer(t *testing.T) {
	var b logtest.Buffer
	var writers sync.WaitGroup
	for range 20 {
		writers.Go(func() {
			for range 50 {
				_, _ = b.Write([]byte("line\n"))
				_ = b.String()
			}
		})
	}
	writers.Wait()
	if got := b.String(); got != strings.Repeat("line\n", 1000) {
		t.Errorf("%d bytes", len(got))
	}
	if took, left := b.Take(), b.String(); len(took) != 5000 || left != "" {
		t.Errorf("took %d bytes, %d are left", len(took), len(left))
	}
}
