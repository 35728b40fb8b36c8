package ca

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/smallstep/certificates/api"
	"github.com/smallstep/certificates/authority"

	"github.com/artstore/artstore-pki/ca/internal/acmesrv"
	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/reasons"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/panics"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// Handler serves the step-ca HTTP API at "/" and "/1.0", and ACME at "/acme". It expects
// TLS that asks for a client certificate, does not require one (a client that enrols has
// none) and verifies it against [Authority.Roots]. The handler limits bodies and rates;
// the owner of the listener limits headers, times and connections, as package httpserver
// does.
func (a *Authority) Handler() http.Handler {
	r := chi.NewRouter()
	r.Use(a.limitAndRecover, a.measure, middleware.GetHead) // RFC 9110 §9.1: a server must support GET and HEAD
	a.routes(r)
	r.Route(stepapi.Prefix, a.routes)
	r.Route(acmesrv.Prefix, func(r chi.Router) {
		acmesrv.Routes(r, func() *acmesrv.Server { return a.state.Load().acme })
	})
	r.NotFound(func(w http.ResponseWriter, _ *http.Request) { writeError(w, http.StatusNotFound, "no such route") })
	r.MethodNotAllowed(func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, http.StatusMethodNotAllowed, "method not allowed")
	})
	return r
}

// routes adds the routes of step-ca, and those of this authority, to one prefix.
func (a *Authority) routes(r chi.Router) {
	r.Post(stepapi.PathSign, a.errorHandler(a.postSign))
	r.Post(stepapi.PathRenew, a.errorHandler(a.postRenew))
	r.Post("/re-sign", a.errorHandler(a.postRenew)) // the old name of renew
	r.Post(stepapi.PathRekey, a.errorHandler(a.postRekey))
	r.Post(stepapi.PathRevoke, a.errorHandler(a.postRevoke))
	r.Post(stepapi.PathToken, a.errorHandler(a.postToken))

	r.Get(stepapi.PathHealth, func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	r.Get(stepapi.PathRoot+"{sha}", a.getRoot)
	r.Get(stepapi.PathRoots, a.getRoots)
	r.Get(stepapi.PathRoots+".pem", a.getRootsPEM)
	r.Get(stepapi.PathFederation, a.getRoots)
	r.Get(stepapi.PathIntermediates, a.getIntermediates)
	r.Get(stepapi.PathIntermediates+".pem", a.getIntermediatesPEM)
	r.Get(stepapi.PathCRL, a.errorHandler(a.getCRL))
	r.Get(stepapi.PathRevoked, a.errorHandler(a.getRevoked))
	r.Get(stepapi.PathWatch, a.errorHandler(a.getWatch))
	r.Get(stepapi.PathRenewals, a.errorHandler(a.getRenewals))
	r.Get(stepapi.PathRenewalInfo+"{id}", a.errorHandler(a.getRenewalInfo))
	r.Post(stepapi.PathRenewals, a.errorHandler(a.postRenewals))
	r.Get(stepapi.PathLogHead, a.errorHandler(a.getLogHead))
	r.Get(stepapi.PathLogProof, a.errorHandler(a.getLogProof))
	r.Get(stepapi.PathLogEntry+"{index}", a.errorHandler(a.getLogEntry))
	r.Get(stepapi.PathRecordAuthorities, a.errorHandler(a.getRecordAuthorities))
	r.Get(stepapi.PathRecordCertificates, a.errorHandler(a.getRecordCertificates))
	r.Get(stepapi.PathRecordCertificates+"/{serial}", a.errorHandler(a.getRecordCertificate))
	r.Get(stepapi.PathRecordEvents, a.errorHandler(a.getRecordEvents))
	r.Get(stepapi.PathTrust, a.errorHandler(a.getTrust))
	r.Post(stepapi.PathTrust, a.errorHandler(a.postTrust))
	r.Get(stepapi.PathVersion, getVersion)
	r.Get(stepapi.PathProvisioners, a.smallstepHandler(api.Provisioners))
	r.Get(stepapi.PathProvisioners+"/{kid}/encrypted-key", a.smallstepHandler(api.ProvisionerKey))
}

// getVersion answers with the version of this program. Clients of smallstep ask before
// they enrol, to learn whether a client certificate is required; it never is.
func getVersion(w http.ResponseWriter, _ *http.Request) {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = info.Main.Version
	}
	writeJSON(w, http.StatusOK, api.VersionResponse{Version: version})
}

