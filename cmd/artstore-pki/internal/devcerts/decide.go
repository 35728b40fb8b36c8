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

// itemAction is what is to be done about one certificate, and then what was done.
type itemAction string

// The first three are decisions, the others outcomes. They are words of the output.
const (
	toKeep    itemAction = "keep"
	toMake    itemAction = "make"
	toReplace itemAction = "replace"
	wasKept   itemAction = "kept"
	wasMade   itemAction = "made"
	replaced  itemAction = "replaced"
	failed    itemAction = "failed"
)

// due reports whether there is something to make.
func (v itemAction) due() bool { return v == toMake || v == toReplace }

// certificate is one directory with a certificate in it.
type certificate struct {
	service string // its profile
	fixture string // devExpired or devNotYetValid; "" for what services use
	dir     string
	profile policy.Profile
	action  itemAction
	reasons []string
	until   time.Time // end of the certificate; zero for one that is not there
	err     error
}

// why is a cell of the table; a dash for a certificate that is as it should be.
func (i *certificate) why() string {
	if len(i.reasons) == 0 {
		return "-"
	}
	return strings.Join(i.reasons, "; ")
}

// authorityFacts is what the state directory says without opening the authority.
type authorityFacts struct {
	config policy.Config
	roots  []*x509.Certificate
	issuer *x509.Certificate // the intermediate that signs now
}

// readAuthority reads the copies that the authority keeps for others; should a
// crash have left them old, they still describe certificates that are good.
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

// decisionInput is what a decision is made against.
type decisionInput struct {
	now     time.Time
	facts   authorityFacts
	differs []string // how the certificate differs from its profile
}

// empty reports whether a directory has none of the three files.
func empty(in enroll.Inspection) bool { return len(in.Missing) == len(identityFiles) }

// usable reports whether a directory has all three files, each in good form.
func usable(in enroll.Inspection) bool { return in.Err == nil && len(in.Missing) == 0 }

// decide says what to do about a certificate, and every reason why it cannot
// stay. It is pure: what it needs to know was looked at before.
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

// issuedBy: the intermediate of today, sent along in the chain, signed by a root of today.
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

// sameCertificates compares whole certificates, in their order: a bundle that was
// put together anew counts as changed.
func sameCertificates(a, b []*x509.Certificate) bool {
	return bytes.Equal(pemfile.EncodeCertificates(a), pemfile.EncodeCertificates(b))
}

// checkDates returns why the dates will not do: a fixture must stay outside of its
// life, anything else needs more than a third of it.
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
