package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/csv"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/artstore/artstore-pki/audit/report"
	"github.com/artstore/artstore-pki/internal/testpki"
)

// The cost of one hostile input, for the program as a process of its own, which has 29 MiB
// before it looks at anything. Processor time is measured, because it does not depend on other
// processes of the machine. A program that waits instead of working meets the deadline.
const (
	hostileCPU      = 2 * time.Second
	hostilePeak     = 64 << 20
	hostileDeadline = 5 * time.Minute
)

// hostileCost is what a run of the program left.
type hostileCost struct {
	out    []byte
	status int
	cpu    time.Duration
	peak   int64 // resident set, bytes
}

func hostileRun(t *testing.T, args ...string) (u hostileCost) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hostileDeadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, measuredProgram, args...)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	u = hostileCost{out: out, status: cmd.ProcessState.ExitCode(), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if _, kib, ok := strings.Cut(complaints.String(), "VmHWM:"); ok {
		_, err := fmt.Sscan(kib, &u.peak)
		hostileMust(t, err)
		u.peak <<= 10
	}
	return u
}

// measuredProgram is artstore-pki, and prints its peak memory on standard error. The number
// that the kernel gives to a parent is of no use: it begins with the peak of that parent.
const measuredProgram = "artstore-pki-measured"

func reportPeak() {
	status, _ := os.ReadFile("/proc/self/status") // elsewhere than on Linux there is none
	if at := bytes.Index(status, []byte("VmHWM:")); at >= 0 {
		line, _, _ := bytes.Cut(status[at:], []byte("\n"))
		_, _ = fmt.Fprintf(os.Stderr, "%s\n", line)
	}
}

// hostile are inputs that have stopped other auditors, filled their memory or killed them: how
// each is made, and what its row says.
var hostile = map[string]struct {
	make func(t *testing.T, path string)
	name string
	says string
}{
	"FIFO":         {func(t *testing.T, path string) { hostileMust(t, syscall.Mkfifo(path, 0o600)) }, "fifo.pem", "it is no regular file"},
	"device":       {func(t *testing.T, path string) { hostileMust(t, os.Symlink("/dev/zero", path)) }, "zero.pem", "it is no regular file"},
	"symlink loop": {func(t *testing.T, path string) { hostileMust(t, os.Symlink(path, path)) }, "loop.pem", "too many levels of symbolic links"},
	"sparse": {func(t *testing.T, path string) {
		hostileMust(t, os.WriteFile(path, nil, 0o600))
		hostileMust(t, os.Truncate(path, 8<<30))
	}, "sparse.pem", "it is larger than 32 MiB"},
	"begins":         {content(func(*testing.T) []byte { return bytes.Repeat([]byte("-----BEGIN CERTIFICATE-----\n"), 200_000) }), "begins.pem", "block 1 is damaged or cut off"},
	"begin and end":  {content(func(*testing.T) []byte { return bytes.Repeat([]byte("-----BEGIN A-----\n-----END A-----\n"), 100_000) }), "a.pem", "there is no certificate in it"},
	"damaged blocks": {content(repeated("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")), "blocks.pem", "19900 more blocks could not be read"},
	"keys":           {content(repeated("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")), "keys.pem", "19000 more private keys were not read"},
	"headers": {content(func(*testing.T) []byte {
		return []byte("-----BEGIN CERTIFICATE-----\n" + strings.Repeat("a: b\n", 400_000))
	}), "headers.pem", "block 1 is damaged or cut off"},
	"iterations":   {content(iterationBomb), "bomb.p12", "more than 4000000 times"},
	"YAML aliases": {content(yamlBomb), "bomb.yaml", ""},
	"YAML depth": {content(func(*testing.T) []byte {
		return []byte("apiVersion: v1\nkind: Secret\ndata: " + strings.Repeat("[", 100_000))
	}), "deep.yaml", "document 1"},
	"YAML size": {content(func(*testing.T) []byte {
		return []byte("apiVersion: v1\nkind: Secret\ndata:\n" + strings.Repeat(" - a\n", 1<<20))
	}), "long.yaml", "values in one document"},
	"10 000 names":   {content(manyNames), "names.crt", "host-9999.example"},
	"damage between": {content(damageBetween), "between.pem", "parsing the certificate"},
	"injection":      {injection, "dir", "evil"},
	"names of files": {evilNames, "dir", "caf\\ufffd.crt"},
}

