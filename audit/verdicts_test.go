package audit_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/source"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// The tests in verdicts_*_test.go compare the audit with an independent judge:
// "openssl verify" for files, curl for servers. Each case is made anew, shown to
// the judge and audited. Two rules hold for all of them:
//
//   - What the judge refuses has at least a warning here, or could not be read.
//   - What the judge takes is critical or unreadable here only for a reason that
//     stands in the table, because some other peer refuses it.
//
// A reason that nothing needs any more fails too.
//
// go test ./audit -run Verdicts -v prints the table with both verdicts.

// verdictCase is a row of the table.
type verdictCase struct {
	name string
	make func(pki) *madeFiles
	// reason says why this is critical here although the judge takes it.
	reason string
}

// madeFiles are the files of one service.
type madeFiles struct {
	files    map[string][]byte
	purposes []string // of openssl verify; all of them must be fine
	flags    []string // for openssl verify
	apart    bool     // the files differ in how they are written, so that they cannot be joined for standard input
}

const (
	chainFile  = "tls.crt"
	keyFile    = "tls.key"
	bundleFile = "ca.crt"
	listFile   = "ca.crl"
)

// chain makes the files of a service with the key of the first certificate.
func (p pki) chain(list ...*certified) *madeFiles {
	p.Helper()
	m := &madeFiles{files: map[string][]byte{chainFile: pemRenderer(list...)}, purposes: []string{"sslserver", "sslclient"}}
	if list[0].key != nil {
		m.files[keyFile] = list[0].keyPEM(p)
	}
	return m
}

func (m *madeFiles) trust(roots ...*certified) *madeFiles {
	return m.file(bundleFile, pemRenderer(roots...))
}

func (m *madeFiles) file(name string, data []byte) *madeFiles {
	m.files[name] = data
	return m
}

func (m *madeFiles) purpose(list ...string) *madeFiles {
	m.purposes = list
	return m
}

// atHome is for an authority beside its own key, which no server shows: it may not be
// used for TLS, and is sound all the same. Of the purposes of openssl verify any is
// the one that asks for a path to the bundle and for no usage.
func (m *madeFiles) atHome() *madeFiles { return m.purpose("any") }

// lists has the chain judged by revocation lists.
func (m *madeFiles) lists(der ...[]byte) *madeFiles {
	for _, one := range der {
		m.files[listFile] = append(m.files[listFile], certtest.Block("X509 CRL", one)...)
	}
	m.flags = append(m.flags, "-crl_check", "-CRLfile", listFile)
	return m
}

// opinion is a verdict by either side.
type opinion struct {
	refused, critical bool
	text              string
}

// ask runs a judge in a directory, without settings of the machine.
func ask(t *testing.T, dir, program string, args ...string) (ok bool, said string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), audittest.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "OPENSSL_CONF=" + os.DevNull, "HOME=" + dir}
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("%s did not end: %s", filepath.Base(program), out)
	}
	return err == nil, string(out)
}

var verifyError = regexp.MustCompile(`error (\d+) at (\d+) depth lookup: ?([^\n]*)`)

// openssl is the verdict of openssl verify, on certificates as a server with OpenSSL's
// usual security level 2 has them, and on the key as any program that loads the pair.
func (m *madeFiles) openssl(t *testing.T, program string) opinion {
	t.Helper()
	dir := certtest.Write(t, m.files)
	for _, purpose := range m.purposes {
		args := []string{"verify", "-no-CApath", "-no-CAstore", "-auth_level", "2", "-purpose", purpose, "-CAfile", bundleFile, "-untrusted", chainFile}
		ok, said := ask(t, dir, program, append(append(args, m.flags...), chainFile)...)
		if !ok {
			return opinion{refused: true, text: purpose + ": " + firstError(said)}
		}
	}
	if m.files[keyFile] != nil {
		_, cert := ask(t, dir, program, "x509", "-in", chainFile, "-noout", "-pubkey")
		_, key := ask(t, dir, program, "pkey", "-in", keyFile, "-pubout")
		if cert != key {
			return opinion{refused: true, text: "the key is another one"}
		}
	}
	return opinion{text: "OK"}
}

func firstError(said string) string {
	if found := verifyError.FindStringSubmatch(said); found != nil {
		return fmt.Sprintf("error %s at %s, %s", found[1], found[2], found[3])
	}
	line, _, _ := strings.Cut(strings.TrimSpace(said), "\n")
	return line
}

// ways are those in which an operator has one set audited.
var ways = []struct {
	name string
	with func(testing.TB, *madeFiles) (audit.Config, error)
}{
	{"directory", func(t testing.TB, m *madeFiles) (audit.Config, error) {
		return audit.Config{Sources: []audit.Source{audittest.Paths(certtest.Write(t, m.files))}}, nil
	}},
	{"file", func(t testing.TB, m *madeFiles) (audit.Config, error) {
		return m.judgedByLists(audit.Config{Sources: []audit.Source{audittest.Paths(filepath.Join(certtest.Write(t, m.files), chainFile))}})
	}},
	{"--ca-cert", func(t testing.TB, m *madeFiles) (audit.Config, error) {
		bundle, err := pemfile.Certificates(m.files[bundleFile])
		if err != nil {
			return audit.Config{}, err
		}
		dir := certtest.Write(t, map[string][]byte{chainFile: m.files[chainFile]})
		if m.files[keyFile] != nil {
			writeFile(t, filepath.Join(dir, keyFile), m.files[keyFile])
		}
		return m.judgedByLists(audit.Config{Sources: []audit.Source{source.Targets{Names: []string{dir}, Bundle: bundle}}})
	}},
	{"stdin", func(t testing.TB, m *madeFiles) (audit.Config, error) {
		bundle, err := pemfile.Certificates(m.files[bundleFile])
		if err != nil {
			return audit.Config{}, err
		}
		in := m.files[chainFile]
		if bytes.Contains(in, []byte("-----")) {
			in = slices.Concat(in, []byte("\n"), m.files[keyFile])
		}
		return m.judgedByLists(audit.Config{Sources: []audit.Source{source.Targets{Names: []string{"-"}, Bundle: bundle, Stdin: bytes.NewReader(in)}}})
	}},
}

