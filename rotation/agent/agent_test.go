package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/rotation/agent"
)

// TestThinSlice: a token becomes files in all formats, the hook runs once for each set, and a
// restart runs nothing.
func TestKeepsAndDelivers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, catest.Options{})
	runs := filepath.Join(w.dir, "runs")
	password := filepath.Join(w.dir, "password")
	w.write(password, "correct horse")
	i := w.identity("ingester", func(i *agent.Identity) {
		i.Hook = &agent.Hook{Command: []string{"sh", "-c", "echo $ROTATED_CHANGED >>" + runs + "; echo done"}, Timeout: time.Minute, Settle: time.Second}
		i.Formats = []agent.Format{{Kind: "combined-pem", File: "tls.pem"}, {Kind: "pkcs12", File: "tls.p12", PasswordFile: password}}
	})
	a, stop := w.run()
	first := w.await(a, "ingester", "delivered", delivered)
	if first.Delivery.HookRuns != 1 || first.Delivery.HookOutput != "done" || first.Service != "ingester" {
		t.Errorf("status %+v", first)
	}
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt", "tls.pem", "tls.p12"} {
		if target, err := os.Readlink(filepath.Join(i.Dir, name)); err != nil || target != "current/"+name {
			t.Errorf("%s links to %q, %v", name, target, err)
		}
		if _, err := os.Stat(filepath.Join(i.Dir, name)); err != nil {
			t.Error(err)
		}
	}
	if err := a.Renew(t.Context(), "ingester"); err != nil {
		t.Fatal(err)
	}
	second := w.await(a, "ingester", "the next one", func(s agent.IdentityStatus) bool { return delivered(s) && s.Serial != first.Serial })
	stop()
	a, stop = w.run()
	w.await(a, "ingester", "the same after a restart", func(s agent.IdentityStatus) bool { return delivered(s) && s.Serial == second.Serial })
	stop()
	data, err := os.ReadFile(runs)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Fields(strings.ReplaceAll(string(data), "certificate trust lists", "all")); len(lines) < 2 || lines[0] != "all" && lines[0] != "certificate" {
		t.Errorf("the hook ran for %q", data)
	}
	if got := strings.Count(string(data), "certificate"); got != 2 {
		t.Errorf("the hook ran %d times for 2 certificates: %q", got, data)
	}
}