// smallstepHandler runs a handler of smallstep with the embedded authority of the current
// state. The two handlers for which it is used read provisioners and nothing else.
func (a *Authority) smallstepHandler(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h(w, r.WithContext(authority.NewContext(r.Context(), a.state.Load().smallstep)))
	}
}

// limitAndRecover limits the rate and the body of a request before any other handler, and
// answers 500 if a handler panics.
func (a *Authority) limitAndRecover(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer panics.Catch(func(p *panics.Error) {
			if p.Value == http.ErrAbortHandler { //nolint:errorlint // as net/http compares it: a handler has cut its answer on purpose
				panic(p.Value)
			}
			a.logger.ErrorContext(r.Context(), "request handler panicked", "path", r.URL.Path, "err", fmt.Sprint(p.Value), "stack", p.Stack)
			writeError(w, http.StatusInternalServerError, "internal error")
		})
		if a.rejectIfLimited(w, r) {
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, stepapi.MaxBody)
		next.ServeHTTP(w, withAddress(r))
	})
}

// errorHandler turns the error of a handler into an answer. Errors of the client and
// denials are answered with their text. Internal errors are logged and answered as 500
// without detail. A bad credential is charged to the address of the client.
func (a *Authority) errorHandler(h func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if err == nil {
			return
		}
		s, wrong := errors.AsType[*denial.RequestError](err)
		denied, refused := errors.AsType[*denial.Error](err)
		switch {
		case wrong:
			if s.Status != http.StatusNotFound && s.Status < http.StatusInternalServerError {
				a.charge(r)
			}
			writeError(w, s.Status, s.Text)
		case refused:
			// These two are charged as well: a credential that is not valid any more, and a
			// key that costs more to check than to send.
			if denied.Status == http.StatusUnauthorized || denied.Rule == denial.SoundPublicKey {
				a.charge(r)
			}
			a.logger.WarnContext(r.Context(), "request refused", "path", r.URL.Path, "err", denied.Error())
			writeError(w, denied.Status, denied.Error())
		case errors.Is(err, record.ErrNotFound):
			writeError(w, http.StatusNotFound, err.Error())
		case r.Context().Err() != nil: // the client has gone
			writeError(w, http.StatusServiceUnavailable, "the request was cut")
		case store.Unavailable(err):
			a.logger.ErrorContext(r.Context(), "database not available", "path", r.URL.Path, "err", err)
			w.Header().Set("Retry-After", denial.RetryDatabase)
			writeError(w, http.StatusServiceUnavailable, denial.DatabaseAway)
		default:
			a.logger.ErrorContext(r.Context(), "request failed", "path", r.URL.Path, "err", err)
			writeError(w, http.StatusInternalServerError, "internal error; the authority's log has the reason")
		}
	}
}

// postSign answers POST /sign, the first certificate of a service for a token.
func (a *Authority) postSign(w http.ResponseWriter, r *http.Request) error {
	var req stepapi.SignRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	st := a.state.Load()
	v, err := a.verifySign(r.Context(), st, req)
	if err != nil {
		return err
	}
	v.report = reportOf(r)
	return a.issueAndRespond(w, r, st, v)
}

// postRenew answers POST /renew, a certificate for the same key and names.
func (a *Authority) postRenew(w http.ResponseWriter, r *http.Request) error {
	v, err := a.verifyRenewal(r.Context(), r, "")
	if err != nil {
		return err
	}
	return a.issueAndRespond(w, r, a.state.Load(), v)
}

// postRekey answers POST /rekey, a certificate for the same names and a new key.
func (a *Authority) postRekey(w http.ResponseWriter, r *http.Request) error {
	var req stepapi.RekeyRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	if req.CSR == "" {
		return denial.BadRequest("csr: it is missing")
	}
	v, err := a.verifyRenewal(r.Context(), r, req.CSR)
	if err != nil {
		return err
	}
	return a.issueAndRespond(w, r, a.state.Load(), v)
}