// repeated is 20 000 times the same block.
func repeated(block string) func(*testing.T) []byte {
	return func(*testing.T) []byte { return bytes.Repeat([]byte(block), 20_000) }
}

// Each hostile input is a row, within two seconds and 64 MiB.
func TestHostileCost(t *testing.T) {
	long(t, "it reads large hostile files")
	t.Parallel() // with the other long ones
	for name, c := range hostile {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), c.name)
			c.make(t, path)
			u := hostileRun(t, "audit", "-o", "ndjson", path)
			if len(u.out) == 0 || !bytes.Contains(u.out, []byte(c.says)) {
				t.Errorf("status %d, no row that says %q in %.300q", u.status, c.says, u.out)
			}
			if raceEnabled {
				return // the detector takes several times of both
			}
			t.Logf("%v and %d MiB", u.cpu, u.peak>>20)
			if u.cpu > hostileCPU || u.peak > hostilePeak {
				t.Errorf("%v and %d MiB, want at most %v and %d MiB", u.cpu, u.peak>>20, hostileCPU, hostilePeak>>20)
			}
		})
	}
}

// No renderer writes a byte that a reader of its format would interpret, although certificates
// and paths contain such bytes.
func TestHostileSinks(t *testing.T) {
	t.Parallel() // with the other long ones
	dir := t.TempDir()
	for _, name := range []string{"injection", "names of files", "damage between", "10 000 names"} {
		hostile[name].make(t, filepath.Join(dir, name))
	}
	for _, format := range report.Formats() {
		t.Run(format, func(t *testing.T) {
			args := []string{"audit", "-o", format, dir}
			if !slices.Contains(auditFormats(), format) {
				args[0] = "inspect"
			}
			out := hostileRun(t, args...).out
			if len(out) == 0 {
				t.Fatal("nothing")
			}
			if !utf8.Valid(out) {
				t.Error("not in UTF-8")
			}
			controls := strings.Map(func(r rune) rune {
				tab := r == '\t' && (format == "csv" || format == "prom") // inside of quotes
				if r == '\n' || tab || !unicode.IsControl(r) && !unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp) {
					return -1
				}
				return r
			}, strings.ReplaceAll(string(out), "\r\n", "\n"))
			if controls != "" {
				t.Errorf("control characters: %.100q", controls)
			}
			if check := sinks[format]; check != nil {
				check(t, out)
			}
		})
	}
}

// sinks are further checks, by format.
var sinks = map[string]func(*testing.T, []byte){
	"json": func(t *testing.T, out []byte) {
		if !json.Valid(out) || bytes.ContainsAny(out, "<>&") {
			t.Error("not JSON, or HTML would read it as its own")
		}
	},
	"ndjson": func(t *testing.T, out []byte) {
		for line := range bytes.Lines(out) {
			if !json.Valid(line) || bytes.ContainsAny(line, "<>&") {
				t.Errorf("%q", line)
			}
		}
	},
	"csv": func(t *testing.T, out []byte) {
		records, err := csv.NewReader(bytes.NewReader(out)).ReadAll()
		hostileMust(t, err)
		for _, cell := range slices.Concat(records...) {
			var number int64
			if _, err := fmt.Sscan(cell, &number); err != nil && cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r") {
				t.Errorf("a spreadsheet computes %q", cell)
			}
		}
	},
	"prom": func(t *testing.T, out []byte) {
		parser := expfmt.NewTextParser(model.LegacyValidation)
		families, err := parser.TextToMetricFamilies(bytes.NewReader(out))
		hostileMust(t, err)
		if families["evil"] != nil {
			t.Error("a name is a metric of its own")
		}
	},
	"html": func(t *testing.T, out []byte) {
		if bytes.Contains(out, []byte("<script>alert")) || bytes.Contains(out, []byte("<img src=x")) {
			t.Error("a name is an element of its own")
		}
	},
}

