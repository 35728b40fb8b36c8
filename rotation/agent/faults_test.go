package agent_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/internal/hook"
	"github.com/artstore/artstore-pki/rotation/agent"
	"github.com/artstore/artstore-pki/secret"
)

// TestFaultsStayApart: each identity with a fault says what is wrong in one line, and the one
// without goes on.
func TestFaultsStayApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, catest.Options{})
	services := []string{"ingester", "admin-module", "storage-element", "query-module", "ingester-2"}
	faults := map[string]string{}
	for n, service := range services {
		w.identity(service, func(i *agent.Identity) {
			switch n {
			case 1: // a file is in the place of the directory
				w.write(i.Dir, "x")
				faults[service] = "not a directory"
			case 2:
				i.Access.Owner = "no-such-user"
				faults[service] = `owner: there is no user "no-such-user"`
			case 3:
				i.Formats = []agent.Format{{Kind: "pkcs12", File: "tls.p12", PasswordFile: filepath.Join(w.dir, "absent")}}
				faults[service] = "reading the password of tls.p12: open "
			case 4:
				i.Service = "another"
				faults[service] = "and the configuration wants another"
			}
		})
	}
	a, _ := w.run()
	for service, want := range faults {
		s := w.await(a, service, want, func(s agent.IdentityStatus) bool { return strings.Contains(s.Problem, want) })
		if strings.Contains(s.Problem, "\n") || s.Serial != "" {
			t.Errorf("%s: %+v", service, s)
		}
	}
	w.await(a, services[0], "delivered", delivered)
	if len(a.Identities()) != 1 {
		t.Errorf("%d identities have a certificate", len(a.Identities()))
	}
	if err := a.Renew(t.Context(), services[1]); err == nil || !strings.Contains(err.Error(), "there is no certificate yet") {
		t.Errorf("renewing what is not there: %v", err)
	}
	if err := a.Renew(t.Context(), "nobody"); !errors.Is(err, agent.ErrUnknownName) {
		t.Errorf("renewing an unknown one: %v", err)
	}
	if err := os.Remove(filepath.Join(w.dir, services[1])); err != nil {
		t.Fatal(err)
	}
}

// TestTokenComesLater: without a token an identity waits, and takes the one that comes.
func TestTokenComesLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t, catest.Options{})
	i := w.identity("ingester", nil)
	token, err := os.ReadFile(i.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(i.TokenFile); err != nil {
		t.Fatal(err)
	}
	a, _ := w.run()
	w.await(a, "ingester", "waiting", func(s agent.IdentityStatus) bool {
		return s.Problem == "waiting for an enrolment token in "+i.TokenFile+": no enrolment token"
	})
	w.write(i.TokenFile, "no token at all")
	w.await(a, "ingester", "a bad token", func(s agent.IdentityStatus) bool { return strings.Contains(s.Problem, "not a JWT") })
	w.write(i.TokenFile, string(token))
	w.await(a, "ingester", "delivered", delivered)
}

// TestFreshTokenBeatsExpired: the authority was replaced by another one and the certificate has
// expired; a token of the new authority replaces it.
func TestFreshTokenBeatsExpired(t *testing.T) {
	t.Parallel()
	w := newWorld(t, catest.Options{Lifetime: 10 * time.Second})
	i := w.identity("ingester", nil)
	a, stop := w.run()
	first := w.await(a, "ingester", "delivered", delivered)
	stop()
	other := catest.Start(t, catest.Options{})
	i.URL, i.RootFingerprint = other.URL, other.RootFingerprint
	if err := os.Remove(i.TokenFile); err != nil {
		t.Fatal(err)
	}
	for time.Now().Before(first.NotAfter) {
		pause(50 * time.Millisecond)
	}
	a, _ = w.run()
	w.await(a, "ingester", "a refusal", func(s agent.IdentityStatus) bool { return s.Problem != "" && s.Serial == "" })
	w.write(i.TokenFile, other.Token(t, "ingester").Expose())
	w.await(a, "ingester", "the certificate of the other authority", func(s agent.IdentityStatus) bool {
		return delivered(s) && s.NotAfter.After(first.NotAfter.Add(time.Hour))
	})
}

