package audit_test

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/source"
)

// selfMade makes a certificate as openssl req -x509 does: it is self-signed and has cA
// TRUE.
func selfMade(c *x509.Certificate) {
	c.IsCA, c.ExtKeyUsage, c.DNSNames, c.IPAddresses = true, nil, nil, nil
}

func isAuthority(c *x509.Certificate) { c.IsCA = true }

// The first certificate of a server, and a certificate beside its own key, are verified in
// each place, whatever their basic constraints say.
func TestEveryoneIsVerified(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageDigitalSignature })
	intermediate := certtest.New(t, root, "Test Intermediate", certtest.Authority, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageDigitalSignature })
	for _, c := range []struct {
		name           string
		p              *certtest.Pair
		chain          []*certtest.Pair
		judged, alone  string // with a bundle and without one
		served, seenIn string // the same of a server
	}{
		{"self-signed, authority", certtest.New(t, nil, "localhost", selfMade), nil, "CRIT untrusted", "CRIT untrusted", "CRIT untrusted", "CRIT untrusted"},
		{"self-signed, leaf", certtest.New(t, nil, "localhost"), nil, "CRIT untrusted", "CRIT untrusted", "CRIT untrusted", "CRIT untrusted"},
		{"intermediate", intermediate, nil, "OK", "OK", "CRIT name-mismatch", "CRIT name-mismatch"},
		{"foreign intermediate", certtest.New(t, certtest.New(t, nil, "Other Root", certtest.Authority), "localhost", isAuthority), nil, "CRIT chain-incomplete", "WARN wrong-usage", "CRIT chain-incomplete", "WARN wrong-usage"},
		{"root of the bundle", root, nil, "OK", "OK", "CRIT name-mismatch", "CRIT untrusted"},
		{"leaf", certtest.New(t, intermediate, "localhost"), []*certtest.Pair{intermediate}, "OK", "OK", "OK", "OK"},
	} {
		for _, trusts := range []bool{true, false} {
			files, endpoint := c.judged, c.served
			targets := source.Targets{Timeout: audittest.Patience}
			if trusts {
				targets.Bundle = certtest.Bundle([]*certtest.Pair{root})
			} else {
				files, endpoint = c.alone, c.seenIn
			}
			dir := certtest.Write(t, map[string][]byte{"w.pem": certtest.Encode(append([]*certtest.Pair{c.p}, c.chain...)...), "w.key": c.p.KeyPEM(t)})
			address := audittest.Serve(t, &tls.Config{Certificates: []tls.Certificate{c.p.TLS(c.chain...)}, MinVersion: tls.VersionTLS13})
			targets.Names = []string{dir, address}
			r := audittest.Run(t, targets)
			first := func(place string) string {
				for _, row := range r.Rows {
					if strings.HasSuffix(row.Place, place) && row.Cert.X509().Equal(c.p.Cert) {
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

// A CA certificate beside its own key is judged as that of an authority if it has neither
// names nor usages of a service, and as a leaf otherwise.
func TestAuthorityAtHome(t *testing.T) {
	names := func(c *x509.Certificate) { c.DNSNames = []string{"kubernetes"} }
	anyUse := func(c *x509.Certificate) { c.KeyUsage = 0 }
	both := func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment }
	forServers := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	for _, c := range []struct {
		what, subject, file string
		specs               []certtest.Spec
		want                string
	}{
		{"may sign certificates only", "x", "x", nil, "OK"},
		{"and lists servers as a usage", "x", "x", []certtest.Spec{forServers}, "OK"},
		{"may sign anything", "x", "x", []certtest.Spec{both}, "OK"},
		{"openssl req -x509, by its file", "x", "ca", []certtest.Spec{anyUse}, "OK"},
		{"by its file in other letters", "x", "my-RootCA", []certtest.Spec{anyUse}, "OK"},
		{"by its subject", "Acme Root CA", "acme", []certtest.Spec{anyUse}, "OK"},
		{"of kubeadm", "kubernetes", "ca", []certtest.Spec{both, names}, "OK"},
		{"openssl req -x509 for a server", "localhost", "server", []certtest.Spec{anyUse}, "CRIT untrusted no-san wrong-usage long-lived"},
		{"a server in a file with ca in a word", "localhost", "cache", []certtest.Spec{anyUse}, "CRIT untrusted no-san wrong-usage long-lived"},
		{"the name of a host", "localhost", "x", []certtest.Spec{names}, "CRIT untrusted wrong-usage long-lived"},
		{"for servers", "x", "x", []certtest.Spec{both, forServers}, "CRIT untrusted no-san wrong-usage long-lived"},
	} {
		p := certtest.New(t, nil, c.subject, append([]certtest.Spec{certtest.Authority}, c.specs...)...)
		dir := certtest.Write(t, map[string][]byte{c.file + ".pem": certtest.Encode(p), c.file + ".key": p.KeyPEM(t)})
		if got := audittest.States(t, audittest.Run(t, audittest.Paths(dir)), dir)[c.file+".pem"]; got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

// An authority beside its own key must be trusted by the bundle beside it. Otherwise peers
// refuse the certificates that it issues.
func TestStrangeAuthorityAtHome(t *testing.T) {
	root, mid, _ := certtest.Hierarchy(t)
	stranger := certtest.New(t, nil, "Stranger", certtest.Authority)
	below := certtest.New(t, stranger, "Below", certtest.Authority)
	old := certtest.New(t, root, "Old", certtest.Authority, certtest.Dates(time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)))
	files := map[string][]byte{"ca.crt": certtest.Encode(root), "without-key.crt": certtest.Encode(stranger)}
	for name, p := range map[string]*certtest.Pair{"mid": mid, "root": root, "stranger": stranger, "below": below, "old": old} {
		files[name+".crt"], files[name+".key"] = certtest.Encode(p), p.KeyPEM(t)
	}
	dir := certtest.Write(t, files)
	audittest.Want(t, audittest.States(t, audittest.Run(t, audittest.Paths(dir)), dir), map[string]string{
		"ca.crt": "OK", "mid.crt": "OK", "root.crt": "OK", "without-key.crt": "OK",
		"stranger.crt": "WARN untrusted", "below.crt": "WARN chain-incomplete", "old.crt": "EXPIRED expired",
	})
}

// verdictOf returns the state and the checks of a subject, and the text and the remedy of
// the first finding.
func verdictOf(t *testing.T, s audit.Subject) (state, text, remedy string) {
	t.Helper()
	s.Place = "x"
	r := audittest.Run(t, audittest.Static{s})
	if f := r.Rows[0].Findings; len(f) > 0 {
		text, remedy = f[0].Text, f[0].Remedy
	}
	return audittest.States(t, r, "")["x"], text, remedy
}

// Each fault of a chain has a text and a remedy of its own.
func TestBrokenChains(t *testing.T) {
	old, made := certtest.New(t, nil, "R", certtest.Authority), certtest.New(t, nil, "R", certtest.Authority)
	leaf := certtest.New(t, old, "a")
	mute := certtest.New(t, nil, "R", certtest.Authority, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })
	forged := *leaf.Cert
	forged.Raw = append([]byte{}, forged.Raw...)
	forged.Raw[len(forged.Raw)-1] ^= 1
	broken, err := x509.ParseCertificate(forged.Raw)
	certtest.Must(t, err)
	late := certtest.New(t, old, "Late", certtest.Authority, certtest.Lives(2*certtest.Day, certtest.Day))
	for _, c := range []struct {
		name          string
		leaf          *x509.Certificate
		chain, bundle []*certtest.Pair
		check         string
		says, remedy  string
	}{
		{"absent", certtest.New(t, certtest.New(t, old, "I", certtest.Authority), "a").Cert, nil, []*certtest.Pair{old}, "chain-incomplete", "I is neither with it nor in the trust bundle", "append the missing"},
		{"another key in the bundle", leaf.Cert, nil, []*certtest.Pair{made}, "untrusted", "R is in the trust bundle with another key than the one that signed a (key identifiers ", "add the root"},
		{"another key beside it", leaf.Cert, []*certtest.Pair{made}, []*certtest.Pair{certtest.New(t, nil, "Other", certtest.Authority)}, "chain-incomplete", "R is beside it with another key", "compare the key identifiers"},
		{"the root came along", leaf.Cert, []*certtest.Pair{old}, []*certtest.Pair{made}, "untrusted", "the trust bundle has R with another key than that of its root", "add the root"},
		{"a leaf issued it", certtest.New(t, leaf, "c").Cert, []*certtest.Pair{leaf}, []*certtest.Pair{old}, "chain-invalid", "a has issued c and is no authority (basic constraints)", "from an authority"},
		{"may not sign", certtest.New(t, mute, "c").Cert, nil, []*certtest.Pair{mute}, "chain-invalid", "R has issued c and may not sign certificates (key usage)", "from an authority"},
		{"forged", broken, nil, []*certtest.Pair{old}, "chain-invalid", "the signature of a is not by the key of R", "sound chain"},
		{"issuer expired", certtest.New(t, late, "a").Cert, []*certtest.Pair{late}, []*certtest.Pair{old}, "chain-invalid", "expired", "sound chain"},
		{"old algorithm", certtest.New(t, old, "b", signedWith(x509.ECDSAWithSHA1)).Cert, nil, []*certtest.Pair{old}, "chain-invalid", "b is signed with ECDSA-SHA1, which clients do not verify any more", "SHA-256"},
	} {
		s := audit.Subject{Cert: certtest.Seen(c.leaf), Chain: certtest.SeenAll(c.chain), Bundle: certtest.SeenAll(c.bundle)}
		state, text, remedy := verdictOf(t, s)
		if !strings.HasPrefix(state, "CRIT "+c.check) || !strings.Contains(text, c.says) || !strings.Contains(remedy, c.remedy) {
			t.Errorf("%s: %s: %q (%q), want %s %q (%q)", c.name, state, text, remedy, c.check, c.says, c.remedy)
		}
	}
	// The right issuer beside a wrong one is enough.
	for _, bundle := range [][]*certtest.Pair{{old, made, mute}, {mute, made, old}} {
		if state, text, _ := verdictOf(t, audit.Subject{Cert: certtest.Seen(leaf.Cert), Chain: certtest.SeenAll([]*certtest.Pair{made}), Bundle: certtest.SeenAll(bundle)}); state != "OK" {
			t.Errorf("with the right one: %s %s", state, text)
		}
	}
}

// A leaf that has issued another certificate of its file is not reported as a missing
// intermediate.
func TestLeafAsIssuerInFile(t *testing.T) {
	root := certtest.New(t, nil, "R", certtest.Authority)
	leaf := certtest.New(t, root, "a")
	dir := certtest.Write(t, map[string][]byte{"ca.crt": certtest.Encode(root), "tls.crt": certtest.Encode(certtest.New(t, leaf, "c"), leaf), "x/alone.crt": certtest.Encode(certtest.New(t, leaf, "d"))})
	r := audittest.Run(t, audittest.Paths(dir))
	audittest.Want(t, audittest.States(t, r, dir), map[string]string{"ca.crt": "OK", "tls.crt": "CRIT chain-invalid", "tls.crt#2": "OK", "x/alone.crt": "CRIT chain-incomplete"})
	var b strings.Builder
	certtest.Must(t, r.Render("table", &b, 0))
	if says := "a has issued c and is no authority (basic constraints)"; !strings.Contains(b.String(), says) {
		t.Errorf("no %q in\n%s", says, b.String())
	}
	b.Reset()
	certtest.Must(t, r.Render("text", &b, 0))
	for _, says := range []string{"└ a, which is here and does not verify it\n", "└ a, not here\n"} {
		if !strings.Contains(b.String(), says) {
			t.Errorf("no %q in\n%s", says, b.String())
		}
	}
}

// Each issuer of a path must permit the usage (RFC 5280 §4.2.1.12, as all peers apply it).
func TestUsagesOfIssuers(t *testing.T) {
	const server, client, anything = x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageAny
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	issuers := map[string]*certtest.Pair{}
	for name, list := range map[string][]x509.ExtKeyUsage{
		"neither": {x509.ExtKeyUsageEmailProtection}, "server": {server}, "client": {client}, "both": {server, client}, "any": {anything}, "open": nil,
	} {
		issuers[name] = certtest.New(t, root, "I", certtest.Authority, func(c *x509.Certificate) { c.ExtKeyUsage = list })
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
			leaf := certtest.New(t, issuers[by], "svc", func(tpl *x509.Certificate) { tpl.ExtKeyUsage = c.usages })
			state, text, _ := verdictOf(t, audit.Subject{Kind: c.kind, Cert: certtest.Seen(leaf.Cert), Chain: certtest.SeenAll([]*certtest.Pair{issuers[by]}), Bundle: certtest.SeenAll([]*certtest.Pair{root})})
			if state != want {
				t.Errorf("%s under %s: %s %q, want %s", c.name, by, state, text, want)
			}
		}
	}
}

// A certificate that a root or an intermediate of the record has signed, and that is not
// in the record, is critical wherever it is: somebody else has the key.
func TestIssuersOfTheRecord(t *testing.T) {
	root := certtest.New(t, nil, "Record Root", certtest.Authority)
	intermediate, retired := certtest.New(t, root, "Intermediate", certtest.Authority), certtest.New(t, root, "Retired", certtest.Authority)
	rogue := certtest.New(t, root, "Rogue", certtest.Authority)
	lower := certtest.New(t, rogue, "Lower Rogue", certtest.Authority)
	foreign := certtest.New(t, nil, "Foreign Root", certtest.Authority)
	pretender := certtest.New(t, nil, "Record Root", certtest.Authority)
	known := certtest.New(t, intermediate, "known", certtest.Lives(2*time.Hour, certtest.Day))
	looked := audittest.Static{
		on("file", "/known", known), on("file", "/root", root), on("file", "/intermediate", intermediate), on("file", "/retired", retired),
		on("file", "/rogue", rogue), on("file", "/foreign", foreign), on("file", "/pretender", pretender),
		on("file", "/under-rogue", certtest.New(t, rogue, "a", certtest.Lives(0, certtest.Day))), on("file", "/rogue-leaf", certtest.New(t, intermediate, "b", certtest.Lives(2*time.Hour, certtest.Day))),
		on("file", "/under-foreign", certtest.New(t, foreign, "c")), on("file", "/late", certtest.New(t, intermediate, "d", certtest.Lives(time.Second, certtest.Day))),
	}
	deep := on("endpoint", "deep:1", certtest.New(t, lower, "deep"))
	deep.Chain = append(deep.Chain, certtest.Seen(rogue.Cert))
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
	record.Roots, record.Issuers = certtest.Bundle([]*certtest.Pair{root}), certtest.Bundle([]*certtest.Pair{intermediate, retired})
	r := audittest.Run(t, looked, record)
	audittest.Want(t, findings(r, "not-recorded"), all)
	if r.Unjudged != 0 {
		t.Errorf("%d chains were not judged, although the record has roots", r.Unjudged)
	}
	// A record without certificates knows its authorities all the same.
	record.List = recorded(nil).List
	all["file /known not-recorded"] = "crit: Intermediate signed it, and its record does not know it"
	audittest.Want(t, findings(audittest.Run(t, looked, record), "not-recorded"), all)
}

// The roots of a record judge chains without a bundle. They do not replace a bundle that
// was given or found.
func TestRootsOfTheRecord(t *testing.T) {
	root, other := certtest.New(t, nil, "Record Root", certtest.Authority), certtest.New(t, nil, "Other Root", certtest.Authority)
	ours, theirs := certtest.New(t, root, "localhost"), certtest.New(t, other, "localhost")
	dir := certtest.Write(t, map[string][]byte{"ours/tls.crt": certtest.Encode(ours), "theirs/tls.crt": certtest.Encode(theirs), "own/tls.crt": certtest.Encode(theirs), "own/ca.crt": certtest.Encode(other)})
	address := audittest.Serve(t, &tls.Config{Certificates: []tls.Certificate{theirs.TLS()}, MinVersion: tls.VersionTLS13})
	record := recorded(nil)
	record.Roots = certtest.Bundle([]*certtest.Pair{root})
	r, err := audittest.Judge(t.Context(), audit.Config{Sources: []audit.Source{source.Targets{Names: []string{dir, address}, Timeout: audittest.Patience}, record}, Disable: []string{"not-recorded", "same-key"}})
	certtest.Must(t, err)
	got := audittest.States(t, r, dir)
	audittest.Want(t, got, map[string]string{"ours/tls.crt": "OK", "theirs/tls.crt": "CRIT chain-incomplete", "own/tls.crt": "OK", "own/ca.crt": "OK", address: "CRIT chain-incomplete"})
	if r.Unjudged != 0 {
		t.Errorf("%d chains were not judged", r.Unjudged)
	}
}

// A chain ends with the certificate that ends first.
func TestChainEnds(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	issuer := func(left time.Duration) *certtest.Pair {
		i := *certtest.New(t, root, "I", certtest.Authority, certtest.Lives(certtest.Day, certtest.Day+left))
		return &i
	}
	short := issuer(50 * certtest.Day)
	longer := certtest.New(t, root, "I", certtest.Authority, certtest.Lives(certtest.Day, 500*certtest.Day), certtest.Holds(short.Key.Public()), func(c *x509.Certificate) { c.SubjectKeyId = short.Cert.SubjectKeyId })
	for _, c := range []struct {
		name  string
		left  time.Duration
		chain []*certtest.Pair
		at    time.Duration
		want  string
	}{
		{"after", 300 * certtest.Day, []*certtest.Pair{short}, 0, "warn: its chain ends in 49d with I, 250d before it does itself"},
		{"with", 50 * certtest.Day, []*certtest.Pair{short}, 0, ""},
		{"before", 40 * certtest.Day, []*certtest.Pair{short}, 0, ""},
		{"soon", 300 * certtest.Day, []*certtest.Pair{short}, 46 * certtest.Day, "crit: its chain ends in 3d23h with I, 250d before it does itself"},
		{"the later of two counts", 300 * certtest.Day, []*certtest.Pair{short, longer}, 0, ""},
	} {
		leaf := certtest.New(t, short, "svc", certtest.Lives(certtest.Day, certtest.Day+c.left))
		s := audit.Subject{Kind: "file", Place: "x", Cert: certtest.Seen(leaf.Cert), Chain: certtest.SeenAll(c.chain), Bundle: certtest.SeenAll([]*certtest.Pair{root})}
		r, err := audittest.Judge(t.Context(), audit.Config{Sources: []audit.Source{audittest.Static{s}}, Now: func() time.Time { return time.Now().Add(c.at) }})
		certtest.Must(t, err)
		if got := findings(r, "chain-ends")["file x chain-ends"]; got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// An authority is reported early, because all its certificates must be issued again before
// it ends.
func TestAuthoritiesWarnInTime(t *testing.T) {
	for _, c := range []struct {
		name       string
		life, left time.Duration
		below      time.Duration // life of a leaf
		want       string
	}{
		{"time enough", 3650 * certtest.Day, 400 * certtest.Day, 0, "OK"},
		{"a tenth", 3650 * certtest.Day, 300 * certtest.Day, 0, "WARN expiring"},
		{"leaves live longer than it", 3650 * certtest.Day, 800 * certtest.Day, 825 * certtest.Day, "WARN expiring"},
		{"leaves live shorter than it", 3650 * certtest.Day, 900 * certtest.Day, 825 * certtest.Day, "OK"},
		{"leaves live as long as it", 3650 * certtest.Day, 3649 * certtest.Day, 3650 * certtest.Day, "OK"},
		{"soon", 3650 * certtest.Day, 5 * certtest.Day, 0, "CRIT expiring"},
	} {
		root := certtest.New(t, nil, "Test Root", certtest.Authority, certtest.Lives(c.life-c.left, c.life))
		rows := audittest.Static{{Kind: "file", Place: "root", Cert: certtest.Seen(root.Cert)}}
		if c.below > 0 {
			rows = append(rows, audit.Subject{Kind: "file", Place: "leaf", Cert: certtest.Seen(certtest.New(t, root, "svc", certtest.Lives(certtest.Day, c.below)).Cert)})
		}
		if got := audittest.States(t, audittest.Run(t, rows), "")["root"]; got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// State, severity, numbers and exit status of a row agree, for each check at each
// severity.
func TestStateAndSeverityAgree(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	leaf := certtest.New(t, root, "svc")
	for _, c := range audit.Checks() {
		for severity := audit.Info; severity <= c.Severity; severity++ {
			row := audit.RowWith(audit.Subject{Kind: "file", Place: "x", Cert: certtest.Seen(leaf.Cert)}, c.Check, severity)
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
