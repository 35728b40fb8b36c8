package trustplan

import (
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/crl"
	"github.com/artstore/artstore-pki/ca/internal/trust"
	"github.com/artstore/artstore-pki/ca/internal/validity"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// CutOffError refuses a step that would cut off services. Nothing was changed.
type CutOffError struct {
	// Step is the step in words, such as "activating root 0123456789abcdef".
	Step string
	// Holders would be cut off. TrustChange.Accept can name each of them.
	Holders []stepapi.Holder
}

func (e *CutOffError) Error() string {
	return e.Step + " would cut off " + stepapi.ServicesOf(e.Holders)
}

// StepError refuses a step that makes no sense now, whatever the services have adopted.
// Nothing was changed.
type StepError struct{ Err error }

func (e *StepError) Error() string { return e.Err.Error() }

func (e *StepError) Unwrap() error { return e.Err }

// Plan is a step that was found possible, before it is decided and taken. See [Before.Plan].
type Plan struct {
	change stepapi.TrustChange
	// Doc is the next version. It is not signed.
	Doc *trust.Document
	// Text is the step in words, for errors, log and record.
	Text string
	// cutOff returns who would be cut off; nil if nobody can be.
	cutOff func(trust.Fleet) []stepapi.Holder
	// fresh are CA certificates that were made for the step. Their keys are in memory only.
	fresh []cacert.Issuer
	// lists are roots whose list is signed anew, with the document's revocations.
	lists []cacert.Issuer
	// given is the list of a root in lists without a key: its holder has signed it.
	given *crl.List
	// signed has one for each of lists, see [Plan.Write].
	signed []*crl.List
	// Find has all certificates of the document before the step, and fresh, by fingerprint.
	Find map[string]*x509.Certificate
	// Retires are intermediates, by subject key id, that were found to have no unexpired leaf.
	Retires []string
}

// check refuses a document that nobody could read, and a step after which a certificate that
// has ended would sign.
func (p *Plan) check(before *trust.Document, now time.Time) error {
	signs := []string{p.Doc.Intermediates[0]}
	if s := p.Doc.Staged; s != nil && len(s.Services) > 0 {
		signs = append(signs, s.Intermediate)
	}
	for _, fp := range signs {
		if fp == before.Intermediates[0] { // no step may be refused because of what was before it
			continue
		}
		for _, c := range []*x509.Certificate{p.Find[fp], p.Find[p.rootOf(fp)]} {
			if c != nil && !now.Before(c.NotAfter) {
				return fmt.Errorf("%s: %q, which would sign, ended at %s", p.Text, c.Subject.CommonName, validity.Stamp(c.NotAfter))
			}
		}
	}
	if err := p.Doc.Check(); err != nil {
		return fmt.Errorf("%s: %w", p.Text, err)
	}
	return nil
}

// use adds a certificate that was made for the step.
func (p *Plan) use(i cacert.Issuer) {
	p.fresh = append(p.fresh, i)
	p.Find[certs.Fingerprint(i.Cert)] = i.Cert
}

// rootOf is a [trust.Lineage].
func (p *Plan) rootOf(intermediate string) string {
	c := p.Find[intermediate]
	if c == nil {
		return ""
	}
	return p.rootIssued(c)
}

// rootIssued returns the root that has signed an intermediate, "" if none that is known has.
func (p *Plan) rootIssued(c *x509.Certificate) string {
	for fp, root := range p.Find {
		if !root.Equal(c) && cacert.IsRoot(root) && c.CheckSignatureFrom(root) == nil {
			return fp
		}
	}
	return ""
}

// under returns the intermediates of a document that a root has signed.
func (p *Plan) under(d *trust.Document, root string) (out []*x509.Certificate) {
	for _, fp := range d.Intermediates {
		if p.rootOf(fp) == root {
			out = append(out, p.Find[fp])
		}
	}
	return out
}

// Detail is the step in words, with those who were accepted to be cut off.
func (p *Plan) Detail() string {
	if len(p.change.Accept) == 0 {
		return p.Text
	}
	return p.Text + "; accepted to cut off " + strings.Join(p.change.Accept, ", ")
}

// Decide returns a [CutOffError] if the step would cut off holders that the operator has not
// accepted, and a [StepError] if it is not clear whom he has accepted.
func (p *Plan) Decide(fleet trust.Fleet) error {
	if p.cutOff == nil {
		return nil
	}
	left, err := fleet.NotAccepted(p.cutOff(fleet), p.change.Accept)
	switch {
	case err != nil:
		return &StepError{fmt.Errorf("%s: %w", p.Text, err)}
	case len(left) > 0:
		return &CutOffError{p.Text, left}
	}
	return nil
}

// orStaged returns the named root, or the staged one if none is named.
func orStaged(d *trust.Document, named string) string {
	if named == "" && d.Staged != nil {
		return d.Staged.Root
	}
	return named
}

// short is a fingerprint as it is printed in sentences.
func short(fingerprint string) string { return fingerprint[:min(len(fingerprint), 16)] }