// TestOnce: a run without a daemon gets, renews and delivers, and its error names what failed.
func TestOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, catest.Options{Lifetime: 10 * time.Second})
	w.cfg.StatusFile = filepath.Join(w.dir, "status.json")
	runs := filepath.Join(w.dir, "runs")
	w.identity("ingester", func(i *agent.Identity) {
		i.Hook = &agent.Hook{Command: []string{"sh", "-c", "echo x >>" + runs}, Timeout: time.Minute}
	})
	w.identity("admin-module", func(i *agent.Identity) { i.Access.Group = "no-such-group" })
	w.identity("query-module", func(i *agent.Identity) {
		i.Hook = &agent.Hook{Command: []string{"false"}, Timeout: time.Minute}
	})
	once := func() error { return w.agent().Once(t.Context()) }
	err := once()
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 2 || lines[0] != `identity admin-module: making the directory: group: there is no group "no-such-group"` || lines[1] != "identity query-module: running false: exit status 1" {
		t.Errorf("got %q", lines)
	}
	if info, err := os.Stat(w.cfg.StatusFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("status file: %v, %v", info, err)
	}
	w.cfg.Identities = w.cfg.Identities[:1]
	for len(read(t, runs)) < 2*len("x\n") { // until the first renewal
		if err := once(); err != nil {
			t.Fatal(err)
		}
		pause(500 * time.Millisecond)
	}
	if got := len(read(t, runs)); got != 2*len("x\n") {
		t.Errorf("%d bytes of runs", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.cfg.Identities[0].Dir = filepath.Join(w.dir, "other")
	if err := w.agent().Once(ctx); err == nil {
		t.Error("a run that was ended has no error")
	}
}

// TestOnceBesideAnother: a run without a daemon that finds another process at the directory of an identity says
// so, and a lock that is released within a moment is waited for.
func TestOnceBesideAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t, catest.Options{})
	i := w.identity("ingester", func(i *agent.Identity) {
		i.Hook = &agent.Hook{Command: []string{"true"}, Timeout: time.Minute}
	})
	if err := w.agent().Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	other, err := hook.Open(i.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.agent().Once(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "identity ingester: ") || !strings.Contains(err.Error(), hook.ErrBusy.Error()) {
		t.Errorf("beside another process: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- w.agent().Once(t.Context()) }()
	pause(100 * time.Millisecond)
	if err := errors.Join(other.Close(), <-done); err != nil {
		t.Errorf("after another process: %v", err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestNothingSecretIsSaid looks for the key, the token and a password in log and status.
func TestNothingSecretIsSaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t, catest.Options{})
	const password = "canary-of-the-store"
	file := filepath.Join(w.dir, "password")
	w.write(file, password)
	i := w.identity("ingester", func(i *agent.Identity) {
		i.Formats = []agent.Format{{Kind: "pkcs12", File: "tls.p12", PasswordFile: file}, {Kind: "pkcs1", File: "x.key"}}
	})
	token, err := secret.ReadFile(i.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	a, stop := w.run()
	w.await(a, "ingester", "the format that does not fit", func(s agent.IdentityStatus) bool { return strings.Contains(s.Problem, "only RSA keys") })
	stop()
	w.cfg.Identities[0].Formats = i.Formats[:1]
	a, stop = w.run()
	w.await(a, "ingester", "delivered", delivered)
	stop()
	said := w.log.String() + strings.Join(statusText(t, a), "")
	for what, canary := range map[string]string{"password": password, "token": token.Expose(), "key": strings.Split(read(t, filepath.Join(i.Dir, "tls.key")), "\n")[1]} {
		if strings.Contains(said, canary) {
			t.Errorf("the %s is in log or status", what)
		}
	}
}
