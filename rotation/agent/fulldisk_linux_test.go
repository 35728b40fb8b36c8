package agent_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/rotation/agent"
)

// TestFullDisk: a set that cannot be stored leaves the one before whole, and says why; with room
// the next attempt succeeds.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a small disk takes root to mount")
	}
	t.Parallel()
	w := newWorld(t, catest.Options{})
	disk := filepath.Join(w.dir, "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=256k,mode=0700"); err != nil {
		t.Skipf("mounting is not permitted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	i := w.identity("ingester", func(i *agent.Identity) {
		i.Dir = filepath.Join(disk, "id")
		i.Formats = []agent.Format{{Kind: "combined-pem", File: "tls.pem"}}
	})
	a, stop := w.run()
	defer stop() // before the disk is gone
	first := w.await(a, "ingester", "delivered", delivered)
	filler := filepath.Join(disk, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Renew(t.Context(), "ingester"); err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("renewing on a full disk: %v", err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(i.Dir, "tls.crt"), filepath.Join(i.Dir, "tls.key"))
	if err != nil || "0x"+pair.Leaf.SerialNumber.Text(16) != first.Serial {
		t.Errorf("the set of before is not whole: %v", err)
	}
	if entries, err := filepath.Glob(filepath.Join(i.Dir, "gen-*")); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := a.Renew(t.Context(), "ingester"); err != nil {
		t.Fatal(err)
	}
	w.await(a, "ingester", "the next one", func(s agent.IdentityStatus) bool { return delivered(s) && s.Serial != first.Serial })
}
