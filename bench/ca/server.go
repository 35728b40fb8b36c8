package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/artstore/artstore-pki/bench/internal/frame"
)

// server is an authority as a process of its own, and what a client of it needs.
type server struct {
	name  string
	url   string
	pid   int
	roots *x509.CertPool
	key   jose.JSONWebKey // signs enrolment tokens
	fresh int             // numbers the tokens
	stop  func() error
}

// startAll starts one authority per lane. All have the same keys: those that our
// init has made, unencrypted, so that none pays for a password.
func (b *bench) startAll(ctx context.Context) (all []*server, stop func() error, err error) {
	stop = func() error {
		var errs []error
		for _, s := range all {
			errs = append(errs, s.stop())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, stop())
		}
	}()
	for _, p := range b.lanes() {
		dir, err := os.MkdirTemp(b.dir, "authority-")
		if err != nil {
			return all, stop, err
		}
		s, err := p.start(ctx, dir)
		if err != nil {
			return all, stop, fmt.Errorf("starting %s: %w", p.name, err)
		}
		s.name = p.name
		all = append(all, s)
	}
	return all, stop, nil
}

// lane is how one of the authorities starts.
type lane struct {
	name  string
	start func(context.Context, string) (*server, error)
}

const (
	laneBefore = "artstore-pki, the tree before"
	laneStepCA = "step-ca, "
)

func (b *bench) lanes() []lane {
	run := func(binary string) func(context.Context, string) (*server, error) {
		return func(ctx context.Context, dir string) (*server, error) {
			return b.startOurs(ctx, binary, dir, unlimited)
		}
	}
	all := []lane{{"artstore-pki, SQLite", run(b.ours)}, {"artstore-pki again (control)", run(b.ours)}}
	if b.before != "" {
		all = append(all, lane{laneBefore, run(b.before)})
	}
	if b.stepCA != "" {
		for _, db := range []string{"badgerv2", "bbolt"} {
			all = append(all, lane{laneStepCA + db, func(ctx context.Context, dir string) (*server, error) { return b.startStepCA(ctx, db, dir) }})
		}
	}
	return all
}

// settings are what is added to pki.yaml.
type settings struct{ profile, end string }

const (
	// renewals of one certificate, before another client takes over: a lineage has 50
	// live certificates at most, and that of a service has two or three.
	renewals = 40
	// mostConns is less than one address may have open.
	mostConns = 250
)

const manyLive = "    max_live: 100000000\n"

// unlimited lets one service on one address do all that it can: step-ca has no limits.
var unlimited = settings{
	profile: manyLive,
	end:     "\nlimits: {per_address: {per_second: 0}, per_service: {per_second: 0}}\n",
}

// startOurs makes an authority in dir and serves it with the given binary and settings.
func (b *bench) startOurs(ctx context.Context, binary, dir string, add settings) (*server, error) {
	s, err := material(ctx, binary, dir)
	if err != nil {
		return nil, err
	}
	if err := configure(dir, add); err != nil {
		return nil, err
	}
	ready := filepath.Join(dir, "ready")
	if err := s.start(exec.CommandContext(ctx, binary, "serve", "--dir", dir, "--listen", "127.0.0.1:0", "--ready-file", ready)); err != nil { //nolint:gosec // G204: named by who measures
		return nil, err
	}
	return s, s.await(ctx, func() bool {
		url, err := os.ReadFile(ready)
		s.url = strings.TrimSpace(string(url))
		return err == nil && s.url != ""
	})
}

// configure adds settings to pki.yaml.
func configure(dir string, add settings) error {
	file := filepath.Join(dir, "pki.yaml")
	config, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	profile := fmt.Appendf(nil, "  %q:\n", service)
	config = bytes.Replace(config, profile, append(profile, add.profile...), 1)
	return os.WriteFile(file, append(config, add.end...), 0o600) //nolint:forbidigo,gosec // G703: before the authority starts, in a directory of this run
}

