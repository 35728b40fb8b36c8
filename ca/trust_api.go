package ca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/crl"
	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// Roots and intermediates come from the current state and not from the embedded authority,
// so that all routes change at the same moment: a client that has seen a new root in one
// answer sees it in the next.

// getRoots answers GET /roots with the trust bundle.
func (a *Authority) getRoots(w http.ResponseWriter, r *http.Request) {
	a.recordTrustReport(r)
	// step-ca answers 201, and its clients check that.
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

// recordTrustReport records which bundle a client has in effect, if it says so. A client
// that refreshes its trust reports it between two renewals, so that a rotation of the root
// need not wait for its next renewal. Without a client certificate nothing is recorded.
func (a *Authority) recordTrustReport(r *http.Request) {
	report := reportOf(r)
	if report.Digest == "" {
		return
	}
	_, entry, err := a.verifyPeer(r.Context(), r.TLS)
	if err != nil {
		return // an unauthenticated report counts for no lineage
	}
	report = reportedUntilRenewal(report, entry)
	if report.Reporter != "" {
		report.Due = report.At.Add(refreshReport)
	}
	if err := a.reportTrust(r.Context(), entry, report); err != nil {
		a.logger.WarnContext(r.Context(), "trust report not recorded", "service", entry.Service, "err", err)
	}
}

const (
	// watchReport is how long after a request to wait the next one is expected: it is held for
	// five minutes, and a client whose network fails pauses for up to five.
	watchReport = 15 * time.Minute
	// refreshReport is how long after a refresh of the bundle the next one is expected. Clients
	// refresh it once an hour, and say each time which process they are.
	refreshReport = 2 * time.Hour
)

var (
	digestForm   = regexp.MustCompile(`^[0-9a-f]{64}$`)
	reporterForm = regexp.MustCompile(`^[0-9A-Za-z_-]{1,64}$`)
)

// reportOf returns which trust bundle a client says to have in effect, and which of its
// processes says so. Digest is empty if it says none, or something else than a digest.
func reportOf(r *http.Request) (report record.TrustReport) {
	if d := r.Header.Get(stepapi.HeaderTrustDigest); digestForm.MatchString(d) {
		report.Digest = d
	}
	if name := r.Header.Get(stepapi.HeaderReporter); reporterForm.MatchString(name) {
		report.Reporter = name
	}
	return report
}

// reportedUntilRenewal completes a report of a client that is perhaps a command: it says
// nothing more before the renewal of c is due.
func reportedUntilRenewal(report record.TrustReport, c record.Certificate) record.TrustReport {
	report.At = time.Now()
	report.Due, _ = lifetime.RenewalWindow(c.NotBefore, c.NotAfter)
	return report
}

// reportTrust records a report of a client that has shown a certificate.
func (a *Authority) reportTrust(ctx context.Context, shown record.Certificate, report record.TrustReport) error {
	report.Lineage, report.Serial = shown.Lineage, shown.Serial
	return a.record.ReportTrust(ctx, report)
}

// getTrust answers GET /trust: the stages of the roots, and who is not ready for the next.
func (a *Authority) getTrust(w http.ResponseWriter, r *http.Request) error {
	if _, err := a.authorizePeer(r, actTrust); err != nil {
		return err
	}
	status, err := a.TrustStatus(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, status)
	return nil
}

// postTrust answers POST /trust, one step. A step that is refused is a 409: with the holders
// that it would cut off, or with the reason why it makes no sense now.
func (a *Authority) postTrust(w http.ResponseWriter, r *http.Request) error {
	c, err := a.authorizePeer(r, actTrust)
	if err != nil {
		return err
	}
	var change stepapi.TrustChange
	if err := readOrder(r, &change); err != nil {
		return err
	}
	status, err := a.ChangeTrust(r.Context(), c.name, change)
	cut, wouldCut := errors.AsType[*CutOffError](err)
	step, senseless := errors.AsType[*StepError](err)
	switch {
	case wouldCut:
		a.metrics.refused.WithLabelValues(string(denial.Adopted)).Inc()
		writeJSON(w, http.StatusConflict, stepapi.TrustRefusal{Status: http.StatusConflict, Message: cut.Error(), Holders: cut.Holders})
		return nil
	case senseless:
		writeJSON(w, http.StatusConflict, stepapi.TrustRefusal{Status: http.StatusConflict, Message: step.Error(), Holders: []stepapi.Holder{}})
		return nil
	case err != nil:
		return err
	}
	writeJSON(w, http.StatusOK, status)
	return nil
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

// listPace is how long a client may take for each 64 KiB of a list. A list can have
// megabytes, so no deadline for the whole answer fits all lists.
const listPace = 30 * time.Second

// revokedAnswer is an answer of GET /revoked, which is used until a list changes.
type revokedAnswer struct {
	tag  string // ETag of the lists and their issuers
	body []byte
}

// issuers returns the certificates whose lists are served: the intermediates, the issuing one
// first, and then the roots.
func (st *state) issuers() []*x509.Certificate { return slices.Concat(st.intermediates, st.roots) }

// listOf returns the list of one of the issuers, with all revocations that are committed. A
// root that was made before there were such lists has none, which is nil.
func (a *Authority) listOf(ctx context.Context, st *state, issuer *x509.Certificate) (*crl.List, error) {
	if slices.ContainsFunc(st.roots, issuer.Equal) {
		return st.rootLists.Of(issuer), nil
	}
	return a.currentCRL(ctx, st, issuer, true)
}

// servedLists are the lists that GET /revoked answers with.
type servedLists struct {
	issuers []*x509.Certificate
	lists   []*crl.List // one of each issuer
	tag     string      // names the lists and their issuers; the ETag without its quotes
}

func (a *Authority) servedLists(ctx context.Context, st *state) (s servedLists, err error) {
	all := sha256.New()
	for _, issuer := range st.issuers() {
		list, err := a.listOf(ctx, st, issuer)
		if err != nil {
			return s, err
		}
		if list == nil {
			continue
		}
		s.issuers, s.lists = append(s.issuers, issuer), append(s.lists, list)
		_, _ = all.Write(issuer.Raw) // a hash does not fail
		sum := list.Sum()
		_, _ = all.Write(sum[:])
	}
	s.tag = hex.EncodeToString(all.Sum(nil)[:16])
	return s, nil
}

// getRevoked answers GET /revoked with the list of each intermediate that has unexpired
// leaves and of each root of the bundle. By the former, every service refuses revoked
// certificates; by the latter, whatever a revoked intermediate has signed. The lists have
// all revocations that are committed. With If-None-Match an unchanged answer has no body, so
// many services can ask often (docs/design/0012-revocation-at-scale.md).
func (a *Authority) getRevoked(w http.ResponseWriter, r *http.Request) error {
	served, err := a.servedLists(r.Context(), a.state.Load())
	if err != nil {
		return err
	}
	tag := `"` + served.tag + `"`
	w.Header().Set("ETag", tag)
	if matches(r.Header.Get("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	known := a.revoked.Load()
	if known == nil || known.tag != tag {
		if known, err = encodeRevoked(tag, served); err != nil {
			return err
		}
		a.revoked.Store(known)
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = httpserver.Paced(w, listPace).Write(known.body) // the client may have gone
	return nil
}

func encodeRevoked(tag string, served servedLists) (*revokedAnswer, error) {
	resp := stepapi.RevokedResponse{Lists: make([]stepapi.RevokedList, len(served.lists))}
	for i, l := range served.lists {
		resp.Lists[i] = stepapi.RevokedList{Issuer: pemOf(served.issuers[i]), CRL: string(l.PEM())}
	}
	body, err := json.Marshal(resp)
	return &revokedAnswer{tag, body}, err
}

// matches reports whether the header If-None-Match names the tag, by weak comparison
// (RFC 9110 §13.1.2).
func matches(header, tag string) bool {
	for candidate := range strings.SplitSeq(header, ",") {
		candidate = strings.TrimSpace(candidate)
		if candidate == "*" || strings.TrimPrefix(candidate, "W/") == tag {
			return true
		}
	}
	return false
}