func (a *Authority) issueAndRespond(w http.ResponseWriter, r *http.Request, st *state, v verifiedRequest) error {
	done, err := a.issue(r.Context(), st, v)
	if err != nil {
		return err
	}
	a.addLogHead(w)
	writeJSON(w, http.StatusCreated, st.signResponse(done))
	return nil
}

// signResponse builds the answer. It takes a committed value: nothing else can be sent.
func (st *state) signResponse(c committed) stepapi.SignResponse {
	resp := stepapi.SignResponse{Chain: []string{pemOf(c.leaf)}}
	for _, intermediate := range c.chain {
		text, ok := st.issuerPEM[intermediate]
		if !ok { // a chain from the record, see returnEarlier
			text = pemOf(intermediate)
		}
		resp.Chain = append(resp.Chain, text)
	}
	resp.Certificate = resp.Chain[0]
	if len(c.chain) > 0 {
		resp.CA = resp.Chain[1]
	}
	return resp
}

// postRevoke answers POST /revoke. Only the form that step calls passive exists: the
// certificate gets into the revocation lists and does not renew.
func (a *Authority) postRevoke(w http.ResponseWriter, r *http.Request) error {
	var req stepapi.RevokeRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	serial, err := certs.ParseSerial(req.Serial)
	if err != nil {
		return denial.BadRequest("%v", err)
	}
	if !req.Passive {
		return &denial.RequestError{Status: http.StatusNotImplemented, Text: "only passive revocation is supported: the certificate leaves through the CRL and cannot renew"}
	}
	if err := reasons.Check(req.ReasonCode); err != nil {
		return denial.BadRequest("reasonCode: %v", err)
	}
	c, token, err := a.verifyRevoke(r, req.OTT)
	if err != nil {
		return err
	}
	err = a.revoke(r.Context(), c, store.RevokeRequest{
		Revocation: record.Revocation{Serial: serial, RevokedAt: time.Now(), Reason: req.ReasonCode, Note: clip(req.Reason), Caller: c.name},
		Token:      token,
	})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, stepapi.RevokeResponse{Status: "ok"})
	return nil
}

// readBody reads one JSON object from the body into v. Its errors are 400, or 413 for a
// body above the limit. Unknown members are ignored.
func readBody(r *http.Request, v any) error { return decodeBody(json.NewDecoder(r.Body), v) }

// readOrder is readBody for what operators order. A field that is not known is an error there:
// without a dry_run that is spelled wrong the step is taken, and without a field that restricts
// a renewal all services renew.
func readOrder(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	return decodeBody(dec, v)
}

func decodeBody(dec *json.Decoder, v any) error {
	err := dec.Decode(v)
	if err == nil { // nothing may follow the object; reading on also finds a body above the limit
		if err = dec.Decode(&struct{}{}); errors.Is(err, io.EOF) {
			return nil
		}
		err = errors.Join(errTrailing, err)
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &denial.RequestError{Status: http.StatusRequestEntityTooLarge, Text: fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit)}
	}
	if name, unknown := unknownField(err); unknown {
		return denial.BadRequest("the body has a field that this route does not know: %.80s", name)
	}
	return denial.BadRequest("the body is not the JSON object that this route takes")
}

// unknownField returns the quoted name of a field that a decoder did not know. encoding/json has no
// type for this error.
func unknownField(err error) (name string, unknown bool) {
	if err == nil {
		return "", false
	}
	return strings.CutPrefix(err.Error(), "json: unknown field ")
}

var errTrailing = errors.New("something follows the object")

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may have gone
}

func writeError(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, stepapi.Error{Status: status, Message: message})
}

// getRoot answers GET /root/{sha} with the root that has this fingerprint. A client that
// enrols compares the fingerprint by itself, so the answer needs no trust.
func (a *Authority) getRoot(w http.ResponseWriter, r *http.Request) {
	fp, err := certs.ParseFingerprint(chi.URLParam(r, "sha"))
	if err == nil {
		for _, c := range a.state.Load().roots {
			if certs.Fingerprint(c) == fp {
				writeJSON(w, http.StatusOK, stepapi.RootResponse{CA: pemOf(c)})
				return
			}
		}
	}
	writeError(w, http.StatusNotFound, "no root with this fingerprint")
}
