package audit_test

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/source"
)

// as openssl req -x509 makes a certificate: it signs itself and is an authority's.
func selfMade(c *x509.Certificate) {
	c.IsCA, c.ExtKeyUsage, c.DNSNames, c.IPAddresses = true, nil, nil, nil
}

func isAuthority(c *x509.Certificate) { c.IsCA = true }

// What a server shows first, and what lies beside its own key, is verified,
// whatever its basic constraints say, at each place where it is.
func TestEveryoneIsVerified(t *testing.T) {
	root := newPair(t, nil, "Test Root", authority, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageDigitalSignature })
	intermediate := newPair(t, root, "Test Intermediate", authority, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageDigitalSignature })
	for _, c := range []struct {
		name           string
		p              *pair
		chain          []*pair
		judged, alone  string // with a bundle and without one
		served, seenIn string // the same of a server
	}{
		{"self-signed, authority", newPair(t, nil, "localhost", selfMade), nil, "CRIT untrusted", "CRIT untrusted", "CRIT untrusted", "CRIT untrusted"},
		{"self-signed, leaf", newPair(t, nil, "localhost"), nil, "CRIT untrusted", "CRIT untrusted", "CRIT untrusted", "CRIT untrusted"},
		{"intermediate", intermediate, nil, "OK", "OK", "CRIT name-mismatch", "CRIT name-mismatch"},
		{"foreign intermediate", newPair(t, newPair(t, nil, "Other Root", authority), "localhost", isAuthority), nil, "CRIT chain-incomplete", "WARN wrong-usage", "CRIT chain-incomplete", "WARN wrong-usage"},
		{"root of the bundle", root, nil, "OK", "OK", "CRIT name-mismatch", "CRIT untrusted"},
		{"leaf", newPair(t, intermediate, "localhost"), []*pair{intermediate}, "OK", "OK", "OK", "OK"},
	} {
		for _, trusts := range []bool{true, false} {
			files, endpoint := c.judged, c.served
			targets := source.Targets{Timeout: patience}
			if trusts {
				targets.Bundle = bundleOf([]*pair{root})
			} else {
				files, endpoint = c.alone, c.seenIn
			}
			dir := write(t, map[string][]byte{"w.pem": encode(append([]*pair{c.p}, c.chain...)...), "w.key": c.p.keyPEM(t)})
			address := serve(t, &tls.Config{Certificates: []tls.Certificate{c.p.tls(c.chain...)}, MinVersion: tls.VersionTLS13})
			targets.Names = []string{dir, address}
			r := run(t, targets)
			first := func(place string) string {
				for _, row := range r.Rows {
					if strings.HasSuffix(row.Place, place) && row.Cert.X509().Equal(c.p.cert) {
						if len(row.Findings) == 0 || row.Findings[0].Check == "not-judged" {
							return row.State
						}
						return row.State + " " + row.Findings[0].Check
					}
				}
				return "no row"
			}
			if got := first("/w.pem"); got != files {
				t.Errorf("%s as a file, bundle %v: %s, want %s", c.name, trusts, got, files)
			}
			if got := first(address); got != endpoint {
				t.Errorf("%s at a server, bundle %v: %s, want %s", c.name, trusts, got, endpoint)
			}
		}
	}
}