func hostileMust(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func content(text func(*testing.T) []byte) func(*testing.T, string) {
	return func(t *testing.T, path string) { hostileMust(t, os.WriteFile(path, text(t), 0o600)) }
}

// evil are texts that a reader of one of the formats would interpret.
var evil = []string{
	"evil \x1b[2J\x1b]0;title\a", "evil\nOK  fine", "evil <script>alert(1)</script>", "evil \"><img src=x onerror=alert(1)>", "=cmd|' /C calc'!A0 evil",
	"+1 evil", "-1 evil", "@SUM(A1) evil", "evil\"} 1\nevil 1\n", `evil\`, "evil\u202egpj.exe", "evil\u2028", "\tevil", "evil\u009b31m",
}

func injection(t *testing.T, dir string) {
	hostileMust(t, os.Mkdir(dir, 0o700))
	for i, text := range evil {
		hostileMust(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.crt", i)), hostileCertificate(t, text, "evil.example"), 0o600))
	}
}

func evilNames(t *testing.T, dir string) {
	hostileMust(t, os.Mkdir(dir, 0o700))
	one := hostileCertificate(t, "fine", "fine.example")
	for _, name := range append([]string{"caf\xe9", "\xff\xfe"}, evil...) {
		hostileMust(t, os.WriteFile(filepath.Join(dir, strings.ReplaceAll(name, "/", "_")+".crt"), one, 0o600))
	}
}

func hostileCertificate(t *testing.T, name string, names ...string) []byte {
	t.Helper()
	c := testpki.Issue(t, nil, &x509.Certificate{
		Subject: pkix.Name{CommonName: name, Organization: []string{name}}, DNSNames: names, NotAfter: time.Now().Add(24 * time.Hour),
	}, nil).Cert
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func manyNames(t *testing.T) []byte {
	var names []string
	for i := range 10_000 {
		names = append(names, fmt.Sprintf("host-%d.example", i))
	}
	return hostileCertificate(t, "many", names...)
}

func damageBetween(t *testing.T) []byte {
	one := hostileCertificate(t, "fine", "fine.example")
	return bytes.Join([][]byte{one, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("0\x80")}), one}, nil)
}

// iterationBomb is a PKCS #12 store of some 100 bytes that asks for 2³¹-1 hashes (RFC 7292 §4).
func iterationBomb(t *testing.T) []byte {
	type mac struct {
		Digest struct {
			Algorithm pkix.AlgorithmIdentifier
			Digest    []byte
		}
		Salt       []byte
		Iterations int
	}
	m := mac{Salt: make([]byte, 8), Iterations: 1<<31 - 1}
	m.Digest.Algorithm.Algorithm, m.Digest.Digest = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, make([]byte, 20)
	der, err := asn1.Marshal(struct {
		Version int
		Safe    struct {
			Type    asn1.ObjectIdentifier
			Content []byte `asn1:"explicit,tag:0"`
		}
		Mac mac
	}{3, struct {
		Type    asn1.ObjectIdentifier
		Content []byte `asn1:"explicit,tag:0"`
	}{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}, []byte{0x30, 0}}, m})
	hostileMust(t, err)
	return der
}

// yamlBomb is "billion laughs": each list holds the one before it nine times.
func yamlBomb(*testing.T) []byte {
	var b strings.Builder
	_, _ = b.WriteString("apiVersion: v1\nkind: List\nl0: &l0 {kind: Secret, data: {tls.crt: AAAA}}\n")
	for i := 1; i < 12; i++ {
		_, _ = fmt.Fprintf(&b, "l%d: &l%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*l%d, ", i-1), 9), ", "))
	}
	_, _ = b.WriteString("items: *l11\n")
	return []byte(b.String())
}
