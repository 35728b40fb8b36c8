package source_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/source"
)

// played is a server that openssl s_server runs.
type played struct {
	key     string   // as in legacyKeys
	version string   // option of s_server
	suites  []string // families, one server each; of TLS 1.3 there is one
}

// legacyKeys are the arguments with which openssl makes keys.
var legacyKeys = map[string][]string{
	"rsa1024":   {"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"},
	"rsa2048":   {"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"},
	"rsa-pss":   {"genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"},
	"p256":      {"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"},
	"p384":      {"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"},
	"secp256k1": {"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"},
	"brainpool": {"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:brainpoolP256r1"},
	"ed25519":   {"genpkey", "-algorithm", "ED25519"},
	"ed448":     {"genpkey", "-algorithm", "ED448"},
	"dsa":       {"dsaparam", "-genkey", "-noout", "1024"},
}

// legacy returns the combinations of versions and keys that OpenSSL 3.0 can serve. It cannot
// serve SSL 3.
func legacy() (out []played) {
	for _, version := range []string{"-tls1", "-tls1_1", "-tls1_2"} {
		for _, key := range []string{"rsa1024", "rsa2048"} {
			out = append(out, played{key, version, []string{"kRSA", "kDHE", "kECDHE"}})
		}
		for _, key := range []string{"p256", "p384", "secp256k1", "brainpool"} {
			out = append(out, played{key, version, []string{"kECDHE"}})
		}
		out = append(out, played{"dsa", version, []string{"kDHE"}})
	}
	for _, key := range []string{"rsa-pss", "ed25519", "ed448"} {
		out = append(out, played{key, "-tls1_2", []string{"kECDHE"}})
	}
	for _, key := range []string{"rsa1024", "rsa2048", "rsa-pss", "p256", "p384", "ed25519", "ed448"} {
		out = append(out, played{key, "-tls1_3", []string{"ALL"}})
	}
	// One that speaks all versions, the newest of which has no place for its key.
	return append(out, played{"secp256k1", "-no_ssl3", []string{"ALL"}})
}

// start runs s_server, and returns the address that it prints.
func (p played) start(t *testing.T, openssl, dir, suites string) (address string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), openssl, "s_server", "-accept", "127.0.0.1:0", "-www", p.version, "-cipher", suites+":@SECLEVEL=0",
		"-cert", filepath.Join(dir, p.key+".crt"), "-key", filepath.Join(dir, p.key+".key"))
	out, err := cmd.StdoutPipe()
	certtest.Must(t, err)
	certtest.Must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Wait() }) // it was killed
	said := bufio.NewReader(out)
	for {
		line, err := said.ReadString('\n')
		certtest.Must(t, err)
		if at, found := strings.CutPrefix(strings.TrimSpace(line), "ACCEPT "); found {
			go func() { _, _ = io.Copy(io.Discard, said) }()
			return at
		}
	}
}

// An expired certificate is critical, whatever version the server speaks and whatever key it
// has. The row never says that the server could not be reached.
func TestLegacyServers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	openssl := audittest.Program(t, "openssl")
	dir := t.TempDir()
	for key, args := range legacyKeys {
		file := filepath.Join(dir, key+".key")
		generate := append(slices.Clone(args[:1]), append([]string{"-out", file}, args[1:]...)...)
		for _, args := range [][]string{generate, {"req", "-x509", "-key", file, "-out", filepath.Join(dir, key+".crt"), "-subj", "/CN=" + key, "-days", "9", "-addext", "basicConstraints=critical,CA:FALSE"}} {
			if said, err := exec.CommandContext(t.Context(), openssl, args...).CombinedOutput(); err != nil {
				t.Fatalf("openssl %s: %v: %s", args, err, said)
			}
		}
	}
	name := map[string]string{}
	var addresses []string
	for _, p := range legacy() {
		for _, suites := range p.suites {
			address := p.start(t, openssl, dir, suites)
			addresses, name[address] = append(addresses, address), p.key+" "+p.version+" "+suites
		}
	}
	later := func() time.Time { return time.Now().Add(10 * certtest.Day) }
	r, err := audittest.Judge(t.Context(), audit.Config{Now: later, Sources: []audit.Source{source.Targets{Names: addresses, Timeout: audittest.Patience, Fast: true}}})
	certtest.Must(t, err)
	for _, row := range r.Rows {
		if row.State != "EXPIRED" || row.Severity() != audit.Crit || row.TLS == nil || row.TLS.Version == 0 {
			t.Errorf("%s: %s %v", name[row.Place], row.State, row.Err)
		}
		delete(name, row.Place)
	}
	for _, missing := range name {
		t.Errorf("%s: no row", missing)
	}
}

// peeked is a connection from which bytes were read already.
type peeked struct {
	net.Conn
	in io.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.in.Read(b) }

// Very old servers close the connection after a hello with a newer version.
func TestIntolerantServer(t *testing.T) {
	_, intermediate, over := certtest.Hierarchy(t, certtest.Lives(2*certtest.Day, certtest.Day))
	config := &tls.Config{Certificates: []tls.Certificate{over.TLS(intermediate)}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}
	address := audittest.Accept(t, func(c net.Conn) {
		const version = 9 // behind the headers of record and message
		in := bufio.NewReader(c)
		if head, err := in.Peek(version + 2); err != nil || head[version+1] > 1 {
			return
		}
		_ = tls.Server(&peeked{c, in}, config).Handshake() // refusals are the point
	})
	const want = "EXPIRED expired tls-version shaking hands: EOF; it takes TLS 1.0 with "
	if got := shownBy(t, source.Targets{Names: []string{address}}); !strings.HasPrefix(got[0], want) {
		t.Errorf("%q", got)
	}
}