// An authority at home has its key beside it, and neither names nor usages of a service.
// What has those is judged as a leaf, whatever its basic constraints say.
func TestAuthorityAtHome(t *testing.T) {
	names := func(c *x509.Certificate) { c.DNSNames = []string{"kubernetes"} }
	anyUse := func(c *x509.Certificate) { c.KeyUsage = 0 }
	both := func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment }
	forServers := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	for _, c := range []struct {
		what, subject, file string
		specs               []spec
		want                string
	}{
		{"may sign certificates only", "x", "x", nil, "OK"},
		{"and lists servers as a usage", "x", "x", []spec{forServers}, "OK"},
		{"may sign anything", "x", "x", []spec{both}, "OK"},
		{"openssl req -x509, by its file", "x", "ca", []spec{anyUse}, "OK"},
		{"by its file in other letters", "x", "my-RootCA", []spec{anyUse}, "OK"},
		{"by its subject", "Acme Root CA", "acme", []spec{anyUse}, "OK"},
		{"of kubeadm", "kubernetes", "ca", []spec{both, names}, "OK"},
		{"openssl req -x509 for a server", "localhost", "server", []spec{anyUse}, "CRIT untrusted no-san wrong-usage long-lived"},
		{"a server in a file with ca in a word", "localhost", "cache", []spec{anyUse}, "CRIT untrusted no-san wrong-usage long-lived"},
		{"the name of a host", "localhost", "x", []spec{names}, "CRIT untrusted wrong-usage long-lived"},
		{"for servers", "x", "x", []spec{both, forServers}, "CRIT untrusted no-san wrong-usage long-lived"},
	} {
		p := newPair(t, nil, c.subject, append([]spec{authority}, c.specs...)...)
		dir := write(t, map[string][]byte{c.file + ".pem": encode(p), c.file + ".key": p.keyPEM(t)})
		if got := states(t, run(t, paths(dir)), dir)[c.file+".pem"]; got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

// An authority with its key is known to the trust bundle beside it, or somebody can issue
// what peers refuse.
func TestStrangeAuthorityAtHome(t *testing.T) {
	root, mid, _ := hierarchy(t)
	stranger := newPair(t, nil, "Stranger", authority)
	below := newPair(t, stranger, "Below", authority)
	old := newPair(t, root, "Old", authority, dates(time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)))
	files := map[string][]byte{"ca.crt": encode(root), "without-key.crt": encode(stranger)}
	for name, p := range map[string]*pair{"mid": mid, "root": root, "stranger": stranger, "below": below, "old": old} {
		files[name+".crt"], files[name+".key"] = encode(p), p.keyPEM(t)
	}
	dir := write(t, files)
	want(t, states(t, run(t, paths(dir)), dir), map[string]string{
		"ca.crt": "OK", "mid.crt": "OK", "root.crt": "OK", "without-key.crt": "OK",
		"stranger.crt": "WARN untrusted", "below.crt": "WARN chain-incomplete", "old.crt": "EXPIRED expired",
	})
}

// verdictOf is the state of a subject with its findings, and the first text and remedy.
func verdictOf(t *testing.T, s audit.Subject) (state, text, remedy string) {
	t.Helper()
	s.Place = "x"
	r := run(t, static{s})
	if f := r.Rows[0].Findings; len(f) > 0 {
		text, remedy = f[0].Text, f[0].Remedy
	}
	return states(t, r, "")["x"], text, remedy
}

// Each way in which a chain fails has its own words, and a remedy that helps.
func TestBrokenChains(t *testing.T) {
	old, made := newPair(t, nil, "R", authority), newPair(t, nil, "R", authority)
	leaf := newPair(t, old, "a")
	mute := newPair(t, nil, "R", authority, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })
	forged := *leaf.cert
	forged.Raw = append([]byte{}, forged.Raw...)
	forged.Raw[len(forged.Raw)-1] ^= 1
	broken, err := x509.ParseCertificate(forged.Raw)
	must(t, err)
	late := newPair(t, old, "Late", authority, lives(2*Day, Day))
	for _, c := range []struct {
		name          string
		leaf          *x509.Certificate
		chain, bundle []*pair
		check         string
		says, remedy  string
	}{
		{"absent", newPair(t, newPair(t, old, "I", authority), "a").cert, nil, []*pair{old}, "chain-incomplete", "I is neither with it nor in the trust bundle", "append the missing"},
		{"another key in the bundle", leaf.cert, nil, []*pair{made}, "untrusted", "R is in the trust bundle with another key than the one that signed a (key identifiers ", "add the root"},
		{"another key beside it", leaf.cert, []*pair{made}, []*pair{newPair(t, nil, "Other", authority)}, "chain-incomplete", "R is beside it with another key", "compare the key identifiers"},
		{"the root came along", leaf.cert, []*pair{old}, []*pair{made}, "untrusted", "the trust bundle has R with another key than that of its root", "add the root"},
		{"a leaf issued it", newPair(t, leaf, "c").cert, []*pair{leaf}, []*pair{old}, "chain-invalid", "a has issued c and is no authority (basic constraints)", "from an authority"},
		{"may not sign", newPair(t, mute, "c").cert, nil, []*pair{mute}, "chain-invalid", "R has issued c and may not sign certificates (key usage)", "from an authority"},
		{"forged", broken, nil, []*pair{old}, "chain-invalid", "the signature of a is not by the key of R", "sound chain"},
		{"issuer expired", newPair(t, late, "a").cert, []*pair{late}, []*pair{old}, "chain-invalid", "expired", "sound chain"},
		{"old algorithm", newPair(t, old, "b", signedWith(x509.ECDSAWithSHA1)).cert, nil, []*pair{old}, "chain-invalid", "b is signed with ECDSA-SHA1, which clients do not verify any more", "SHA-256"},
	} {
		s := audit.Subject{Cert: seen(c.leaf), Chain: seenAll(c.chain), Bundle: seenAll(c.bundle)}
		state, text, remedy := verdictOf(t, s)
		if !strings.HasPrefix(state, "CRIT "+c.check) || !strings.Contains(text, c.says) || !strings.Contains(remedy, c.remedy) {
			t.Errorf("%s: %s: %q (%q), want %s %q (%q)", c.name, state, text, remedy, c.check, c.says, c.remedy)
		}
	}
	// The right issuer beside a wrong one is enough.
	for _, bundle := range [][]*pair{{old, made, mute}, {mute, made, old}} {
		if state, text, _ := verdictOf(t, audit.Subject{Cert: seen(leaf.cert), Chain: seenAll([]*pair{made}), Bundle: seenAll(bundle)}); state != "OK" {
			t.Errorf("with the right one: %s %s", state, text)
		}
	}
}

