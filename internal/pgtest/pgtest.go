//go:build unix

// Package pgtest runs a real PostgreSQL for tests, from the programs of the
// distribution, with a directory that is thrown away. Only tests import it.
//
//	var postgres pgtest.Server
//
//	func TestMain(m *testing.M) { defer postgres.Stop(); m.Run() }
//
//	url := postgres.Database(t) // a new, empty database
//
// The server starts with the first test that needs it, which takes a second, and the tests of
// a package share it. Without an installed PostgreSQL the test is skipped and says so, or
// fails if ARTSTORE_POSTGRES is "required", as it is in .ci/run.
//
// The server does not flush its files (fsync=off), because tests kill clients of it and
// never the server.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/porttest"
)

const (
	required = "ARTSTORE_POSTGRES"
	// startLimit is for a loaded machine.
	startLimit = time.Minute
	portTries  = 5
	superuser  = "postgres"
)

// errAbsent: there is no PostgreSQL on this machine, or it cannot run here.
var errAbsent = errors.New("no PostgreSQL here; the Debian package postgresql has it")

// Server is a PostgreSQL server. The zero value listens on a Unix socket only.
type Server struct {
	// TCP makes it listen on a free port of 127.0.0.1 as well.
	TCP bool
	// Files are put into its data directory (0600) before it starts.
	Files map[string][]byte
	// Settings are "name=value" for the server.
	Settings []string

	mu      sync.Mutex // guards what follows
	started bool
	failed  error
	dir     string
	port    string
	life    io.Closer // its standard input: when that ends, the server ends
	gone    chan struct{}
	said    strings.Builder
	count   int
}

// Start starts the server, once, or skips the test: with -short, and where PostgreSQL is
// not installed.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short leaves PostgreSQL out")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started {
		s.started = true
		s.failed = s.start(context.WithoutCancel(t.Context())) // it outlives the test that came first
	}
	switch {
	case s.failed == nil:
	case errors.Is(s.failed, errAbsent) && os.Getenv(required) != "required":
		t.Skip(s.failed)
	default:
		t.Fatal(s.failed)
	}
}

// Address is host:port of a server with TCP.
func (s *Server) Address() string { return net.JoinHostPort("127.0.0.1", s.port) }

// Database makes an empty database and returns its URL. It goes with the server.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	s.Start(t)
	s.mu.Lock()
	s.count++
	name := fmt.Sprintf("test%d", s.count)
	s.mu.Unlock()
	conn, err := pgx.Connect(t.Context(), s.url(superuser))
	if err == nil {
		_, err = conn.Exec(t.Context(), "CREATE DATABASE "+name)
		err = errors.Join(err, conn.Close(t.Context()))
	}
	if err != nil {
		t.Fatalf("making a database: %v", err)
	}
	return s.url(name)
}

// Engines runs a test on SQLite and on PostgreSQL: what holds for one must hold for the
// other. where is the place of a record that is not there yet.
func (s *Server) Engines(t *testing.T, test func(t *testing.T, where string)) {
	t.Run("sqlite", func(t *testing.T) {
		test(t, filepath.Join(t.TempDir(), "a b?#%.db")) // a path that is no URI
	})
	t.Run("postgres", func(t *testing.T) { test(t, s.Database(t)) })
}

func (s *Server) url(database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/" + database, RawQuery: url.Values{"host": {s.dir}, "port": {s.port}}.Encode()}
	return u.String()
}

// Stop ends the server and removes its directory. It may be called without Start.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life != nil {
		_ = s.life.Close()
		<-s.gone
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// untilEOF runs a server until its standard input ends, so that a test binary that is killed
// leaves no server behind.
const untilEOF = `exec 3<&0; "$@" </dev/null 3<&- & server=$!
	(cat <&3; kill -INT $server) >/dev/null 2>&1 & wait $server; kill $! 2>/dev/null`

func (s *Server) start(ctx context.Context) (err error) {
	initdb, postgres := tool("initdb"), tool("postgres")
	if initdb == "" || postgres == "" {
		return errAbsent
	}
	// The path of a Unix socket in it is bounded, and another user must reach it.
	if s.dir, err = os.MkdirTemp("", "pg"); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	owner, err := s.owner()
	if err != nil {
		return err
	}
	data := filepath.Join(s.dir, "data")
	cmd := s.command(ctx, owner, initdb, "-D", data, "-A", "trust", "-N", "-E", "UTF8", "--no-locale", "-U", superuser)
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: initdb: %v: %s", errAbsent, err, said)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Files)) {
		path := filepath.Join(data, name)
		if err := durable.WriteFile(path, s.Files[name], durable.Private); err != nil {
			return err
		}
		if owner != nil {
			if err := os.Chown(path, int(owner.Uid), int(owner.Gid)); err != nil {
				return err
			}
		}
	}
	return s.serve(ctx, owner, postgres, data)
}

// serve starts the server. It tries another port if a process has taken the first meanwhile.
func (s *Server) serve(ctx context.Context, owner *syscall.Credential, postgres, data string) (err error) {
	for range portTries {
		if err = s.serveOnce(ctx, owner, postgres, data); err == nil || !s.TCP || !strings.Contains(err.Error(), "Address already in use") {
			return err
		}
	}
	return err
}

func (s *Server) serveOnce(ctx context.Context, owner *syscall.Credential, postgres, data string) (err error) {
	listen := ""
	if s.port = "5432"; s.TCP { // without TCP it is part of the name of a socket in a directory of our own
		listen = "127.0.0.1"
		if s.port, err = freePort(); err != nil {
			return err
		}
	}
	args := []string{"-c", untilEOF, "sh", postgres, "-D", data, "-p", s.port, "-k", s.dir, "-h", listen, "-c", "fsync=off", "-c", "max_connections=200"}
	for _, setting := range s.Settings {
		args = append(args, "-c", setting)
	}
	cmd := s.command(ctx, owner, "sh", args...)
	s.said.Reset()
	cmd.Stdout, cmd.Stderr = &s.said, &s.said
	if s.life, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		s.life = nil
		return fmt.Errorf("starting PostgreSQL: %w", err)
	}
	s.gone = make(chan struct{})
	go func() { defer close(s.gone); _ = cmd.Wait() }()
	return s.wait(ctx)
}

func (s *Server) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.url(superuser))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-s.gone:
			_ = s.life.Close() // the server has ended and does not read it
			return fmt.Errorf("PostgreSQL ended: %s", s.said.String())
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL does not answer: %w", err)
		case <-time.After(20 * time.Millisecond): // another process: there is nothing to wait on
		}
	}
}

func (s *Server) command(ctx context.Context, owner *syscall.Credential, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // G204: programs of the distribution
	// A group of its own: an interrupt of the terminal is for the test, which then ends the server.
	cmd.Dir, cmd.SysProcAttr = s.dir, &syscall.SysProcAttr{Credential: owner, Setpgid: true}
	return cmd
}

// owner is a user for PostgreSQL, which refuses to run as root; nil is this user.
func (s *Server) owner() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 31)
		if err != nil {
			continue
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 31)
		if err != nil {
			continue
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, os.Chown(s.dir, int(uid), int(gid))
	}
	return nil, fmt.Errorf("%w: it does not run as root, and there is nobody else", errAbsent)
}

// tool finds a program that Debian keeps off PATH.
func tool(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name) // the pattern is good
	if len(found) == 0 {
		return ""
	}
	return found[len(found)-1]
}

func freePort() (string, error) {
	addr, err := porttest.FreeAddress()
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(addr)
	return port, err
}
