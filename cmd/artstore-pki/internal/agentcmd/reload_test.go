package agentcmd_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/artstore/artstore-pki/internal/porttest"
	"github.com/artstore/artstore-pki/rotation/agent"
)

// hangup lets the agents of this process read their configuration again.
func hangup(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// edit changes the configuration.
func (w *world) edit(t *testing.T, pairs ...string) {
	t.Helper()
	text, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, "agent.yaml", strings.NewReplacer(pairs...).Replace(string(text)))
}

// status asks the agent, and returns the zero value if it does not answer.
func (w *world) status(t *testing.T) (st agent.Status) {
	t.Helper()
	if status, out, _ := run(t.Context(), "status", "--socket", w.socket, "-o", "json"); status != 0 || json.Unmarshal([]byte(out), &st) != nil {
		return agent.Status{}
	}
	return st
}

// delivered waits until the first identity is delivered.
func (w *world) delivered(t *testing.T) (st agent.Status) {
	t.Helper()
	until(t, "a delivery", func() bool {
		st = w.status(t)
		return len(st.Identities) > 0 && st.Identities[0].Delivery.State == "delivered"
	})
	return st
}

// TestReload: SIGHUP breaks nothing with a bad file, and takes a good one.
func TestReload(t *testing.T) {
	w := newWorld(t)
	stop, log := w.start(t)
	first := w.delivered(t)

	w.edit(t, "dir: "+w.dir+"/db", "diir: "+w.dir+"/db")
	const fault = `agent.yaml: line 8: unknown key "diir"`
	if status, out, said := run(t.Context(), "check", "--config", w.config); status != 1 || out != "" || !strings.Contains(said, fault) {
		t.Errorf("check --config: %d\n%s%s", status, out, said)
	}
	hangup(t)
	until(t, "the fault in the status", func() bool { return strings.Contains(w.status(t).ConfigError, fault) })
	for _, args := range [][]string{{"status"}, {"check"}} {
		if _, out, _ := run(t.Context(), append(args, "--socket", w.socket)...); !strings.Contains(out, "configuration: reading "+w.config+": line 8") {
			t.Errorf("%s says nothing of the fault:\n%s", args, out)
		}
	}
	if n := strings.Count(log.String(), "line 8: unknown key"); n != 1 {
		t.Errorf("%d lines of the fault in the log:\n%s", n, log)
	}
	if st := w.status(t); len(st.Identities) != 3 || st.Identities[0].Serial != first.Identities[0].Serial {
		t.Errorf("the old configuration does not go on: %+v", st)
	}

	w.edit(t, "diir:", "dir:", "- {name: gone", "# - {name: gone")
	if status, out, said := run(t.Context(), "check", "--config", w.config); status != 0 || out+said != "" {
		t.Errorf("check --config: %d\n%s%s", status, out, said)
	}
	hangup(t)
	until(t, "the good one", func() bool { st := w.status(t); return st.ConfigError == "" && len(st.Identities) == 2 })
	if st := w.status(t); st.Identities[0].Serial != first.Identities[0].Serial || st.Identities[1].Name != "db" || st.StartedAt != first.StartedAt || st.ConfigReadAt.Before(first.ConfigReadAt) {
		t.Errorf("status %+v", st)
	}
	if status := stop(); status != 0 {
		t.Errorf("stopped with %d:\n%s", status, log)
	}
}

// TestReloadOfListeners: listeners that change are made before the ones before them end, and one that cannot
// be made keeps everything as it was.
func TestReloadOfListeners(t *testing.T) {
	w := newWorld(t)
	stop, log := w.start(t)
	w.delivered(t)
	metrics := w.metrics
	other, err := porttest.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}

	// The first two could be made, and the third one cannot.
	w.edit(t, "socket: "+w.socket, "socket: "+w.socket+"2", metrics, other, "identities:", "workload_api: {socket: "+w.dir+"/absent/w}\nidentities:")
	hangup(t)
	until(t, "the fault", func() bool { return strings.Contains(w.status(t).ConfigError, "/absent/w: ") })
	for _, name := range []string{"s2", "s2.lock"} {
		if _, err := os.Lstat(filepath.Join(w.dir, name)); err == nil {
			t.Errorf("%s is left of a configuration that was not taken", name)
		}
	}
	if code := w.livez(t, metrics); code != 200 {
		t.Errorf("the metrics at the old address: %d", code)
	}

	w.edit(t, "/absent/w", "/w")
	hangup(t)
	old := w.socket
	w.socket += "2"
	until(t, "the new socket", func() bool { return w.status(t).Workload != nil })
	until(t, "the end of the old one", func() bool { _, err := os.Lstat(old); return err != nil })
	if st := w.status(t); st.Workload.Socket != w.dir+"/w" || st.ConfigError != "" {
		t.Errorf("status %+v", st)
	}
	until(t, "the end of the old address", func() bool { return w.livez(t, metrics) == 0 })
	if code := w.livez(t, other); code != 200 {
		t.Errorf("the metrics at the new address: %d", code)
	}
	w.changeGroup(t)

	w.edit(t, "workload_api:", "# workload_api:", "metrics:", "# metrics:")
	hangup(t)
	until(t, "no Workload API", func() bool { return w.status(t).Workload == nil })
	until(t, "no sockets of it", func() bool {
		_, err := os.Lstat(filepath.Join(w.dir, "w"))
		return err != nil && w.livez(t, other) == 0
	})
	if status := stop(); status != 0 {
		t.Errorf("stopped with %d:\n%s", status, log)
	}
}

// changeGroup gives the socket of the Workload API to others.
func (w *world) changeGroup(t *testing.T) {
	t.Helper()
	mode := func() os.FileMode {
		info, err := os.Lstat(filepath.Join(w.dir, "w"))
		if err != nil {
			return 0
		}
		return info.Mode().Perm()
	}
	if mode() != 0o666 {
		t.Errorf("mode %v without a group", mode())
	}
	if os.Geteuid() != 0 {
		t.Log("only root can give a socket to another group")
		return
	}
	w.edit(t, "{socket: "+w.dir+"/w}", "{socket: "+w.dir+"/w, group: '1234'}")
	hangup(t)
	until(t, "the socket of a group", func() bool { return mode() == 0o660 })
	w.edit(t, ", group: '1234'", "")
	hangup(t)
	until(t, "the socket of everybody", func() bool { return mode() == 0o666 })
	if st := w.status(t); st.ConfigError != "" {
		t.Errorf("status %+v", st)
	}
}
