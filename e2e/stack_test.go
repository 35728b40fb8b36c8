// Package e2e drives what users start, from outside: the stack of compose/ in a
// real Docker. It has tests only.
package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/secret"
)

const (
	composeFile = "../compose/compose.yaml"
	// One command of Docker; building and starting all of it is the longest.
	commandTimeout = 5 * time.Minute
	healthyTimeout = 2 * time.Minute
	pollEvery      = time.Second
	logTail        = "40"
)

// stack is one running project, under a name of its own.
type stack struct {
	t       *testing.T
	ctx     context.Context // ends with the test, and early when it is interrupted: a stack must not be left behind
	tool    []string        // docker-compose (1.29), or docker compose (2)
	project string
	image   string
	built   string // id of the image that make image made; compose may build another one under the same tag
	env     []string
}

// startStack builds the image as `make image` does, and brings the stack up
// beside whatever else runs: its own project, image and free host ports. The end
// of the test takes all of it away again.
func startStack(t *testing.T, leafLifetime time.Duration) *stack {
	t.Helper()
	if os.Getenv("ARTSTORE_E2E") != "compose" {
		t.Skip("skipped: needs Docker and four minutes; run: bash .ci/run compose")
	}
	name := strings.ToLower(rand.Text()[:8])
	s := &stack{t: t, project: "artstore-e2e-" + name, image: "artstore-pki:e2e-" + name}
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	t.Cleanup(stop)
	s.ctx, s.tool = ctx, composeTool(t)
	s.env = append(os.Environ(), "ARTSTORE_IMAGE="+s.image, "ARTSTORE_LEAF_LIFETIME="+leafLifetime.String(),
		"ARTSTORE_CA_PORT=", "ARTSTORE_ADMIN_PORT=", "ARTSTORE_STORAGE_01_PORT=", "ARTSTORE_STORAGE_02_PORT=", "ARTSTORE_STORAGE_03_PORT=")
	t.Cleanup(s.cleanup)
	s.run("bash", "../.ci/run", "image")
	s.built = strings.TrimSpace(s.run("docker", "image", "inspect", "--format", "{{.Id}}", s.image))
	s.compose("up", "-d", "--build")
	return s
}

// composeTool finds a tool and a daemon; without them the test was asked for in vain.
func composeTool(t *testing.T) []string {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "docker", "info").CombinedOutput(); err != nil {
		t.Fatalf("no Docker daemon answers: %v\n%s", err, out)
	}
	for _, tool := range [][]string{{"docker-compose"}, {"docker", "compose"}} {
		out, err := exec.CommandContext(t.Context(), tool[0], append(tool[1:], "version", "--short")...).Output()
		if err == nil {
			t.Logf("%s %s", strings.Join(tool, " "), bytes.TrimSpace(out))
			return tool
		}
	}
	t.Fatal("neither docker-compose nor docker compose answers")
	return nil
}

