package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	wantRotations = 2
	wantUploads   = 100
	// Two renewals are due after 1.4 lifetimes; the rest is for a busy machine.
	rotationTimeout = 4 * leafLifetime
)

// server is a service that others connect to.
type server struct {
	service, port string
	names         []string // that clients use; the first one is the service's
}

var servers = []server{
	{"admin-module", "8000", []string{"admin-module", "artstore_admin_module"}},
	{"storage-element-01", "8000", []string{"storage-element-01", "artstore_storage_element_01"}},
	{"storage-element-02", "8000", []string{"storage-element-02", "artstore_storage_element_02"}},
}

// services run until they are stopped, and rotate.
var services = []string{"ca", "admin-module", "storage-element-01", "storage-element-02", "ingester"}

// TestCompose brings the stack up and watches it rotate twice under a load that
// never ends. What was stored is hashed here, from the storage side's disk; what
// must be refused is tried with TLS clients that are not ours.
func TestCompose(t *testing.T) {
	s := startStack(t)
	s.awaitHealthy(services...)
	checkHardened(t, s)

	p := newPeers(t, s)
	before := map[string]string{}
	for _, srv := range servers {
		address := s.address(srv.service, srv.port)
		p.checkRefusals(t, address, srv.service)
		checkNames(t, p, srv, address)
		before[srv.service] = servedSerial(t, p, srv, address)
	}

	s.await("two rotations of every service", rotationTimeout, func() bool {
		r := rotations(t, s)
		return !slices.ContainsFunc(services, func(name string) bool { return r[name] < wantRotations })
	})
	t.Logf("rotations: %v", rotations(t, s))
	again := newPeers(t, s) // the first ones have expired, or will soon
	for _, srv := range servers {
		if now := servedSerial(t, again, srv, s.address(srv.service, srv.port)); now == before[srv.service] {
			t.Errorf("%s still serves the certificate it started with, %s", srv.service, now)
		}
	}

	s.await("enough uploads", healthyTimeout, func() bool { return len(receipts(t, s)) >= wantUploads })
	s.awaitHealthy(services...)
	checkStopped(t, s)
	checkStored(t, s)
	checkNoSecrets(t, s)
	s.down()
}

// checkHardened asks Docker what it made of compose.yaml.
func checkHardened(t *testing.T, s *stack) {
	t.Helper()
	for _, name := range services {
		c := s.inspect(name)
		if c.Config.User != "65532:65532" || !c.HostConfig.ReadonlyRootfs || c.HostConfig.Privileged ||
			!slices.Contains(c.HostConfig.CapDrop, "ALL") || !slices.Contains(c.HostConfig.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s: user %q, %+v", name, c.Config.User, c.HostConfig)
		}
		for port, bindings := range c.NetworkSettings.Ports {
			for _, b := range bindings {
				if b.HostIP != "127.0.0.1" {
					t.Errorf("%s: port %s is published on %s", name, port, b.HostIP)
				}
			}
		}
		for _, m := range c.Mounts {
			account := m.Destination == "/data/account" && (name == "admin-module" || name == "ingester" && !m.RW)
			if m.Destination != "/data/"+name && !account {
				t.Errorf("%s sees %s", name, m.Destination)
			}
		}
	}
}

// checkNames verifies a server under each name that ArtStore has for it, hyphens
// and underscores alike, and not under the name of another one.
func checkNames(t *testing.T, p *peers, srv server, address string) {
	t.Helper()
	for _, name := range srv.names {
		checkAnswers(t, address, p.config(name, &p.allowed))
	}
	for _, other := range servers {
		if other.service == srv.service {
			continue
		}
		conn, err := dialTLS(t, address, p.config(other.service, &p.allowed))
		if err == nil {
			_ = conn.Close()
			t.Errorf("%s can pass for %s", srv.service, other.service)
		} else if !strings.Contains(err.Error(), "not "+other.service) {
			t.Errorf("%s as %s: refused with %v, want a wrong name", srv.service, other.service, err)
		}
	}
}

func servedSerial(t *testing.T, p *peers, srv server, address string) string {
	t.Helper()
	state := checkAnswers(t, address, p.config(srv.service, &p.allowed))
	return state.PeerCertificates[0].SerialNumber.String()
}