// A leaf that issued another one in its file is no missing intermediate.
func TestLeafAsIssuerInFile(t *testing.T) {
	root := newPair(t, nil, "R", authority)
	leaf := newPair(t, root, "a")
	dir := write(t, map[string][]byte{"ca.crt": encode(root), "tls.crt": encode(newPair(t, leaf, "c"), leaf), "x/alone.crt": encode(newPair(t, leaf, "d"))})
	r := run(t, paths(dir))
	want(t, states(t, r, dir), map[string]string{"ca.crt": "OK", "tls.crt": "CRIT chain-invalid", "tls.crt#2": "OK", "x/alone.crt": "CRIT chain-incomplete"})
	var b strings.Builder
	must(t, r.render("table", &b, 0))
	if says := "a has issued c and is no authority (basic constraints)"; !strings.Contains(b.String(), says) {
		t.Errorf("no %q in\n%s", says, b.String())
	}
	b.Reset()
	must(t, r.render("text", &b, 0))
	for _, says := range []string{"└ a, which is here and does not verify it\n", "└ a, not here\n"} {
		if !strings.Contains(b.String(), says) {
			t.Errorf("no %q in\n%s", says, b.String())
		}
	}
}

// Usages go down the whole path (RFC 5280 §4.2.1.12, as all peers apply it).
func TestUsagesOfIssuers(t *testing.T) {
	const server, client, anything = x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageAny
	root := newPair(t, nil, "Test Root", authority)
	issuers := map[string]*pair{}
	for name, list := range map[string][]x509.ExtKeyUsage{
		"neither": {x509.ExtKeyUsageEmailProtection}, "server": {server}, "client": {client}, "both": {server, client}, "any": {anything}, "open": nil,
	} {
		issuers[name] = newPair(t, root, "I", authority, func(c *x509.Certificate) { c.ExtKeyUsage = list })
	}
	const refused, warned, ok = "CRIT chain-invalid", "WARN chain-invalid", "OK"
	for _, c := range []struct {
		name   string
		usages []x509.ExtKeyUsage
		kind   string
		want   map[string]string
	}{
		{"both", []x509.ExtKeyUsage{server, client}, "file", map[string]string{"neither": refused, "server": refused, "client": refused, "both": ok, "any": warned, "open": ok}},
		{"server", []x509.ExtKeyUsage{server}, "file", map[string]string{"neither": refused, "server": ok, "client": refused, "both": ok, "any": warned, "open": ok}},
		{"client", []x509.ExtKeyUsage{client}, "file", map[string]string{"neither": refused, "server": refused, "client": ok, "both": ok, "any": warned, "open": ok}},
		{"open", nil, "file", map[string]string{"neither": refused, "server": warned, "client": warned, "both": ok, "any": warned, "open": ok}},
		{"mail", []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}, "file", map[string]string{"neither": "WARN wrong-usage", "server": "WARN wrong-usage", "open": "WARN wrong-usage"}},
		{"both at a server", []x509.ExtKeyUsage{server, client}, "endpoint", map[string]string{"neither": refused, "server": ok, "client": refused, "both": ok}},
	} {
		for by, want := range c.want {
			leaf := newPair(t, issuers[by], "svc", func(tpl *x509.Certificate) { tpl.ExtKeyUsage = c.usages })
			state, text, _ := verdictOf(t, audit.Subject{Kind: c.kind, Cert: seen(leaf.cert), Chain: seenAll([]*pair{issuers[by]}), Bundle: seenAll([]*pair{root})})
			if state != want {
				t.Errorf("%s under %s: %s %q, want %s", c.name, by, state, text, want)
			}
		}
	}
}

