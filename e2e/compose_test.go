package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	wantRotations = 2
	wantUploads   = 100
	leafLifetime  = time.Minute
	// Two renewals are due after 1.4 lifetimes; the rest is for a busy machine.
	rotationTimeout = 4 * leafLifetime
	// Short, since it has to pass; what renews at 0.6 of it has 8 seconds to do so.
	shortLifetime = 20 * time.Second
)

// server is a service that others connect to.
type server struct {
	service, port string
	names         []string // that clients use; the first one is the service's
	store         string   // the service with the files; "" for the Admin Module
}

// The third Storage Element is three services: one that knows no TLS, the proxy before it, which
// is what others connect to, and its way to the Admin Module.
const (
	proxied       = "storage-element-03"
	proxiedPlain  = "storage-element-03-service"
	proxiedClient = "storage-element-03-client"
)

var servers = []server{
	{"admin-module", "8000", []string{"admin-module", "artstore_admin_module"}, ""},
	{"storage-element-01", "8000", []string{"storage-element-01", "artstore_storage_element_01"}, "storage-element-01"},
	{"storage-element-02", "8000", []string{"storage-element-02", "artstore_storage_element_02"}, "storage-element-02"},
	{proxied, "8000", []string{"storage-element-03", "artstore_storage_element_03"}, proxiedPlain},
}

// rotating are the services that run until they are stopped, and renew a certificate of their own.
var rotating = []string{"ca", "admin-module", "storage-element-01", "storage-element-02", proxied, "ingester"}

// services are all that run until they are stopped.
var services = append([]string{proxiedPlain, proxiedClient}, rotating...)

// shared are the volumes that a service sees beside its own, and whether it may write there.
var shared = map[string]map[string]bool{
	"admin-module": {"/data/account": true},
	"ingester":     {"/data/account": false},
	proxiedPlain:   {"/data/storage-element-03-in": true, "/data/storage-element-03-out": false},
	proxied:        {"/data/storage-element-03-in": false},
	proxiedClient:  {"/data/storage-element-03-out": true, "/data/storage-element-03": false},
}

// TestCompose brings the stack up and watches it rotate twice under a load that
// never ends. What was stored is hashed here, from the storage side's disk; what
// must be refused is tried with TLS clients that are not ours.
func TestCompose(t *testing.T) {
	s := startStack(t, leafLifetime)
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
	checkPlainIsAlone(t, s)
	p.checkForgery(t, s)

	s.await("two rotations of every service", rotationTimeout, func() bool {
		r := rotations(t, s)
		return !slices.ContainsFunc(rotating, func(name string) bool { return r[name] < wantRotations })
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
	s.compose("stop", "ingester")
	checkEnded(t, s)
	if n := checkStored(t, s); n < wantUploads {
		t.Errorf("%d uploads, want %d", n, wantUploads)
	}
	checkNoSecrets(t, s)
	s.down()
}

// TestComposeAfterLongStop stops the stack until every certificate has expired; the
// first tokens are spent. The next `up` heals it, with the authority, the
// account and the files of before.
func TestComposeAfterLongStop(t *testing.T) {
	s := startStack(t, shortLifetime)
	s.awaitHealthy(services...)
	before, account := len(receipts(t, s)), s.account()
	s.compose("stop")
	expired := time.Now().Add(shortLifetime)
	s.await("all certificates expired", 2*shortLifetime, func() bool { return time.Now().After(expired) })

	s.compose("up", "-d")
	s.awaitHealthy(services...)
	s.await("uploads", healthyTimeout, func() bool { return len(receipts(t, s)) > before })
	for _, name := range rotating[1:] {
		if n := recorded(t, s, "issued")[name]; n != 1 {
			t.Errorf("%s enrolled %d times, want once: within the grace its key renews the certificate that expired", name, n)
		}
	}
	if s.account() != account {
		t.Error("the ingester's account is another one")
	}
	s.compose("stop", "ingester")
	checkEnded(t, s)
	checkStored(t, s)
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
			writes, isShared := shared[name][m.Destination]
			if m.Destination != "/data/"+name && !isShared || isShared && m.RW != writes {
				t.Errorf("%s sees %s, writable: %v", name, m.Destination, m.RW)
			}
		}
	}
}