// rotations counts renewals with a new key by service, as the authority recorded
// them. Its own certificate is issued anew each time: the first one is no rotation.
func rotations(t *testing.T, s *stack) map[string]int {
	t.Helper()
	var page struct {
		Certificates []struct {
			Serial, Kind string
			Names        []string
		}
	}
	if err := json.Unmarshal([]byte(s.pki("list", "--dir", "/data/ca", "-o", "json", "--limit", "1000")), &page); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{"ca": -1}
	for _, cert := range page.Certificates {
		if _, ok := new(big.Int).SetString(cert.Serial, 10); !ok {
			t.Fatalf("serial %q is no number", cert.Serial)
		}
		for _, name := range services {
			own := name == "ca" && cert.Kind == "own"
			if own || cert.Kind == "rekeyed" && slices.Contains(cert.Names, name) {
				count[name]++
			}
		}
	}
	return count
}

// receipt is one line of the ingester: what a Storage Element acknowledged.
type receipt struct {
	sum     string
	size    int64
	storage string // service
}

// receipts are by file id.
func receipts(t *testing.T, s *stack) map[string]receipt {
	t.Helper()
	stdout, _ := s.logs("ingester")
	found := map[string]receipt{}
	for line := range strings.Lines(stdout) {
		f := strings.Fields(line)
		if len(f) != 4 {
			t.Fatalf("the ingester printed %q, want id, checksum, size, URL", line)
		}
		size, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil {
			t.Fatalf("the ingester printed %q: %v", line, err)
		}
		if _, twice := found[f[0]]; twice {
			t.Errorf("id %s was given out twice", f[0])
		}
		host := strings.TrimSuffix(strings.TrimPrefix(f[3], "https://artstore_"), ":8000")
		found[f[0]] = receipt{sum: f[1], size: size, storage: strings.ReplaceAll(host, "_", "-")}
	}
	return found
}

// checkStopped stops the ingester as an operator would, and reads its last words.
func checkStopped(t *testing.T, s *stack) {
	t.Helper()
	s.compose("stop", "ingester")
	if c := s.inspect("ingester"); c.State.Running || c.State.ExitCode != 0 {
		t.Errorf("the ingester ended with status %d", c.State.ExitCode)
	}
	_, stderr := s.logs("ingester")
	last := regexp.MustCompile(`ingester: stopped: uploads (\d+) .* failures (\d+)`).FindStringSubmatch(stderr)
	if last == nil {
		t.Fatalf("the ingester did not say goodbye:\n%s", stderr)
	}
	if want := strconv.Itoa(len(receipts(t, s))); last[1] != want || last[2] != "0" {
		t.Errorf("%s, and %s receipts", last[0], want)
	}
	t.Log(last[0])
	for _, name := range services {
		if n := s.inspect(name).RestartCount; n != 0 {
			t.Errorf("%s was restarted %d times", name, n)
		}
	}
}

// checkStored hashes what lies on the Storage Elements' disks: each receipt has
// its file, and each file its receipt.
func checkStored(t *testing.T, s *stack) {
	t.Helper()
	want := receipts(t, s)
	if len(want) < wantUploads {
		t.Fatalf("%d uploads, want %d", len(want), wantUploads)
	}
	for _, srv := range servers[1:] {
		dir := filepath.Join(s.copyOut(srv.service, "/data/"+srv.service+"/store"), "files")
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		files := 0
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".json") { // metadata, which says the same as the receipt
				continue
			}
			content, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(content)
			got := receipt{sum: hex.EncodeToString(sum[:]), size: int64(len(content)), storage: srv.service}
			if got != want[e.Name()] {
				t.Errorf("%s is %+v on disk, and %+v by its receipt", e.Name(), got, want[e.Name()])
			}
			delete(want, e.Name())
			files++
		}
		t.Logf("%s: %d files fit their receipts", srv.service, files)
		if files == 0 {
			t.Errorf("%s got no files", srv.service)
		}
	}
	for id, r := range want {
		t.Errorf("%s was acknowledged by %s and is not there", id, r.storage)
	}
}

// checkNoSecrets searches all that the stack printed for the account's secret,
// tokens and keys.
func checkNoSecrets(t *testing.T, s *stack) {
	t.Helper()
	account, err := os.ReadFile(filepath.Join(s.copyOut("admin-module", "/data/account"), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	known := strings.TrimSpace(string(account))
	jwt := regexp.MustCompile(`eyJ[A-Za-z0-9_-]{10,}\.`)
	for _, name := range append([]string{"bootstrap"}, services...) {
		stdout, stderr := s.logs(name)
		all := stdout + stderr
		if known == "" || strings.Contains(all, known) || jwt.MatchString(all) || strings.Contains(all, "PRIVATE KEY") {
			t.Errorf("%s: a secret is in the output", name)
		}
	}
}
