package ca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/artstore/artstore-pki/ca/internal/auditlog"
	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/crl"
	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/ca/record/reasons"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// verifyRevoke authenticates POST /revoke by a revocation token, whose subject is the
// serial, or without one by the certificate of the connection. It returns the token that
// the commit has to spend.
func (a *Authority) verifyRevoke(r *http.Request, ott string) (caller, store.Token, error) {
	if ott == "" {
		c, _, err := a.verifyPeer(r.Context(), r.TLS)
		return c, store.Token{}, err
	}
	st := a.state.Load()
	cl, err := verifyToken(st, ott, actRevoke)
	if err != nil {
		return caller{}, store.Token{}, err
	}
	serial, err := certs.ParseSerial(cl.Subject)
	if err != nil {
		return caller{}, store.Token{}, denial.Unauthorized("the token's subject is not a serial")
	}
	token := cl.oneTimeToken()
	if cl.certificate != nil {
		c, err := a.authenticateHolder(r.Context(), cl)
		return c, token, err
	}
	c := caller{kind: callerToken, name: "token " + cl.Issuer + "/" + serial, serial: serial, credentials: tokenCredentials(cl, token)}
	return c, token, a.serves(r.Context(), st, cl, c)
}

// serves refuses a revocation token of a provisioner that is not for the service of the
// certificate: a key for enrolling some services must not revoke those of others.
func (a *Authority) serves(ctx context.Context, st *state, cl *claims, c caller) error {
	by, ok := st.rules.ScopeOf(cl.Issuer)
	if !ok {
		return errProvisioner
	}
	if by.Services == nil {
		return nil
	}
	entry, err := a.record.Get(ctx, c.serial)
	if err != nil {
		return err
	}
	return a.recordDenial(ctx, c, accessRequest{action: actRevoke}, by.Serves(entry.Service))
}

// revoke authorizes the caller and commits the revocation, which is in the next list. An
// unknown serial is [record.ErrNotFound]; a certificate that is revoked already is a
// [denial.RequestError].
func (a *Authority) revoke(ctx context.Context, c caller, req store.RevokeRequest) error {
	w := accessRequest{action: actRevoke, serial: req.Serial}
	if err := a.authorize(ctx, a.state.Load(), c, w); err != nil {
		return err
	}
	err := a.record.Revoke(ctx, req)
	switch {
	case errors.Is(err, store.ErrTokenUsed):
		return a.recordDenial(ctx, c, w, denial.New(denial.Token, "the token was already used"))
	case errors.Is(err, store.ErrAlreadyRevoked):
		return denial.BadRequest("certificate %s is already revoked", certs.HexSerial(req.Serial))
	case err != nil:
		return err
	}
	a.revokes.send()
	a.metrics.revoked.Inc()
	a.writeAudit(ctx, c, auditlog.Line{Action: string(actRevoke), Outcome: auditlog.Done, Serial: req.Serial})
	a.logger.InfoContext(ctx, "certificate revoked", "serial", certs.HexSerial(req.Serial))
	return nil
}

const typePEM = "application/x-pem-file"

// getCRL answers GET /crl with the list of the issuing intermediate, or of the issuer in
// ?issuer=<subject key id in hex>. It is DER, or PEM with ?pem. With ?all it is one file
// with the lists of all roots and intermediates in PEM.
func (a *Authority) getCRL(w http.ResponseWriter, r *http.Request) error {
	st, query := a.state.Load(), r.URL.Query()
	if query.Has("all") {
		return a.getAllCRLs(w, r, st)
	}
	id := query.Get("issuer")
	if id == "" {
		id = cacert.KeyID(st.intermediates[0])
	}
	list := st.rootLists[id]
	if list == nil {
		i := slices.IndexFunc(st.intermediates, func(c *x509.Certificate) bool { return cacert.KeyID(c) == id })
		if i < 0 {
			return &denial.RequestError{Status: http.StatusNotFound, Text: "no such issuer here"}
		}
		var err error
		if list, err = a.currentCRL(r.Context(), st, st.intermediates[i], false); err != nil {
			return err
		}
	}
	if query.Has("pem") {
		return serveCRL(w, r, list.Sum(), list.PEM(), typePEM)
	}
	return serveCRL(w, r, list.Sum(), list.DER(), "application/pkix-crl")
}

// getAllCRLs answers with the lists of all roots and intermediates: OpenSSL checks each
// certificate of a chain when it checks one.
func (a *Authority) getAllCRLs(w http.ResponseWriter, r *http.Request, st *state) error {
	var lists []*crl.List
	for _, c := range st.roots {
		if l := st.rootLists.Of(c); l != nil {
			lists = append(lists, l)
		}
	}
	for _, c := range st.intermediates {
		l, err := a.currentCRL(r.Context(), st, c, false)
		if err != nil {
			return err
		}
		lists = append(lists, l)
	}
	var body []byte
	sums := sha256.New()
	for _, l := range lists {
		sum := l.Sum()
		_, _ = sums.Write(sum[:]) // a hash does not fail
		body = append(body, l.PEM()...)
	}
	return serveCRL(w, r, [sha256.Size]byte(sums.Sum(nil)), body, typePEM)
}

