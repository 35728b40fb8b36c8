package waittest_test

import (
	"flag"
	"strconv"
	"sync"
	"testing"

	"github.com/artstore/artstore-pki/internal/waittest"
)

func TestMain(m *testing.M) { waittest.Main{M: m}.Run() }

// TestRun: eight tests wait at a time, whatever the number of processors.
func TestRun(t *testing.T) {
	if got := flag.Lookup("test.parallel").Value.String(); got != "8" {
		t.Skipf("-parallel %s was given", got)
	}
	var all sync.WaitGroup
	all.Add(8)
	for i := range 8 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			all.Done()
			all.Wait() // for ever, if one of them waited for a place
		})
	}
}
