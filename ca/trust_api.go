package ca

import (
	"crypto/x509"
	"net/http"

	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// The lists come from our state, not from the embedded authority: a client that
// has seen a new root in one answer must not miss it in the next.

func (a *Authority) getRoots(w http.ResponseWriter, r *http.Request) {
	a.recordTrustReport(r)
	// 201 is what step-ca answers, and clients check.
	writeJSON(w, http.StatusCreated, stepapi.RootsResponse{Certificates: pemsOf(a.state.Load().roots)})
}

func (a *Authority) getRootsPEM(w http.ResponseWriter, _ *http.Request) {
	answerPEM(w, a.state.Load().roots)
}

func (a *Authority) getIntermediates(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusCreated, stepapi.RootsResponse{Certificates: pemsOf(a.state.Load().intermediates)})
}

func (a *Authority) getIntermediatesPEM(w http.ResponseWriter, _ *http.Request) {
	answerPEM(w, a.state.Load().intermediates)
}

func answerPEM(w http.ResponseWriter, certs []*x509.Certificate) {
	w.Header().Set("Content-Type", "application/x-pem-file")
	_, _ = w.Write(pemfile.EncodeCertificates(certs)) // the client may have gone
}

// recordTrustReport records the bundle in effect also for a peer that only refreshes its
// trust: a rotation then need not wait for the next renewal of that peer.
func (a *Authority) recordTrustReport(r *http.Request) {
	digest := reportedTrust(r)
	if digest == "" {
		return
	}
	_, entry, err := a.verifyPeer(r.Context(), r.TLS)
	if err != nil {
		return // an unauthenticated report counts for no lineage
	}
	if err := a.record.ReportTrust(r.Context(), entry.Lineage, digest); err != nil {
		a.logger.WarnContext(r.Context(), "trust report not recorded", "service", entry.Service, "err", err)
	}
}

func pemOf(c *x509.Certificate) string {
	return string(pemfile.EncodeCertificates([]*x509.Certificate{c}))
}

func pemsOf(certs []*x509.Certificate) []string {
	out := make([]string, 0, len(certs))
	for _, c := range certs {
		out = append(out, pemOf(c))
	}
	return out
}