// serveCRL answers conditional requests and ranges, so that a cache can ask often whether
// the list has changed (RFC 9110 §13). sum is a hash of the body.
func serveCRL(w http.ResponseWriter, r *http.Request, sum [sha256.Size]byte, body []byte, kind string) error {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:16])+`"`)
	http.ServeContent(httpserver.Paced(w, listPace), r, "", time.Time{}, bytes.NewReader(body))
	return nil
}

// CRLHandler answers GET and HEAD of /crl and nothing else, for a listener in cleartext. A
// list is signed and public. A client that needs the list to verify a TLS server cannot
// fetch it over TLS (RFC 5280 §8).
func (a *Authority) CRLHandler() http.Handler {
	r := chi.NewRouter()
	r.Use(a.limitAndRecover, a.measure, middleware.GetHead)
	r.Get(stepapi.PathCRL, a.errorHandler(a.getCRL))
	r.NotFound(func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, http.StatusNotFound, "only "+stepapi.PathCRL+" is here")
	})
	return r
}

// A certificate that an operator revokes by its PEM may be missing in the record, if it
// was issued after the backup from which the authority was restored. The signature of an
// intermediate shows that this authority has issued it.

// ErrNotOurs reports a certificate that no intermediate of this authority has signed.
var ErrNotOurs = errors.New("no intermediate of this authority signed it")

// Revocable returns a certificate as [Record.RevokeCertificate] would revoke it,
// and whether the record has it already. It reports what would be refused:
// [ErrNotOurs], [store.ErrSerialTaken], [store.ErrAlreadyRevoked].
func (r *Record) Revocable(ctx context.Context, cert *x509.Certificate) (c record.Certificate, known bool, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("revoking %s: %w", certs.HexSerial(cert.SerialNumber.String()), err)
		}
	}()
	c, err = r.store.Get(ctx, cert.SerialNumber.String())
	switch {
	case errors.Is(err, record.ErrNotFound):
		c, err = r.unknown(cert)
		return c, false, err
	case err != nil:
		return c, false, err
	case !bytes.Equal(c.DER, cert.Raw):
		return c, true, store.ErrSerialTaken
	case c.Revocation != nil:
		return c, true, store.ErrAlreadyRevoked
	}
	return c, true, nil
}

// unknown returns the row for a certificate that the record does not have, or
// [ErrNotOurs].
func (r *Record) unknown(cert *x509.Certificate) (c record.Certificate, err error) {
	_, intermediates, err := statedir.Dir{Path: string(r.dir)}.ReadTrust()
	if err != nil {
		return c, err
	}
	i := slices.IndexFunc(intermediates, func(issuer *x509.Certificate) bool { return cert.CheckSignatureFrom(issuer) == nil })
	if i < 0 || cert.IsCA {
		return c, ErrNotOurs
	}
	c = record.NewCertificate([]*x509.Certificate{cert, intermediates[i]}, time.Now())
	// Revocation lists are made by issuer. The certificate may have no authority key
	// identifier, if a thief of the issuing key has made it.
	c.Issuer, c.Kind, c.Caller = cacert.KeyID(intermediates[i]), kinds.Entered, operator
	if c.Service = clip(cert.Subject.CommonName); c.Service == "" && len(c.Names) > 0 {
		c.Service = clip(c.Names[0])
	}
	return c, nil
}

// RevokeCertificate revokes a certificate in the name of the operator. It compares all of
// the certificate, not the serial alone. One that the record does not have is entered
// (kind [kinds.Entered]) in the same transaction, if an intermediate of this
// authority signed it. Errors are those of Revocable.
func (r *Record) RevokeCertificate(ctx context.Context, cert *x509.Certificate, reason int, note string) (c record.Certificate, err error) {
	if err := reasons.Check(reason); err != nil {
		return c, fmt.Errorf("revoking %s: %w", certs.HexSerial(cert.SerialNumber.String()), err)
	}
	if c, _, err = r.Revocable(ctx, cert); err != nil {
		return c, err
	}
	_, err = r.revokeAudited(auditlog.Line{Serial: c.Serial, Service: c.Service}, func() (int, error) {
		return 1, r.store.RevokeCertificate(ctx, c, record.Revocation{RevokedAt: time.Now(), Reason: reason, Note: clip(note), Caller: operator})
	})
	return c, err
}