// judgedByLists reads the list as --crl does.
func (m *madeFiles) judgedByLists(cfg audit.Config) (audit.Config, error) {
	cfg.Lists = map[string]*x509.RevocationList{}
	rest := m.files[listFile]
	for n := 0; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return cfg, nil
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return cfg, err
		}
		cfg.Lists[fmt.Sprint(n, ".crl")] = list
	}
}

// besides are checks that say nothing about whether a peer takes a certificate: a
// chain with one of these findings alone counts as fine.
var besides = []string{"expiring", "renewal-overdue", "long-lived", "key-readable", "same-key", "tls-version", "key-exchange", "not-seen"}

// opinionOf is what a report comes to, over the rows that of wants.
func opinionOf(r *audittest.Report, of func(*audit.Row) bool) opinion {
	var found []string
	o := opinion{}
	for i := range r.Rows {
		row := &r.Rows[i]
		if !of(row) {
			continue
		}
		if row.Err != nil {
			o.refused, o.critical = true, true
			found = append(found, "unreadable ("+row.Err.Error()+")")
		}
		for _, f := range row.Findings {
			o.critical = o.critical || f.Severity == audit.Crit
			o.refused = o.refused || f.Severity >= audit.Warn && !slices.Contains(besides, f.Check)
			found = append(found, fmt.Sprint(f.Severity, " ", f.Check))
		}
	}
	slices.Sort(found)
	o.text = cmp.Or(strings.Join(slices.Compact(found), ", "), "OK")
	return o
}

func everyRow(*audit.Row) bool { return true }

// ours is the verdict of the audit, by each way.
func (m *madeFiles) ours(t *testing.T) map[string]opinion {
	t.Helper()
	out := map[string]opinion{}
	for _, way := range ways {
		if m.apart && way.name == "stdin" {
			continue
		}
		cfg, err := way.with(t, m)
		if err != nil { // the command ends with it
			out[way.name] = opinion{true, true, "error: " + err.Error()}
			continue
		}
		r, err := audittest.Judge(t.Context(), cfg)
		certtest.Must(t, err)
		out[way.name] = opinionOf(r, everyRow)
	}
	return out
}

// verdicts are the lines of the table, as they become known.
type verdicts struct {
	mu    sync.Mutex
	lines []string
	count map[string]int
}

// compare holds the two sides of a case against the rules.
func (v *verdicts) compare(t *testing.T, name string, judge opinion, ours map[string]opinion, reason string) {
	t.Helper()
	needed := false
	var texts, problems []string
	for _, way := range sortedKeys(ours) {
		got := ours[way]
		texts = append(texts, way+": "+got.text)
		problem := ""
		switch {
		case judge.refused && !got.refused:
			problem = fmt.Sprintf("%s: it is refused and fine here (%s)", way, got.text)
		case !judge.refused && got.critical && reason == "":
			problem = fmt.Sprintf("%s: it is taken and critical here without a reason (%s)", way, got.text)
		}
		needed = needed || !judge.refused && got.critical
		if problem != "" {
			problems = append(problems, problem)
		}
	}
	if len(problems) > 0 {
		t.Errorf("%s: %s", name, strings.Join(problems, "; "))
	}
	if reason != "" && !needed {
		t.Errorf("%s: nothing is critical here, and there is still a reason: %s", name, reason)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.count == nil {
		v.count = map[string]int{}
	}
	v.count[map[bool]string{true: "refused", false: "taken"}[judge.refused]]++
	v.lines = append(v.lines, fmt.Sprintf("%-55s | %s | %s%s", name, judge.text, strings.Join(same(texts), "; "), because(reason)))
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " | " + reason
}

// same returns one text if the texts of all ways are equal, and all texts otherwise.
func same(texts []string) []string {
	var tails []string
	for _, text := range texts {
		_, tail, _ := strings.Cut(text, ": ")
		tails = append(tails, tail)
	}
	slices.Sort(tails)
	if tails = slices.Compact(tails); len(tails) == 1 {
		return tails
	}
	return texts
}

func sortedKeys[V any](m map[string]V) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func (v *verdicts) log(t *testing.T) {
	t.Helper()
	slices.Sort(v.lines)
	t.Logf("%d cases, %d taken and %d refused by the judge:\n%s", len(v.lines), v.count["taken"], v.count["refused"], strings.Join(v.lines, "\n"))
}

// fileCases returns the cases by theme.
func fileCases() map[string][]verdictCase {
	return map[string][]verdictCase{
		"chain": chainCases(), "dates": dateCases(), "authorities": authorityCases(), "usages": usageCases(),
		"constraints": constraintCases(), "algorithms": algorithmCases(), "fields": fieldCases(), "names": nameCases(),
		"lists": listCases(), "text": textCases(), "bundles": bundleCases(), "keys": keyCases(),
	}
}

func TestVerdictsOfFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	program := audittest.Program(t, "openssl")
	var table verdicts
	t.Run("cases", func(t *testing.T) {
		for theme, cases := range fileCases() {
			for _, c := range cases {
				name := theme + ": " + c.name
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					m := c.make(pki{t})
					table.compare(t, name, m.openssl(t, program), m.ours(t), c.reason)
				})
			}
		}
	})
	table.log(t)
}