// startStepCA serves the same kind of material with step-ca, as its init configures it.
func (b *bench) startStepCA(ctx context.Context, db, dir string) (*server, error) {
	s, err := material(ctx, b.ours, dir)
	if err != nil {
		return nil, err
	}
	key, err := issuingKey(dir)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "db")
	if db == "bbolt" {
		data += ".bolt"
	}
	address, err := frame.FreeAddress()
	if err != nil {
		return nil, err
	}
	public := s.key.Public()
	config, err := json.Marshal(map[string]any{
		"root": filepath.Join(dir, "certs", "root_ca.crt"), "crt": filepath.Join(dir, "certs", "intermediate_ca.crt"), "key": key,
		"address": address, "dnsNames": []string{"localhost", "127.0.0.1"}, "logger": map[string]string{"format": "text"},
		"db":        map[string]string{"type": db, "dataSource": data, "badgerFileLoadingMode": ""},
		"authority": map[string]any{"provisioners": []any{map[string]any{"type": "JWK", "name": provisioner, "key": public}}},
		"tls":       map[string]any{"minVersion": 1.3, "maxVersion": 1.3},
	})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "ca.json")
	if err := os.WriteFile(file, config, 0o600); err != nil { //nolint:forbidigo // before the authority starts
		return nil, err
	}
	if err := s.start(exec.CommandContext(ctx, b.stepCA, file)); err != nil { //nolint:gosec // G204: named by who measures
		return nil, err
	}
	s.url = "https://" + address
	return s, s.await(ctx, func() bool {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
		if err != nil {
			return false
		}
		_ = c.Close() // it was only a knock
		return true
	})
}

// provisioner is the name that init gives to the enrolment key.
const provisioner = "enrolment"

// material has a binary of ours make a state directory and reads what signs tokens from it.
func material(ctx context.Context, binary, dir string) (*server, error) {
	if out, err := exec.CommandContext(ctx, binary, "init", "--dir", dir, "--plain-keys").CombinedOutput(); err != nil { //nolint:gosec // G204: named by who measures
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return readMaterial(dir)
}

// readMaterial reads what a client of the authority in dir needs, and what signs its tokens.
func readMaterial(dir string) (*server, error) {
	s := &server{roots: x509.NewCertPool()}
	root, err := os.ReadFile(filepath.Join(dir, "certs", "root_ca.crt"))
	if err != nil || !s.roots.AppendCertsFromPEM(root) {
		return nil, fmt.Errorf("reading the root: %w", err)
	}
	jwk, err := os.ReadFile(filepath.Join(dir, "secrets", provisioner+".jwe"))
	if err != nil {
		return nil, err
	}
	return s, s.key.UnmarshalJSON(jwk)
}

func issuingKey(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, "certs", "current.json"))
	if err != nil {
		return "", err
	}
	var current struct {
		Intermediates []string `json:"intermediates"`
	}
	if err := json.Unmarshal(text, &current); err != nil || len(current.Intermediates) == 0 {
		return "", fmt.Errorf("reading current.json: %w", err)
	}
	return filepath.Join(dir, "secrets", current.Intermediates[0]+".key"), nil
}

// start runs the process; its output goes to a file, as a service's does.
func (s *server) start(cmd *exec.Cmd) error {
	log, err := os.CreateTemp("", "ca-bench-log-")
	if err != nil {
		return err
	}
	_ = os.Remove(log.Name()) // it lives as long as it is open
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	s.pid = cmd.Process.Pid
	s.stop = func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may be gone
		_ = cmd.Wait()                          // its status at a signal is its own affair
		return log.Close()
	}
	return nil
}

// await polls: a foreign program does not say when it is ready.
func (s *server) await(ctx context.Context, up func() bool) error {
	for range 300 {
		if up() {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), s.stop())
		case <-time.After(100 * time.Millisecond):
		}
	}
	return errors.Join(errors.New("it does not answer"), s.stop())
}

// cpu is the time that the process has used, user and system.
func (s *server) cpu() (time.Duration, error) {
	u, err := frame.Running(s.pid)
	return u.CPU, err
}
