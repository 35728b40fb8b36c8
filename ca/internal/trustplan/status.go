package trustplan

import (
	"crypto/x509"
	"slices"

	"github.com/artstore/artstore-pki/ca/internal/trust"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// Status returns in which stages the roots of a document are, and who of a fleet is not ready for
// the next. find has the certificates of the document by fingerprint.
func Status(d *trust.Document, find map[string]*x509.Certificate, fleet trust.Fleet) stepapi.TrustStatus {
	p := &Plan{Find: find}
	out := stepapi.TrustStatus{Version: d.Version, Digest: d.Digest(), Holders: fleet.Size(), Unreported: fleet.Unreported()}
	for _, fp := range d.Roots {
		row := stepapi.RootStatus{
			Fingerprint: fp, Subject: find[fp].Subject.CommonName, Stage: d.Stage(fp), Since: d.Since[fp], NotAfter: find[fp].NotAfter,
			Without: fleet.Without(fp), Users: fleet.Users(p.under(d, fp)),
		}
		if row.Stage == stepapi.StageStaged {
			row.Services = d.Staged.Services
		}
		row.Trusting = fleet.Size() - len(row.Without)
		out.Roots = append(out.Roots, row)
	}
	for i, fp := range d.Intermediates {
		c := find[fp]
		out.Intermediates = append(out.Intermediates, stepapi.IntermediateState{
			Fingerprint: fp, Subject: c.Subject.CommonName, Root: p.rootOf(fp), Issues: i == 0, NotAfter: c.NotAfter,
			Revoked: d.Revoked[fp], Users: len(fleet.Users([]*x509.Certificate{c})),
		})
	}
	return out
}

// ByFingerprint returns certificates by their fingerprints.
func ByFingerprint(lists ...[]*x509.Certificate) map[string]*x509.Certificate {
	out := map[string]*x509.Certificate{}
	for _, c := range slices.Concat(lists...) {
		out[certs.Fingerprint(c)] = c
	}
	return out
}