// Somebody has the key of a root, or of an intermediate: what it signs and the
// record does not know is critical, wherever it is.
func TestIssuersOfTheRecord(t *testing.T) {
	root := newPair(t, nil, "Record Root", authority)
	intermediate, retired := newPair(t, root, "Intermediate", authority), newPair(t, root, "Retired", authority)
	rogue := newPair(t, root, "Rogue", authority)
	lower := newPair(t, rogue, "Lower Rogue", authority)
	foreign := newPair(t, nil, "Foreign Root", authority)
	pretender := newPair(t, nil, "Record Root", authority)
	known := newPair(t, intermediate, "known", lives(2*time.Hour, Day))
	looked := static{
		on("file", "/known", known), on("file", "/root", root), on("file", "/intermediate", intermediate), on("file", "/retired", retired),
		on("file", "/rogue", rogue), on("file", "/foreign", foreign), on("file", "/pretender", pretender),
		on("file", "/under-rogue", newPair(t, rogue, "a", lives(0, Day))), on("file", "/rogue-leaf", newPair(t, intermediate, "b", lives(2*time.Hour, Day))),
		on("file", "/under-foreign", newPair(t, foreign, "c")), on("file", "/late", newPair(t, intermediate, "d", lives(time.Second, Day))),
	}
	deep := on("endpoint", "deep:1", newPair(t, lower, "deep"))
	deep.Chain = append(deep.Chain, seen(rogue.cert))
	looked = append(looked, deep)
	all := map[string]string{
		"file /rogue not-recorded":         "crit: Record Root signed it, and its record does not know it",
		"file /pretender not-recorded":     "warn: it says that Record Root issued it, which has not signed it",
		"file /under-rogue not-recorded":   "crit: Rogue, which Record Root signed and its record does not know, is above it",
		"endpoint deep:1 not-recorded":     "crit: Rogue, which Record Root signed and its record does not know, is above it",
		"file /rogue-leaf not-recorded":    "crit: Intermediate signed it, and its record does not know it",
		"file /under-foreign not-recorded": "info: another authority than the record's issued it: Foreign Root",
	}
	record := recorded(nil, issued{"known", "1", known, false})
	record.Roots, record.Issuers = bundleOf([]*pair{root}), bundleOf([]*pair{intermediate, retired})
	r := run(t, looked, record)
	want(t, findings(r, "not-recorded"), all)
	if r.Unjudged != 0 {
		t.Errorf("%d chains were not judged, although the record has roots", r.Unjudged)
	}
	// A record without certificates knows its authorities all the same.
	record.List = recorded(nil).List
	all["file /known not-recorded"] = "crit: Intermediate signed it, and its record does not know it"
	want(t, findings(run(t, looked, record), "not-recorded"), all)
}

// The roots of a record judge what has no bundle of its own; they do not stand in
// for one that was given or lies there.
func TestRootsOfTheRecord(t *testing.T) {
	root, other := newPair(t, nil, "Record Root", authority), newPair(t, nil, "Other Root", authority)
	ours, theirs := newPair(t, root, "localhost"), newPair(t, other, "localhost")
	dir := write(t, map[string][]byte{"ours/tls.crt": encode(ours), "theirs/tls.crt": encode(theirs), "own/tls.crt": encode(theirs), "own/ca.crt": encode(other)})
	address := serve(t, &tls.Config{Certificates: []tls.Certificate{theirs.tls()}, MinVersion: tls.VersionTLS13})
	record := recorded(nil)
	record.Roots = bundleOf([]*pair{root})
	r, err := judged(t.Context(), audit.Config{Sources: []audit.Source{source.Targets{Names: []string{dir, address}, Timeout: patience}, record}, Disable: []string{"not-recorded", "same-key"}})
	must(t, err)
	got := states(t, r, dir)
	want(t, got, map[string]string{"ours/tls.crt": "OK", "theirs/tls.crt": "CRIT chain-incomplete", "own/tls.crt": "OK", "own/ca.crt": "OK", address: "CRIT chain-incomplete"})
	if r.Unjudged != 0 {
		t.Errorf("%d chains were not judged", r.Unjudged)
	}
}