// checkNames verifies a server under each name that ArtStore has for it, hyphens
// and underscores alike, and not under the name of another one.
func checkNames(t *testing.T, p *peers, srv server, address string) {
	t.Helper()
	for _, name := range srv.names {
		checkAnswers(t, address, livePath, p.config(name, &p.allowed))
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
	state := checkAnswers(t, address, livePath, p.config(srv.service, &p.allowed))
	return state.PeerCertificates[0].SerialNumber.String()
}

// rotations counts renewals with a new key by service. The authority's own
// certificate is issued anew each time: the first one is no rotation.
func rotations(t *testing.T, s *stack) map[string]int {
	t.Helper()
	count := recorded(t, s, "rekeyed")
	count["ca"] = recorded(t, s, "own")["ca"] - 1
	return count
}

// recorded counts the certificates that the authority has on record as made in
// this way, by the services whose name they have.
func recorded(t *testing.T, s *stack, kind string) map[string]int {
	t.Helper()
	var page struct {
		Certificates []struct {
			Kind  string
			Names []string
		}
	}
	if err := json.Unmarshal([]byte(s.pki("list", "--dir", "/data/ca", "-o", "json", "--limit", "1000")), &page); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, cert := range page.Certificates {
		for _, name := range rotating {
			if cert.Kind == kind && slices.Contains(cert.Names, name) {
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

// checkEnded reads the last words of the ingester, one for each time that it was
// stopped, and looks whether anything had to be restarted by Docker.
func checkEnded(t *testing.T, s *stack) {
	t.Helper()
	if c := s.inspect("ingester"); c.State.Running || c.State.ExitCode != 0 {
		t.Errorf("the ingester ended with status %d", c.State.ExitCode)
	}
	_, stderr := s.logs("ingester")
	ends := regexp.MustCompile(`ingester: stopped: uploads (\d+) .* failures (\d+)`).FindAllStringSubmatch(stderr, -1)
	uploads := 0
	for _, end := range ends {
		t.Log(end[0])
		n, err := strconv.Atoi(end[1])
		if err != nil || end[2] != "0" {
			t.Errorf("%s: want no failures", end[0])
		}
		uploads += n
	}
	if n := len(receipts(t, s)); len(ends) == 0 || uploads != n {
		t.Errorf("the ingester ended %d times with %d uploads, and gave %d receipts", len(ends), uploads, n)
	}
	for _, name := range services {
		if n := s.inspect(name).RestartCount; n != 0 {
			t.Errorf("%s was restarted %d times", name, n)
		}
	}
}

// checkStored hashes what lies on the Storage Elements' disks: each receipt has
// its file, and each file its receipt. It returns how many there are.
func checkStored(t *testing.T, s *stack) (fit int) {
	t.Helper()
	want := receipts(t, s)
	for _, srv := range servers[1:] {
		dir := filepath.Join(s.copyOut(srv.store, "/data/"+srv.store+"/store"), "files")
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
		fit += files
		t.Logf("%s: %d files hashed on disk", srv.service, files)
		if files == 0 {
			t.Errorf("%s got no files", srv.service)
		}
	}
	for id, r := range want {
		t.Errorf("%s was acknowledged by %s and is not there", id, r.storage)
	}
	return fit
}

// checkNoSecrets searches all that the stack printed for the account's secret,
// tokens and keys.
func checkNoSecrets(t *testing.T, s *stack) {
	t.Helper()
	known := s.account()
	jwt := regexp.MustCompile(`eyJ[A-Za-z0-9_-]{10,}\.`)
	for _, name := range append([]string{"bootstrap"}, services...) {
		stdout, stderr := s.logs(name)
		all := stdout + stderr
		if known == "" || strings.Contains(all, known) || jwt.MatchString(all) || strings.Contains(all, "PRIVATE KEY") {
			t.Errorf("%s: a secret is in the output", name)
		}
	}
}
