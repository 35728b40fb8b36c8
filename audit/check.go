package audit

import (
	"cmp"
	"slices"
	"strings"
)

// checks are in the order in which a row lists its findings. The first of the worst
// findings decides the state of the row. Dates come first, because they say when the
// service breaks; then faults that break it now, then weak keys and algorithms.
var checks = []check{
	{"never-valid", "", Crit, "RFC 5280 section 4.1.2.5", "issue it again: its dates are the wrong way round", neverValid, nil},
	{"expired", "EXPIRED", Crit, "RFC 5280 section 4.1.2.5", "replace it: every peer refuses it", expired, nil},
	{"not-yet-valid", "NOT-YET", Crit, "RFC 5280 section 4.1.2.5", "compare the clocks of this machine and of the issuer", notYetValid, nil},
	{"renewal-overdue", "OVERDUE", Crit, "docs/architecture.md, Renewal", "is the program that renews it running, and does it reach the authority?", overdue, nil},
	{"revoked", "REVOKED", Crit, "RFC 5280 section 5", "issue it again for a new key: who asks for revocation refuses it", nil, revoked},
	{"expiring", "", Crit, "docs/architecture.md, Renewal", "renew it", expiring, authorityExpiring},
	{"renewer-stopped", "", Warn, "docs/architecture.md, Renewal", "is the program that renews it running? it was more eager before", nil, renewerStopped},
	{"replaced", "", Warn, "docs/architecture.md, Renewal", "have the server read its files again, and look why it did not", nil, checkReplaced},
	{"not-seen", "", Warn, "docs/audit-report.md, Drift", "look for it where it belongs, or revoke it: does its owner have it?", nil, notSeen},
	{"not-recorded", "", Crit, "docs/audit-report.md, Drift", "find out who signed it: without a record it cannot be revoked by name", nil, notRecorded},
	{"key-mismatch", "", Crit, "RFC 9846 section 4.5.2", "put back the key and the certificate of one issue", keyMismatch, nil},
	{"key-readable", "", Crit, "docs/threat-model.md, A service's key", "chmod 600, and a new key if others may have read it", keyReadable, nil},
	{"key-not-compared", "", Info, "RFC 5958 section 3", "decrypt it elsewhere and compare its public half with the certificate's", keyNotCompared, nil},
	{"chain-incomplete", "", Crit, "RFC 9846 section 4.5.1", "append the missing intermediate behind the leaf", chainCheck(chainIncomplete), nil},
	{"untrusted", "", Crit, "RFC 5280 section 6.1", "is this the right trust bundle, or the certificate of another authority?", chainCheck(chainUntrusted), nil},
	{"chain-invalid", "", Crit, "RFC 5280 section 6.1", "issue it again from a sound chain", chainCheck(chainInvalid), nil},
	{"chain-order", "", Crit, "RFC 9846 section 4.5.1", "put the leaf first and behind each certificate its issuer: not every peer sorts", chainOrder, nil},
	{"not-interoperable", "", Crit, "docs/audit-report.md, OpenSSL", "issue it again without what OpenSSL refuses", notInteroperable, nil},
	{"odd-file", "", Crit, "RFC 7468, docs/audit-report.md, Odd files", "write it as PEM: artstore-pki inspect -o pem FILE", oddFile, nil},
	{"chain-ends", "", Crit, "RFC 5280 section 6.1", "renew what ends first, and issue this again below it", chainEnds, nil},
	{"name-mismatch", "", Crit, "RFC 9525 section 6", "issue it with the name that clients use, as a subject alternative name", nameMismatch, nil},
	{"no-san", "", Warn, "RFC 9525 section 6", "issue it with its names as subject alternative names", noNames, nil},
	{"odd-name", "", Warn, "RFC 5280 section 4.2.1.6, RFC 9525 section 6.3", "issue it again: an address as an address, a wildcard as the whole first label", oddName, nil},
	{"wrong-usage", "", Crit, "RFC 5280 sections 4.2.1.3 and 4.2.1.12", "issue it with the profile of what it is used for", wrongUsage, nil},
	{"weak-key", "", Crit, "NIST SP 800-57 part 1 section 5.6, CA/B BR section 6.1.5", "issue it for a new key: ECDSA P-256, or RSA of 2048 bits and more", weakKey, nil},
	{"weak-signature", "", Crit, "RFC 9155, CA/B BR section 7.1.3.2", "issue it again, signed with SHA-256", weakSignature, nil},
	{"long-lived", "", Warn, "support.apple.com/103769, CA/B BR section 6.3.2, --max-lifetime", "issue it for a shorter time, and have a program renew it", longLived, nil},
	{"bad-signature", "", Crit, "RFC 2986 section 4.2, RFC 5280 section 6.3.3", "do not trust it: have it made again by whoever holds the key", nil, nil}, // of documents; see there
	{"crl-expired", "EXPIRED", Crit, "RFC 5280 sections 5.1.2.5 and 6.3.3", "have its issuer make a new one, and look why nothing fetched it: who checks revocation refuses all certificates of this issuer", nil, nil},
	{"crl-expiring", "", Warn, "RFC 5280 section 5.1.2.5", "fetch the next list: is the program that does it running?", nil, nil},
	{"crl-no-issuer", "", Info, "RFC 5280 section 6.3.3", "put the certificate of its issuer beside it, or name it in the trust bundle", nil, nil},
	{"crl-unused", "", Warn, "RFC 5280 section 6.3.3", "fetch the list of their issuer: who checks revocation with this one refuses them, or lets them pass", nil, nil},
	{"crl-missing", "", Warn, "RFC 5280 section 6.3.3", "name the list of its issuer too: who checks revocation refuses it without one", nil, uncovered},
	{"same-key", "", Warn, "docs/threat-model.md, A service's key", "give each service a key of its own: who has one is all of them", nil, sharedKeys},
	{"same-serial", "", Crit, "RFC 5280 section 4.1.2.2", "find out how the authority chooses serial numbers, and issue one of the two again: who revokes one revokes both", nil, sameSerial},
	{"tls-version", "", Warn, "RFC 8996, NIST SP 800-52 revision 2 section 3.1", "turn on TLS 1.3 on the server, and turn off TLS 1.0 and 1.1", oldProtocol, nil},
	{"key-exchange", "", Info, "FIPS 203, RFC 10024", "let the server take X25519MLKEM768: what is recorded today may be read when quantum computers come", keyExchangeOld, nil},
	{"not-judged", "", Info, "docs/audit-report.md, Chains", "name the trust bundle: --ca-cert, --record, or a ca.crt beside it", notJudged, nil},
}