// try executes a command that may fail, and returns all that it printed.
func (s *stack) try(command ...string) (string, error) {
	ctx, cancel := context.WithTimeout(s.ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = s.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run executes a command and returns its standard output.
func (s *stack) run(name string, args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, commandTimeout)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = s.env, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		s.t.Fatalf("%s %q: %v\n%s%s", name, args, err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.String()
}

func (s *stack) compose(args ...string) string {
	s.t.Helper()
	command := s.command(args...)
	return s.run(command[0], command[1:]...)
}

func (s *stack) command(args ...string) []string {
	return append(append(append([]string{}, s.tool...), "-p", s.project, "-f", composeFile), args...)
}

// pki runs the program inside the authority's container.
func (s *stack) pki(args ...string) string {
	s.t.Helper()
	return s.compose(append([]string{"exec", "-T", "ca", "/artstore-pki"}, args...)...)
}

// token makes a one-time token, as an operator of the authority does.
func (s *stack) token(service string, names ...string) secret.String {
	s.t.Helper()
	return secret.New(strings.TrimSpace(s.pki(append([]string{"token", "--dir", "/data/ca", service}, names...)...)))
}

// address is where a service's port is published on this machine.
func (s *stack) address(service, port string) string {
	s.t.Helper()
	return strings.TrimSpace(s.compose("port", service, port))
}

// container is what docker inspect says of a service.
type container struct {
	ID    string `json:"Id"`
	State struct {
		Running  bool
		ExitCode int
		Health   struct{ Status string }
	}
	RestartCount int
	Config       struct{ User string }
	HostConfig   struct {
		ReadonlyRootfs, Privileged bool
		CapDrop, SecurityOpt       []string
	}
	Mounts []struct {
		Destination string
		RW          bool
	}
	NetworkSettings struct {
		Ports    map[string][]struct{ HostIP string }
		Networks map[string]struct{ IPAddress string }
	}
}

func (s *stack) inspect(service string) container {
	s.t.Helper()
	id := strings.TrimSpace(s.compose("ps", "-a", "-q", service))
	var found []container
	if err := json.Unmarshal([]byte(s.run("docker", "inspect", id)), &found); err != nil || len(found) != 1 {
		s.t.Fatalf("docker inspect %s: %v, %d containers", service, err, len(found))
	}
	return found[0]
}

// await polls, because what it waits for happens in other processes.
func (s *stack) await(what string, within time.Duration, done func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(within)
	for !done() {
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: not within %s", what, within)
		}
		if s.ctx.Err() != nil {
			s.t.Fatalf("%s: interrupted", what)
		}
		time.Sleep(pollEvery)
	}
}

func (s *stack) awaitHealthy(services ...string) {
	s.t.Helper()
	for _, service := range services {
		s.await(service+" healthy", healthyTimeout, func() bool { return s.inspect(service).State.Health.Status == "healthy" })
	}
}

// logs are what one service printed.
func (s *stack) logs(service string) (stdout, stderr string) {
	s.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(s.ctx, "docker", "logs", s.inspect(service).ID)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		s.t.Fatalf("docker logs of %s: %v", service, err)
	}
	return out.String(), errs.String()
}

// down takes the stack away with its volumes, and looks whether anything is left.
func (s *stack) down() {
	s.t.Helper()
	s.compose("down", "--volumes", "--remove-orphans")
	label := "label=com.docker.compose.project=" + s.project
	for _, kind := range [][]string{{"ps", "-a"}, {"volume", "ls"}, {"network", "ls"}} {
		if left := s.run("docker", append(kind, "-q", "--filter", label)...); left != "" {
			s.t.Errorf("left after down, docker %s: %s", kind[0], left)
		}
	}
}

// cleanup runs whatever happened; the test's context is over by then.
func (s *stack) cleanup() {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	do := func(command ...string) string {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Env = s.env
		out, err := cmd.CombinedOutput()
		if err != nil || s.t.Failed() {
			s.t.Logf("%q: %v\n%s", command, err, out)
		}
		return string(out)
	}
	if s.t.Failed() {
		do(s.command("ps")...)
		do(s.command("logs", "--no-color", "--tail="+logTail)...)
	}
	do(s.command("down", "--volumes", "--remove-orphans")...)
	do("docker", "image", "rm", s.image)
	// Only if nothing else has it: with the same content it may be somebody's artstore-pki:dev.
	if s.built != "" && strings.Contains(do("docker", "image", "ls", "--no-trunc", "-q", "--filter", "dangling=true"), s.built) {
		do("docker", "image", "rm", s.built)
	}
}

// copyOut copies a directory of a service's volume to this machine.
func (s *stack) copyOut(service, path string) string {
	s.t.Helper()
	to := filepath.Join(s.t.TempDir(), "copy")
	s.run("docker", "cp", s.inspect(service).ID+":"+path, to)
	return to
}

// accountFiles are the id and the secret of the ingester's account.
type accountFiles struct{ id, secret string }

func (s *stack) accountFiles() accountFiles {
	s.t.Helper()
	dir := s.copyOut("admin-module", "/data/account")
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			s.t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	return accountFiles{read("id"), read("secret")}
}

// account is the secret of the ingester's account.
func (s *stack) account() string {
	s.t.Helper()
	return s.accountFiles().secret
}