// A chain ends with what ends first in it.
func TestChainEnds(t *testing.T) {
	root := newPair(t, nil, "Test Root", authority)
	issuer := func(left time.Duration) *pair {
		i := *newPair(t, root, "I", authority, lives(Day, Day+left))
		return &i
	}
	short := issuer(50 * Day)
	longer := newPair(t, root, "I", authority, lives(Day, 500*Day), holds(short.key.Public()), func(c *x509.Certificate) { c.SubjectKeyId = short.cert.SubjectKeyId })
	for _, c := range []struct {
		name  string
		left  time.Duration
		chain []*pair
		at    time.Duration
		want  string
	}{
		{"after", 300 * Day, []*pair{short}, 0, "warn: its chain ends in 49d with I, 250d before it does itself"},
		{"with", 50 * Day, []*pair{short}, 0, ""},
		{"before", 40 * Day, []*pair{short}, 0, ""},
		{"soon", 300 * Day, []*pair{short}, 46 * Day, "crit: its chain ends in 3d23h with I, 250d before it does itself"},
		{"the later of two counts", 300 * Day, []*pair{short, longer}, 0, ""},
	} {
		leaf := newPair(t, short, "svc", lives(Day, Day+c.left))
		s := audit.Subject{Kind: "file", Place: "x", Cert: seen(leaf.cert), Chain: seenAll(c.chain), Bundle: seenAll([]*pair{root})}
		r, err := judged(t.Context(), audit.Config{Sources: []audit.Source{static{s}}, Now: func() time.Time { return time.Now().Add(c.at) }})
		must(t, err)
		if got := findings(r, "chain-ends")["file x chain-ends"]; got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// All that an authority has issued must be issued again before it ends.
func TestAuthoritiesWarnInTime(t *testing.T) {
	for _, c := range []struct {
		name       string
		life, left time.Duration
		below      time.Duration // life of a leaf
		want       string
	}{
		{"time enough", 3650 * Day, 400 * Day, 0, "OK"},
		{"a tenth", 3650 * Day, 300 * Day, 0, "WARN expiring"},
		{"leaves live longer than it", 3650 * Day, 800 * Day, 825 * Day, "WARN expiring"},
		{"leaves live shorter than it", 3650 * Day, 900 * Day, 825 * Day, "OK"},
		{"leaves live as long as it", 3650 * Day, 3649 * Day, 3650 * Day, "OK"},
		{"soon", 3650 * Day, 5 * Day, 0, "CRIT expiring"},
	} {
		root := newPair(t, nil, "Test Root", authority, lives(c.life-c.left, c.life))
		rows := static{{Kind: "file", Place: "root", Cert: seen(root.cert)}}
		if c.below > 0 {
			rows = append(rows, audit.Subject{Kind: "file", Place: "leaf", Cert: seen(newPair(t, root, "svc", lives(Day, c.below)).cert)})
		}
		if got := states(t, run(t, rows), "")["root"]; got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// State, severity, numbers and exit status of a row say the same, for every check at
// every severity.
func TestStateAndSeverityAgree(t *testing.T) {
	root := newPair(t, nil, "Test Root", authority)
	leaf := newPair(t, root, "svc")
	for _, c := range audit.Checks() {
		for severity := audit.Info; severity <= c.Severity; severity++ {
			row := audit.RowWith(audit.Subject{Kind: "file", Place: "x", Cert: seen(leaf.cert)}, c.Check, severity)
			var sum audit.Summary
			audit.CountRow(&sum, row)
			findings, _ := sum.Count(audit.Warn)
			crit, _ := sum.Count(audit.Crit)
			switch bad := row.State != "OK"; {
			case row.Severity() != severity:
				t.Errorf("%s at %s: %s", c.Check, severity, row.Severity())
			case bad != (severity >= audit.Warn), bad != (findings == 1), (severity == audit.Crit) != (crit == 1):
				t.Errorf("%s at %s: %s, %d findings, %d critical", c.Check, severity, row.State, findings, crit)
			case severity == audit.Warn && c.Severity == audit.Crit && row.State != "WARN":
				t.Errorf("%s as a warning: %s", c.Check, row.State)
			}
		}
	}
}