// ofDates are the checks that need only dates. They judge a certificate that crypto/x509
// refuses, of which the rest is not reliable.
var ofDates = []string{"never-valid", "expired", "not-yet-valid", "renewal-overdue", "expiring"}

// Checks returns each check as a finding of its worst severity, without a text.
func Checks() (out []Finding) {
	for _, c := range checks {
		out = append(out, Finding{Check: c.id, Severity: c.worst, Remedy: c.remedy, Cites: c.cites})
	}
	return out
}

// checkIndex returns the index of a check in the table, or -1.
func checkIndex(id string) int {
	return slices.IndexFunc(checks, func(c check) bool { return c.id == id })
}

// runChecks runs the checks that look at one subject, and returns the findings in the order
// of the table.
func runChecks(s *Subject, table []check, at criteria) (found []Finding) {
	for i := range table {
		c := &table[i]
		if c.judge == nil || !s.parsed() && !slices.Contains(ofDates, c.id) {
			continue
		}
		s.remedy = ""
		if severity, text := c.judge(s, at); severity != severityOK {
			f := c.finding(severity, text)
			f.Remedy = cmp.Or(s.remedy, f.Remedy)
			found = append(found, f)
		}
	}
	return found
}

// stateWord returns the state of a row with these findings: "OK" if none is worse than
// [Info], else the word of the first of the worst findings.
func stateWord(found []Finding) string {
	word, worst := "OK", severityOK
	for _, f := range found {
		if f.Severity > max(worst, Info) {
			worst = f.Severity
			word = strings.ToUpper(worst.String())
			if f.of.word != "" && worst == f.of.worst { // "EXPIRED" is too strong a word for a warning
				word = f.of.word
			}
		}
	}
	return word
}

// crossChecks are the checks that compare rows, with their memory. They run on one
// goroutine.
type crossChecks struct {
	table  []check
	seen   *inventory
	judges []func(*Row) (Severity, string) // one for each check; nil for one that looks at single subjects
}

// newCrossChecks starts the memory of each check that compares rows.
func newCrossChecks(table []check, v *inventory) *crossChecks {
	j := &crossChecks{table, v, make([]func(*Row) (Severity, string), len(table))}
	for i, c := range table {
		if c.join != nil {
			j.judges[i] = c.join(v)
		}
	}
	return j
}

// add remembers a row, and inserts what the checks find about it among its findings, in the
// order of the table.
func (j *crossChecks) add(r *Row) {
	j.seen.addKeys(r)
	j.seen.addListUses(r)
	j.seen.addFound(r)
	for i, judge := range j.judges {
		if judge == nil {
			continue
		}
		severity, text := judge(r)
		if severity == severityOK {
			continue
		}
		order := func(f Finding) int { return slices.IndexFunc(j.table, func(c check) bool { return c.id == f.Check }) }
		at := 0
		for at < len(r.Findings) && order(r.Findings[at]) < i {
			at++
		}
		r.Findings = slices.Insert(r.Findings, at, j.table[i].finding(severity, text))
	}
}
