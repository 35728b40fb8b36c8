package ca

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/crl"
	"github.com/artstore/artstore-pki/httpserver"
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

// listPace is how long a client may take for each 64 KiB of a list. Lists grow to
// megabytes, so no deadline for the whole answer fits them all.
const listPace = 30 * time.Second

// revokedAnswer is the answer of GET /revoked for lists that have not changed since.
type revokedAnswer struct {
	tag  string
	body []byte
}

// getRevoked answers what every peer needs to refuse revoked certificates by
// itself: the list of each intermediate whose leaves may still be valid. It is as
// fresh as the commit of the last revocation. With If-None-Match an unchanged
// answer costs a few bytes, so that a fleet may ask often.
func (a *Authority) getRevoked(w http.ResponseWriter, r *http.Request) error {
	st := a.state.Load()
	all, lists := sha256.New(), make([]*crl.List, len(st.intermediates))
	for i, c := range st.intermediates {
		var err error
		if lists[i], err = a.currentCRL(r.Context(), st, c, true); err != nil {
			return err
		}
		_, _ = all.Write(c.Raw) // a hash does not fail
		sum := lists[i].Sum()
		_, _ = all.Write(sum[:])
	}
	tag := `"` + hex.EncodeToString(all.Sum(nil)[:16]) + `"`
	w.Header().Set("ETag", tag)
	if matches(r.Header.Get("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	known := a.revoked.Load()
	if known == nil || known.tag != tag {
		var err error
		if known, err = encodeRevoked(tag, st.intermediates, lists); err != nil {
			return err
		}
		a.revoked.Store(known)
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = httpserver.Paced(w, listPace).Write(known.body) // the client may have gone
	return nil
}

func encodeRevoked(tag string, issuers []*x509.Certificate, lists []*crl.List) (*revokedAnswer, error) {
	resp := stepapi.RevokedResponse{Lists: make([]stepapi.RevokedList, len(lists))}
	for i, l := range lists {
		resp.Lists[i] = stepapi.RevokedList{Issuer: pemOf(issuers[i]), CRL: string(l.PEM())}
	}
	body, err := json.Marshal(resp)
	return &revokedAnswer{tag, body}, err
}

// matches implements If-None-Match (RFC 9110 §13.1.2) by the weak comparison that it asks for.
func matches(header, tag string) bool {
	for candidate := range strings.SplitSeq(header, ",") {
		candidate = strings.TrimSpace(candidate)
		if candidate == "*" || strings.TrimPrefix(candidate, "W/") == tag {
			return true
		}
	}
	return false
}
