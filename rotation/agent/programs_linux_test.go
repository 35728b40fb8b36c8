package agent_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pgtest"
	"github.com/artstore/artstore-pki/internal/porttest"
	"github.com/artstore/artstore-pki/rotation/agent"
)

// rotationsEnv has the number of rotations of each program. The usual number is for a quick run.
const rotationsEnv = "ARTSTORE_AGENT_ROTATIONS"

// everyFifthFails is the beginning of a hook: each fifth run of it fails, and does nothing.
const everyFifthFails = `echo >>RUNS; if [ $(($(wc -l <RUNS) % 5)) = 0 ]; then echo >>FAILED; echo declined >&2; exit 1; fi; `

// TestRealPrograms rotates the certificates of nginx and PostgreSQL under load, while each fifth
// run of a hook fails: no request fails, each generation is proved in the end, and each failure is
// counted and seen.
func TestRealPrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts nginx and PostgreSQL; -short leaves it out")
	}
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is not installed")
	}
	t.Parallel()
	rotations := 6
	if text := os.Getenv(rotationsEnv); text != "" {
		if rotations, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t, catest.Options{Lifetime: 20 * time.Second})
	// Other users must reach the files, and the directory of a test is closed to them.
	if w.dir, err = os.MkdirTemp("", "agent"); err != nil { //nolint:usetesting // see above
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(w.dir) })
	if err := os.Chmod(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	web, db := w.nginx(nginx), w.postgres()
	a, _ := w.run()
	for _, name := range []string{"ingester", "storage-element"} {
		w.await(a, name, "proved", provedNow)
	}
	load := w.load(web, db)
	seen := w.watchFailures(a)
	for n := range rotations {
		for _, name := range []string{"ingester", "storage-element"} {
			before := w.await(a, name, "a certificate", func(s agent.IdentityStatus) bool { return s.Serial != "" })
			if err := a.Renew(t.Context(), name); err != nil {
				t.Fatalf("rotation %d: %v", n, err)
			}
			w.await(a, name, fmt.Sprint("the proof of rotation ", n), func(s agent.IdentityStatus) bool { return provedNow(s) && s.Serial != before.Serial })
		}
	}
	requests, failed := load()
	t.Logf("%d rotations of each: %d requests, %d failed; %d failures seen", rotations, requests, len(failed), seen())
	if len(failed) > 0 || requests < int64(rotations) {
		t.Errorf("%d of %d requests failed: %v", len(failed), requests, errors.Join(failed[:min(len(failed), 5)]...))
	}
	for _, s := range a.Status().Identities {
		if want := len(read(t, filepath.Join(w.dir, s.Name+".failed"))); int(s.Delivery.HookFailed) != want {
			t.Errorf("%s: %d failures of the hook are counted, and there were %d", s.Name, s.Delivery.HookFailed, want)
		}
	}
	if seen() == 0 {
		t.Error("no failure was seen in the status")
	}
}

func provedNow(s agent.IdentityStatus) bool { return delivered(s) && s.Delivery.Proved }

// watchFailures counts the failures that the status shows. The function that is returned says how
// many it has seen.
func (w *world) watchFailures(a *agent.Agent) func() int64 {
	var seen atomic.Int64
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for last := ""; ctx.Err() == nil; pause(5 * time.Millisecond) {
			for _, s := range a.Status().Identities {
				if e := s.Delivery.Error; e != "" && strings.HasSuffix(e, "declined") && e+s.Serial != last {
					last = e + s.Serial
					seen.Add(1)
				}
			}
		}
	}()
	w.t.Cleanup(func() { cancel(); <-done })
	return seen.Load
}

// hook returns a hook with a shell script, each fifth run of which fails.
func (w *world) hook(name, script string) *agent.Hook {
	w.write(filepath.Join(w.dir, name+".failed"), "")
	text := strings.NewReplacer("RUNS", filepath.Join(w.dir, name+".runs"), "FAILED", filepath.Join(w.dir, name+".failed")).Replace(everyFifthFails + script)
	return &agent.Hook{Command: []string{"sh", "-c", text}, Timeout: time.Minute, Settle: 30 * time.Second}
}

