package agent_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/rotation/agent"
	"github.com/artstore/artstore-pki/rotation/workload"
)

// reload puts the present w.cfg into effect.
func (w *world) reload(a *agent.Agent) {
	w.t.Helper()
	if err := a.Reload(w.t.Context(), w.cfg); err != nil {
		w.t.Fatal(err)
	}
}

// issued counts the certificates in the record of the authority.
func (w *world) issued() int {
	w.t.Helper()
	rec, err := ca.StateDir(w.ca.Dir).OpenRecord(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = rec.Close() }() // read only
	all, _, err := rec.List(w.t.Context(), record.Query{})
	if err != nil {
		w.t.Fatal(err)
	}
	return len(all)
}

// names are those of the identities in the status.
func names(a *agent.Agent) string {
	var all []string
	for _, s := range a.Status().Identities {
		all = append(all, s.Name)
	}
	return strings.Join(all, " ")
}

// TestReload adds, removes and changes identities of a running agent, and gives it a configuration that
// cannot be taken.
func TestReload(t *testing.T) {
	t.Parallel()
	w := newWorld(t, catest.Options{})
	before, runs := w.issued(), filepath.Join(w.dir, "runs") // the authority has a certificate of its own
	w.identity("ingester", func(i *agent.Identity) {
		i.Hook = &agent.Hook{Command: []string{"sh", "-c", "exit 3"}, Timeout: time.Minute, Settle: time.Second}
	})
	w.identity("admin-module", nil)
	w.identity("query-module", nil)
	a, stop := w.run()
	alarmed := func(s agent.IdentityStatus) bool { return s.Delivery.Alarm }
	kept := w.await(a, "ingester", "an alarm", alarmed)
	changing, leaving := w.await(a, "admin-module", "delivered", delivered), w.await(a, "query-module", "delivered", delivered)
	old := slices.Clone(w.cfg.Identities)

	w.cfg.Workload = &agent.WorkloadAPI{Rules: []workload.Rule{{User: "no-such-user", Identities: []string{"ingester"}}}}
	w.cfg.Identities = w.cfg.Identities[:1]
	err := a.Reload(t.Context(), w.cfg)
	if err == nil || !strings.Contains(err.Error(), `rule 1: finding the user "no-such-user"`) {
		t.Errorf("a rule for nobody: %v", err)
	}
	a.Refused(err)
	if s := a.Status(); names(a) != "ingester admin-module query-module" || !strings.Contains(s.ConfigError, "no-such-user") || s.Workload != nil ||
		!slices.ContainsFunc(s.Problems(), func(line string) bool { return strings.HasPrefix(line, "configuration: ") }) {
		t.Errorf("after a configuration that was not taken: %s: %+v", names(a), s)
	}
	w.cfg.Workload, w.cfg.Identities = nil, slices.Clone(old)
	w.cfg.Identities[1].KeyType = "DSA"
	if err := a.Reload(t.Context(), w.cfg); err == nil || !strings.Contains(err.Error(), "identity admin-module: ") {
		t.Errorf("a bad identity: %v", err)
	}

	w.cfg.Identities = slices.Clone(old[:2])
	w.cfg.Identities[1].Hook = &agent.Hook{Command: []string{"sh", "-c", "echo $ROTATED_CHANGED >>" + runs}, Timeout: time.Minute, Settle: time.Second}
	w.identity("storage-element", nil)
	w.reload(a)
	if s := a.Status(); names(a) != "ingester admin-module storage-element" || s.ConfigError != "" {
		t.Errorf("after the change: %s: %+v", names(a), s)
	}
	w.await(a, "storage-element", "delivered", delivered)
	changed := w.await(a, "admin-module", "delivered again", delivered)
	now := w.await(a, "ingester", "the same alarm", alarmed)
	if changed.Serial != changing.Serial || now.Serial != kept.Serial || now.Delivery.Failures < kept.Delivery.Failures || now.Delivery.HookRuns < kept.Delivery.HookRuns {
		t.Errorf("begun anew: %+v\nand %+v", changed, now)
	}
	if err := a.Renew(t.Context(), "admin-module"); err != nil {
		t.Fatal(err)
	}
	w.await(a, "admin-module", "delivered by its new hook", func(s agent.IdentityStatus) bool {
		return delivered(s) && s.Delivery.HookRuns >= 1 && s.Serial != changed.Serial
	})
	if text, err := os.ReadFile(runs); err != nil || !strings.Contains(string(text), "certificate") {
		t.Errorf("the new hook: %q, %v", text, err)
	}
	if _, err := os.ReadFile(filepath.Join(w.dir, "query-module", "tls.crt")); err != nil {
		t.Errorf("the files of the one that is gone: %v", err)
	}

	w.cfg.Identities = slices.Clone(old)
	w.reload(a)
	if again := w.await(a, "query-module", "delivered again", delivered); again.Serial != leaving.Serial {
		t.Errorf("certificate %s, and %s was stored", again.Serial, leaving.Serial)
	}
	if n := w.issued() - before; n != 5 {
		t.Errorf("%d certificates were issued for 4 identities and one renewal", n)
	}
	stop()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Reload(ctx, w.cfg); err == nil {
		t.Error("an agent that has ended was reloaded")
	}
	if text := w.log.String(); !strings.Contains(text, "the new configuration is not taken") || !strings.Contains(text, "the configuration was read again") {
		t.Errorf("log:\n%s", text)
	}
	w.ca.Check(t)
}

// TestReloadSwapsDirectories: two identities change places, which takes that each has left its directory
// before the other begins there.
func TestReloadSwapsDirectories(t *testing.T) {
	t.Parallel()
	w := newWorld(t, catest.Options{})
	for _, service := range []string{"ingester", "admin-module"} {
		w.identity(service, func(i *agent.Identity) { i.Service = "" })
	}
	a, _ := w.run()
	first, second := w.await(a, "ingester", "delivered", delivered), w.await(a, "admin-module", "delivered", delivered)
	w.cfg.Identities = slices.Clone(w.cfg.Identities)
	i, j := &w.cfg.Identities[0], &w.cfg.Identities[1]
	i.Dir, j.Dir = j.Dir, i.Dir
	w.reload(a)
	w.await(a, "ingester", "the other certificate", func(s agent.IdentityStatus) bool { return delivered(s) && s.Serial == second.Serial })
	w.await(a, "admin-module", "the other certificate", func(s agent.IdentityStatus) bool { return delivered(s) && s.Serial == first.Serial })
}
