package ca

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// verifyRevoke authenticates POST /revoke: a revoke token (its subject is the
// serial), or the certificate of the connection.
func (a *Authority) verifyRevoke(r *http.Request, ott string) (caller, store.Token, error) {
	if ott == "" {
		c, _, err := a.verifyPeer(r.Context(), r.TLS)
		return c, store.Token{}, err
	}
	cl, err := verifyToken(r.Context(), a.state.Load(), ott, actRevoke)
	if err != nil {
		return caller{}, store.Token{}, err
	}
	serial, err := store.ParseSerial(cl.Subject)
	if err != nil {
		return caller{}, store.Token{}, unauthorized("the token's subject is not a serial")
	}
	return caller{kind: byToken, name: "token " + cl.Issuer + "/" + serial, serial: serial}, cl.spend(), nil
}

// revoke asks the door, then commits. Unknown serials are [store.ErrNotFound].
func (a *Authority) revoke(ctx context.Context, c caller, req store.RevokeRequest) error {
	w := want{action: actRevoke, serial: req.Serial}
	if err := a.allow(ctx, a.state.Load(), c, w); err != nil {
		return err
	}
	err := a.record.Revoke(ctx, req)
	switch {
	case errors.Is(err, store.ErrTokenUsed):
		return a.turnAway(ctx, c, w, refuse(ruleToken, "the token was already used"))
	case errors.Is(err, store.ErrAlreadyRevoked):
		return badRequest("certificate %s is already revoked", pemfile.HexSerial(req.Serial))
	case err != nil:
		return err
	}
	a.metrics.revoked.Inc()
	a.logger.InfoContext(ctx, "certificate revoked", "serial", pemfile.HexSerial(req.Serial))
	return nil
}

// validReason knows RFC 5280 §5.3.1: 7 is unused; 6 and 8 exist only for holds
// and delta lists, which this authority does not have.
func validReason(code int) bool { return code >= 0 && code <= 10 && (code < 6 || code > 8) }

const (
	crlLife = 24 * time.Hour
	typeCRL = "X509 CRL" // RFC 7468 §7
)

// crlCache keeps one signed list per issuer.
type crlCache struct {
	mu    sync.Mutex
	lists map[string]crl
}

type crl struct {
	der   []byte
	sum   [sha256.Size]byte // of der
	mark  int64             // store.RevocationMark it was made at
	renew time.Time
}

// getCRL answers the list of the issuing intermediate, or of ?issuer=<subject
// key id, hex>, in DER, or with ?pem in PEM.
func (a *Authority) getCRL(w http.ResponseWriter, r *http.Request) error {
	st := a.state.Load()
	issuing := st.intermediates[0]
	if id := r.URL.Query().Get("issuer"); id != "" {
		issuing = nil
		for _, c := range st.intermediates {
			if issuerID(c) == id {
				issuing = c
			}
		}
	}
	if issuing == nil {
		return &stranger{http.StatusNotFound, "no such issuer here"}
	}
	list, err := a.crl(r.Context(), st, issuing)
	if err != nil {
		return err
	}
	der := list.der
	w.Header().Set("Content-Type", "application/pkix-crl")
	if r.URL.Query().Has("pem") {
		w.Header().Set("Content-Type", "application/x-pem-file")
		der = pem.EncodeToMemory(&pem.Block{Type: typeCRL, Bytes: der})
	}
	_, _ = w.Write(der) // the client has gone: there is nobody left to tell
	return nil
}

// crl returns a list that knows every revocation committed before the call, by
// this process or another.
func (a *Authority) crl(ctx context.Context, st *state, issuing *x509.Certificate) (crl, error) {
	mark, err := a.record.RevocationMark(ctx)
	if err != nil {
		return crl{}, err
	}
	id, now := issuerID(issuing), time.Now()
	if c, ok := a.lists.get(id); ok && c.mark == mark && now.Before(c.renew) {
		return c, nil
	}
	// Two requests may sign the same list at once; that is cheaper than a lock across the signature.
	entries, err := a.record.Revoked(ctx, id, now)
	if err != nil {
		return crl{}, err
	}
	signer := st.signer
	if !bytes.Equal(issuing.Raw, st.intermediates[0].Raw) {
		if signer, err = a.files.readKey(issuing, ""); err != nil {
			return crl{}, err
		}
	}
	list := &x509.RevocationList{
		Number:     big.NewInt(now.UnixMicro()), // grows without being stored (RFC 5280 §5.2.3)
		ThisUpdate: now, NextUpdate: now.Add(crlLife),
	}
	for _, e := range entries {
		serial, ok := new(big.Int).SetString(e.Serial, 10)
		if !ok {
			return crl{}, fmt.Errorf("making the CRL: serial %q in the record", e.Serial)
		}
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: serial, RevocationTime: e.RevokedAt, ReasonCode: e.Reason,
		})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, issuing, signer)
	if err != nil {
		return crl{}, fmt.Errorf("signing the CRL of %q: %w", issuing.Subject.CommonName, err)
	}
	made := crl{der, sha256.Sum256(der), mark, now.Add(crlLife / 2)}
	a.lists.put(id, made)
	return made, nil
}

func (c *crlCache) get(id string) (crl, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, ok := c.lists[id]
	return l, ok
}

func (c *crlCache) put(id string, l crl) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lists == nil {
		c.lists = make(map[string]crl)
	}
	c.lists[id] = l
}