// nginx adds an identity whose hook starts nginx, or reloads it. It returns the URL.
func (w *world) nginx(program string) (base string) {
	w.t.Helper()
	address, err := porttest.FreeAddress()
	if err != nil {
		w.t.Fatal(err)
	}
	i := w.identity("ingester", nil)
	conf := filepath.Join(w.dir, "nginx.conf")
	w.write(conf, strings.NewReplacer("DIR", i.Dir, "ADDRESS", address, "TMP", w.dir).Replace(`pid TMP/nginx.pid;
error_log TMP/error.log;
events {}
http {
  access_log off;
  client_body_temp_path TMP/b; proxy_temp_path TMP/p; fastcgi_temp_path TMP/f; uwsgi_temp_path TMP/u; scgi_temp_path TMP/s;
  server {
    listen ADDRESS ssl;
    ssl_certificate DIR/tls.crt;
    ssl_certificate_key DIR/tls.key;
    location / { return 200 "fine\n"; }
  }
}
`))
	i.Hook = w.hook("ingester", "if [ -s "+filepath.Join(w.dir, "nginx.pid")+" ]; then "+program+" -c "+conf+" -s reload; else "+program+" -c "+conf+"; fi")
	i.Serves = []agent.Address{{Address: address, ServerName: "localhost"}}
	w.t.Cleanup(func() {
		_ = exec.CommandContext(context.WithoutCancel(w.t.Context()), program, "-c", conf, "-s", "stop").Run()
	}) // if it runs
	return "https://" + address
}

// postgres starts PostgreSQL, and adds an identity whose hook lets it read its files.
func (w *world) postgres() (dsn string) {
	w.t.Helper()
	server := &pgtest.Server{TCP: true}
	server.Start(w.t)
	w.t.Cleanup(server.Stop)
	local := server.Database(w.t)
	i := w.identity("storage-element", func(i *agent.Identity) {
		i.Access.Mode = 0o600
		if u, err := user.Lookup("postgres"); err == nil && os.Geteuid() == 0 {
			i.Access.Owner, i.Access.Group = u.Uid, u.Gid
		}
	})
	settings := []string{"ssl_cert_file TO '" + i.Dir + "/tls.crt'", "ssl_key_file TO '" + i.Dir + "/tls.key'", "ssl TO on"}
	var psql strings.Builder
	for _, s := range settings {
		psql.WriteString(` -c "ALTER SYSTEM SET ` + s + `"`)
	}
	i.Hook = w.hook("storage-element", `psql "`+local+`" -q`+psql.String()+` -c "SELECT pg_reload_conf()" >/dev/null`)
	i.Serves = []agent.Address{{Address: "postgres://" + server.Address(), ServerName: "localhost"}}
	u, err := url.Parse(local)
	if err != nil {
		w.t.Fatal(err)
	}
	return "postgres://postgres@" + server.Address() + "/" + strings.TrimPrefix(u.Path, "/") + "?sslmode=require"
}

// load asks both programs over new connections until stop is called, which returns the number of
// requests and the errors.
func (w *world) load(web, db string) (stop func() (int64, []error)) {
	ctx, cancel := context.WithCancel(w.t.Context())
	pool := certs.Pool(w.ca.Roots()...)
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: "localhost", RootCAs: pool}
	pg, err := pgx.ParseConfig(db)
	if err != nil {
		w.t.Fatal(err)
	}
	pg.TLSConfig = config.Clone()
	var work sync.WaitGroup
	var requests atomic.Int64
	var mu sync.Mutex
	var failed []error
	for _, ask := range []func() error{
		func() error { return getOnce(ctx, web, config) }, func() error { return getOnce(ctx, web, config) },
		func() error { return queryOnce(ctx, pg) },
	} {
		work.Go(func() {
			for ctx.Err() == nil {
				err := ask()
				if ctx.Err() != nil {
					return
				}
				requests.Add(1)
				if err != nil {
					mu.Lock()
					failed = append(failed, err)
					mu.Unlock()
				}
				pause(2 * time.Millisecond)
			}
		})
	}
	return func() (int64, []error) { cancel(); work.Wait(); return requests.Load(), failed }
}

func getOnce(ctx context.Context, base string, config *tls.Config) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := (&http.Transport{TLSClientConfig: config.Clone(), DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && string(body) != "fine\n" {
		err = fmt.Errorf("nginx said %q", body)
	}
	return err
}

func queryOnce(ctx context.Context, config *pgx.ConnConfig) error {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var on bool
	if err := conn.QueryRow(ctx, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&on); err != nil || !on {
		return errors.Join(err, fmt.Errorf("ssl is %t", on))
	}
	return nil
}
