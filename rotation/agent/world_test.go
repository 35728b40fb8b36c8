package agent_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit/served"
	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/internal/logtest"
	"github.com/artstore/artstore-pki/rotation/agent"
)

// patience bounds waits for what comes. It is far longer than anything takes.
const patience = 3 * time.Minute

// world is a real authority and an agent in front of it.
type world struct {
	t   *testing.T
	ca  *catest.CA
	dir string
	log logtest.Buffer
	cfg agent.Config
}

func newWorld(t *testing.T, opt catest.Options) *world {
	t.Helper()
	return &world{t: t, ca: catest.Start(t, opt), dir: t.TempDir()}
}

// identity adds an identity of a service with a token of the authority.
func (w *world) identity(service string, edit func(*agent.Identity)) *agent.Identity {
	w.t.Helper()
	i := agent.Identity{
		Name: service, Dir: filepath.Join(w.dir, service), TokenFile: filepath.Join(w.dir, service+".token"),
		URL: w.ca.URL, RootFingerprint: w.ca.RootFingerprint,
	}
	i.Service = strings.TrimSuffix(service, "-2")
	w.write(i.TokenFile, w.ca.Token(w.t, i.Service).Expose())
	if edit != nil {
		edit(&i)
	}
	w.cfg.Identities = append(w.cfg.Identities, i)
	return &w.cfg.Identities[len(w.cfg.Identities)-1]
}

func (w *world) write(path, text string) {
	w.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// served asks servers as the command does.
func servedBy(ctx context.Context, address string, config *tls.Config) (*x509.Certificate, error) {
	a, err := served.Ask(ctx, address, config)
	return a.Leaf, err
}

func (w *world) agent() *agent.Agent {
	w.t.Helper()
	a, err := agent.New(w.cfg, agent.Options{Served: servedBy, Logger: slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// run runs an agent until stop is called or the test ends.
func (w *world) run() (a *agent.Agent, stop func()) {
	w.t.Helper()
	a = w.agent()
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan struct{})
	go func() { defer close(done); _ = a.Run(ctx) }() // returns the error of ctx
	stop = func() { cancel(); <-done }
	w.t.Cleanup(stop)
	return a, stop
}

// await waits until the status of an identity is as wanted.
func (w *world) await(a *agent.Agent, name, what string, ok func(agent.IdentityStatus) bool) agent.IdentityStatus {
	w.t.Helper()
	for limit := time.Now().Add(patience); ; {
		for _, s := range a.Status().Identities {
			if s.Name == name && ok(s) {
				return s
			}
			if s.Name == name && time.Now().After(limit) {
				text, _ := json.MarshalIndent(s, "", "  ")
				w.t.Fatalf("%s: %s: not seen; status %s\nlog:\n%s", name, what, text, w.log.String())
			}
		}
		pause(10 * time.Millisecond)
	}
}

// pause lets others run.
func pause(d time.Duration) { <-time.After(d) }

func delivered(s agent.IdentityStatus) bool {
	return s.Delivery.State == "delivered" && s.Delivery.Serial == s.Serial && s.Problem == ""
}
