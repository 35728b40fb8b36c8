package audit

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/audit/cert"
)

// maxLinks bounds the signature checks that look for the reason of a failure. crypto/x509
// has the same bound for a verification.
const maxLinks = 100

const (
	remedyOtherKey  = "compare the key identifiers: either an authority was made again under the same name, and this was issued before that, or somebody else uses its name"
	remedyOtherRoot = "add the root of that key to the trust bundle, or issue it again from the root that the bundle has"
	remedyAlgorithm = "issue it again, signed with SHA-256"
	remedyNoIssuer  = "issue it again from an authority: clients accept nothing that another certificate has signed"
	remedyTooLong   = "issue it again from an authority with an ordinary key"
)

// explainFailure returns the ruling for an error of [x509.Certificate.Verify]. The error
// itself often does not name the certificate that is at fault.
func (s *Subject) explainFailure(err error, moment, now time.Time) ruling {
	bad, invalid := errors.AsType[x509.CertificateInvalidError](err)
	// If the moment was moved, an issuer may be out of date then and fine now.
	if invalid && bad.Reason == x509.Expired && !moment.Equal(now) {
		return ruling{verdict: chainFine}
	}
	if why := s.brokenAt(moment); why.verdict != 0 {
		return why
	}
	return ruling{verdict: chainInvalid, severity: Crit, text: "the chain does not verify: " + err.Error()}
}

// brokenAt follows the issuers of the leaf, and rules on the first certificate without a
// good issuer. It returns the zero ruling if the issuers lead to the bundle: then the path
// breaks a rule for whole paths, or a date, and the error of crypto/x509 says which.
func (s *Subject) brokenAt(moment time.Time) ruling {
	c, steps := s.Cert, maxLinks
	for {
		in := func(list []*cert.Certificate) bool { return c.In(list) }
		if in(s.Bundle) {
			return ruling{}
		}
		if c.SelfSigned() {
			return s.strangeRoot(c)
		}
		l := linkUp(c, slices.Concat(s.Bundle, s.Chain), &steps)
		if l.next == nil || l.why.verdict != 0 {
			return s.missingLink(l, c)
		}
		if moment.After(l.next.NotAfter) || moment.Before(l.next.NotBefore) || steps <= 0 {
			return ruling{}
		}
		c = l.next
	}
}

// strangeRoot rules on a chain that ends at a root which the bundle does not have.
func (s *Subject) strangeRoot(root *cert.Certificate) ruling {
	r := ruling{verdict: chainUntrusted, severity: Crit, text: "its root " + root.Name + " is not in the trust bundle"}
	if i := slices.IndexFunc(s.Bundle, func(o *cert.Certificate) bool { return bytes.Equal(o.RawSubject, root.RawSubject) }); i >= 0 {
		r.remedy = remedyOtherRoot
		r.text = "the trust bundle has " + root.Name + " with another key than that of its root"
		if bytes.Equal(s.Bundle[i].PublicKeyInfo, root.PublicKeyInfo) {
			r.text = "the trust bundle has " + root.Name + " as another certificate of the same key, which does not verify it"
		}
	}
	if root.Fingerprint == s.Cert.Fingerprint {
		r.text, r.remedy = "it has signed itself, and is not in the trust bundle", remedySelfSigned
	}
	return r
}

// link is a step from a certificate to its issuer, or why there is none.
type link struct {
	next  *cert.Certificate
	why   ruling
	named *cert.Certificate // has the name of the issuer and another key
}

// linkUp looks for the certificate that issued c, and returns the best link that it finds.
// It takes a step for each certificate with the name of the issuer.
func linkUp(c *cert.Certificate, among []*cert.Certificate, steps *int) (l link) {
	for _, i := range among {
		if !bytes.Equal(c.RawIssuer, i.RawSubject) || i.Fingerprint == c.Fingerprint || i.X509() == nil {
			continue
		}
		if *steps--; *steps < 0 {
			break
		}
		found := linkTo(c, i)
		if found.next != nil && found.why.verdict == 0 {
			return found
		}
		if l.why.verdict == 0 {
			l = found
		}
	}
	return l
}

// linkTo returns the link from c to i, which has the name of the issuer of c. The link has
// no ruling if i has issued c, and no next if the signature is by another key.
func linkTo(c, i *cert.Certificate) link {
	wrong := func(remedy, format string, args ...any) link {
		return link{i, ruling{verdict: chainInvalid, severity: Crit, text: fmt.Sprintf(format, args...), remedy: remedy}, nil}
	}
	if i.Key.Oversized() {
		return wrong(remedyTooLong, "the chain was not verified: the key of %s is too long (%s)", i.Name, i.Key)
	}
	child, parent := c.X509(), i.X509()
	err := child.CheckSignatureFrom(parent)
	_, old := errors.AsType[x509.InsecureAlgorithmError](err)
	_, mayNot := errors.AsType[x509.ConstraintViolationError](err)
	switch {
	case err == nil:
		return link{next: i}
	case old:
		return wrong(remedyAlgorithm, "%s is signed with %s, which clients do not verify any more", c.Name, c.SignatureAlgorithm)
	case errors.Is(err, x509.ErrUnsupportedAlgorithm) && !mayNot:
		return wrong("", "%s is signed with an algorithm that is not verified here (%s)", c.Name, c.SignatureAlgorithm)
	case parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature) != nil:
		return link{named: i}
	case i.IsCA:
		return wrong(remedyNoIssuer, "%s has issued %s and may not sign certificates (key usage)", i.Name, c.Name)
	}
	return wrong(remedyNoIssuer, "%s has issued %s and is no authority (basic constraints)", i.Name, c.Name)
}

// missingLink returns the ruling on a chain in which c has no good issuer.
func (s *Subject) missingLink(l link, c *cert.Certificate) ruling {
	if l.why.verdict != 0 {
		return l.why
	}
	r := ruling{verdict: chainIncomplete, severity: Crit}
	if l.named == nil {
		r.text = "chain incomplete: " + c.IssuerName + " is neither with it nor in the trust bundle"
		return r
	}
	where := "beside it"
	r.remedy = remedyOtherKey
	if l.named.In(s.Bundle) {
		r.verdict, where, r.remedy = chainUntrusted, "in the trust bundle", remedyOtherRoot
	}
	r.text = fmt.Sprintf("%s is %s with another key than the one that signed %s", c.IssuerName, where, c.Name)
	signer, there := c.X509().AuthorityKeyId, l.named.X509().SubjectKeyId
	switch {
	case len(signer) == 0 || len(there) == 0:
	case bytes.Equal(signer, there):
		r.verdict, r.remedy = chainInvalid, ""
		r.text = fmt.Sprintf("the signature of %s is not by the key of %s, whose key identifier it names", c.Name, c.IssuerName)
	default:
		r.text += fmt.Sprintf(" (key identifiers %s and %s)", shortHex(there), shortHex(signer))
	}
	return r
}

// shortHex returns the first eight octets in hex, enough for people to compare.
func shortHex(b []byte) string { return hex.EncodeToString(b[:min(len(b), 8)]) }
