package audit

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/humantime"
)

// flaw is a finding about a document. It is dropped later if its check does not run.
type flaw struct {
	check    string
	severity Severity
	text     string
}

// flawsOf returns the flaws that were found when the document was read, and those of the key
// and the signature of a request.
func flawsOf(d *cert.Document) (out []flaw) {
	for _, f := range d.Flaws {
		if i := checkIndex(f.Check); i >= 0 {
			out = append(out, flaw{f.Check, checks[i].worst, f.Text})
		}
	}
	if d.Key == (cert.KeyKind{}) {
		return out
	}
	like := &Subject{Cert: &cert.Certificate{Key: d.Key, SignatureAlgorithm: d.Signature, RawSubject: []byte{0}}} // another subject than issuer
	for _, judged := range []struct {
		check string
		judge func(*Subject, criteria) (Severity, string)
	}{{"weak-key", weakKey}, {"weak-signature", weakSignature}} {
		if severity, text := judged.judge(like, criteria{}); severity != severityOK {
			out = append(out, flaw{judged.check, severity, text})
		}
	}
	return out
}

// documentFindings judges a document. The findings have the ids, remedies and citations of
// the table of checks, and its order.
func documentFindings(s *Subject, table []check, now time.Time, more ...flaw) (found []Finding) {
	d := s.Document
	flaws := slices.Concat(flawsOf(d), more)
	if d.List != nil {
		by, broken := verifyListSignature(d.List, slices.Concat(s.Chain, s.Bundle))
		d.Details = append(d.Details, by)
		if broken != nil {
			flaws = append(flaws, *broken)
		}
	}
	if d.What == cert.RevocationList {
		flaws = append(flaws, listFlaws(d, now)...)
	} else if !d.Until.IsZero() && !now.Before(d.Until) {
		flaws = append(flaws, flaw{"expired", Crit, "over since " + humantime.Short(humantime.Between(d.Until, now))})
	}
	if now.Before(d.From) {
		flaws = append(flaws, flaw{"not-yet-valid", Crit, "not valid for another " + humantime.Short(humantime.Between(now, d.From))})
	}
	for i := range table {
		for _, f := range flaws {
			if f.check == table[i].id {
				found = append(found, table[i].finding(f.severity, f.text))
			}
		}
	}
	return found
}

// listFlaws judges the dates of a list. A list that is out of date is worse than none, because
// nginx and PostgreSQL then refuse each certificate of its issuer.
func listFlaws(d *cert.Document, now time.Time) []flaw {
	switch {
	case d.Until.IsZero():
		return []flaw{{"crl-expired", Warn, "it does not say when the next one comes, as it must (RFC 5280 section 5.1.2.5)"}}
	case !now.Before(d.Until):
		return []flaw{{"crl-expired", Crit, "out of date for " + humantime.Short(humantime.Between(d.Until, now))}}
	case 3*humantime.Between(d.From, now) > 2*humantime.Between(d.From, d.Until):
		return []flaw{{"crl-expiring", Warn, "two thirds of the time to the next one are over, " + humantime.Short(humantime.Between(now, d.Until)) + " are left"}}
	}
	return nil
}

// verifyListSignature verifies the signature of a list with the certificates that have the
// name of its issuer (RFC 5280 §6.3.3). It returns a line about the issuer, and a flaw or
// nil.
func verifyListSignature(l *x509.RevocationList, among []*cert.Certificate) (cert.Detail, *flaw) {
	const label = "issuer"
	named := false
	for _, c := range among {
		if !bytes.Equal(c.RawSubject, l.RawIssuer) || c.X509() == nil {
			continue
		}
		named = true
		if c.Key.Oversized() {
			return cert.Detail{Label: label, Text: c.Name}, &flaw{"weak-key", Crit, "its signature was not judged: the key of its issuer is too long (" + c.Key.String() + ")"}
		}
		if c.X509().CheckSignature(l.SignatureAlgorithm, l.RawTBSRevocationList, l.Signature) != nil {
			continue // an authority may have changed its key and kept its name
		}
		if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCRLSign == 0 {
			return cert.Detail{Label: label, Text: c.Name}, &flaw{"wrong-usage", Crit, "its issuer's certificate may not sign revocation lists (RFC 5280 section 6.3.3)"}
		}
		return cert.Detail{Label: label, Text: c.Name + ", whose signature is genuine"}, nil
	}
	if named {
		return cert.Detail{Label: label, Text: "a certificate with its name is here"},
			&flaw{"bad-signature", Crit, "its signature is not by the certificate with its issuer's name"}
	}
	return cert.Detail{Label: label, Text: "not here, so that the signature was not judged"},
		&flaw{"crl-no-issuer", Info, "the certificate of its issuer was not found, so that its signature was not judged and no certificate is compared with it"}
}

// hasNamed reports whether the name of a file is the fingerprint of a certificate that was
// found. Package ca names the files of its keys so.
func hasNamed(c classByID, path string) bool {
	base := filepath.Base(path)
	sum, err := hex.DecodeString(strings.TrimSuffix(base, filepath.Ext(base)))
	return err == nil && len(sum) == sha256.Size && c[cert.ID(sum)] != 0
}

// placeLoneKey judges a key without a certificate in its file, when all certificates are
// known. The key is not shown if it was judged with a certificate, or if it fits one and
// nobody else may read it, unless it was named on the command line. An encrypted key whose
// file is named by the fingerprint of a certificate is taken for the key of that.
func placeLoneKey(row *Row, seen *inventory, found classByID) (flaws []flaw, shown bool) {
	owner, fits := seen.owner(row.Key.Public)
	fits = fits && !row.Key.Opaque
	belongs := fits || row.Key.Locked && hasNamed(found, row.Key.Path)
	switch {
	case seen.paired[row.Key.Path] && !row.Key.Named:
		return nil, false
	case belongs && row.Key.Exposed() == "" && !row.Key.Named:
		return nil, false
	case fits:
		row.Key.Fits = true
		row.Document.Add("fits", "%s in %s", owner.name, owner.place)
	case !row.Key.Opaque:
		row.Document.Add("fits", "no certificate that was found")
	default:
		row.Document.Add("fits", "unknown: %s", row.Key.WhyOpaque())
		flaws = append(flaws, flaw{"key-not-compared", Info, row.Key.WhyOpaque() + ", so that nothing says whether it fits a certificate"})
	}
	if text := row.Key.Exposed(); text != "" {
		flaws = append(flaws, flaw{"key-readable", exposedSeverity(fits && owner.isCA), "others may use it: " + text})
	}
	return flaws, true
}
