package devcerts

import (
	"bytes"
	"crypto/x509"
	"path/filepath"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/credentials"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// itemAction is what a run will do with one certificate, and later what it has done.
type itemAction string

// The first three are decisions, the others outcomes. The output prints these words.
const (
	toKeep    itemAction = "keep"
	toMake    itemAction = "make"
	toReplace itemAction = "replace"
	wasKept   itemAction = "kept"
	wasMade   itemAction = "made"
	replaced  itemAction = "replaced"
	failed    itemAction = "failed"
)

// due reports whether a certificate must be made.
func (v itemAction) due() bool { return v == toMake || v == toReplace }

// certificate is one directory with a certificate in it.
type certificate struct {
	service string // the name of profile
	fixture string // Expired or NotYetValid; "" for a certificate of a service
	dir     string
	profile policy.Profile
	action  itemAction
	reasons []string  // why it is replaced
	until   time.Time // end of the certificate; zero for one that is not there
	err     error     // with the action failed
}

// why returns the reasons as a cell of the table, "-" if there are none.
func (i *certificate) why() string {
	if len(i.reasons) == 0 {
		return "-"
	}
	return strings.Join(i.reasons, "; ")
}

// authorityFacts are read from the state directory without opening the authority.
type authorityFacts struct {
	config policy.Config
	roots  []*x509.Certificate
	issuer *x509.Certificate // the intermediate that signs now
}

// readAuthority reads configuration, roots and intermediate from their files in the state
// directory. The authority writes the certificates there for programs that do not open it. After
// a crash they can be older than the record; the certificates that they name are good all the same.
func readAuthority(dir string) (a authorityFacts, err error) {
	if a.config, err = policy.Load(dir); err != nil {
		return a, err
	}
	if a.roots, err = credentials.ReadChain(filepath.Join(dir, "certs", "root_ca.crt")); err != nil {
		return a, err
	}
	issuers, err := credentials.ReadChain(filepath.Join(dir, "certs", "intermediate_ca.crt"))
	if err != nil {
		return a, err
	}
	a.issuer = issuers[0]
	return a, nil
}

// identityFiles are the files that a service reads its identity from.
var identityFiles = [...]string{"tls.crt", "tls.key", "ca.crt"}

// decisionInput is what a certificate is compared with.
type decisionInput struct {
	now     time.Time
	facts   authorityFacts
	differs []string // how the certificate differs from its profile
}

// empty reports whether a directory has none of the three files.
func empty(in enroll.Inspection) bool { return len(in.Missing) == len(identityFiles) }

// usable reports whether a directory has all three files, each in good form.
func usable(in enroll.Inspection) bool { return in.Err == nil && len(in.Missing) == 0 }

// decide returns what to do with a certificate, and every reason why it cannot stay. It is a pure
// function: in is what was found in the directory, m what the certificate should be.
func decide(item *certificate, in enroll.Inspection, m decisionInput) (itemAction, []string) {
	switch {
	case empty(in):
		return toMake, nil
	case len(in.Missing) > 0:
		return toReplace, []string{strings.Join(in.Missing, " and ") + " missing"}
	case in.Err != nil:
		return toReplace, []string{"not readable: " + in.Err.Error()}
	}
	var why []string
	add := func(is bool, reason string) {
		if is {
			why = append(why, reason)
		}
	}
	add(!in.KeyFits, "key does not fit")
	add(in.KeyExposed, "key was readable by others")
	add(in.Unfinished, "enrolment was cut off")
	add(!issuedBy(in.Chain, m.facts), "issuer changed")
	add(!sameCertificates(in.Roots, m.facts.roots), "trust bundle changed")
	why = append(why, m.differs...)
	reason := checkDates(item.fixture, in.Chain[0], m.now)
	add(reason != "", reason)
	if len(why) > 0 {
		return toReplace, why
	}
	return toKeep, nil
}

// issuedBy reports whether chain is a leaf and the intermediate that signs now, with good signatures
// up to a root of the present trust bundle. A leaf of an older intermediate would still be
// accepted, and is replaced so that all certificates of the directory have one issuer.
func issuedBy(chain []*x509.Certificate, facts authorityFacts) bool {
	if len(chain) < 2 || !chain[1].Equal(facts.issuer) || chain[0].CheckSignatureFrom(chain[1]) != nil {
		return false
	}
	for _, root := range facts.roots {
		if chain[1].CheckSignatureFrom(root) == nil {
			return true
		}
	}
	return false
}

// sameCertificates reports whether two bundles have the same certificates in the same order.
func sameCertificates(a, b []*x509.Certificate) bool {
	return bytes.Equal(pemfile.EncodeCertificates(a), pemfile.EncodeCertificates(b))
}

// checkDates returns why the certificate must be replaced because of its dates, or "". A certificate
// of a service needs more than a third of its life. An expired fixture must be expired, and one
// that is not yet valid must not become so within a day, so that a test run stays on one side.
func checkDates(fixture string, leaf *x509.Certificate, now time.Time) string {
	before, over := now.Before(leaf.NotBefore), !now.Before(leaf.NotAfter)
	switch {
	case fixture == Expired && over, fixture == NotYetValid && now.Add(humantime.Day).Before(leaf.NotBefore):
		return ""
	case fixture == Expired:
		return "not expired"
	case fixture == NotYetValid:
		return "valid within a day"
	case before:
		return "not valid yet"
	case over:
		return "expired"
	case 3*leaf.NotAfter.Sub(now) <= leaf.NotAfter.Sub(leaf.NotBefore):
		return "a third of its life is left"
	}
	return ""
}
