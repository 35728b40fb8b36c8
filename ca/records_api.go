package ca

import (
	"crypto/x509"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/artstore/artstore-pki/ca/internal/denial"
	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/ca/internal/validity"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// The record can be read over HTTP by the services that pki.yaml lists as auditors; by
// default there are none. They authenticate with their client certificate, as for a
// renewal. Each answer is bounded: a page has 1000 rows at most, and is a range scan of an
// index.

type recordCertificate struct {
	Certificate stepapi.RecordRow  `json:"certificate"`
	Revocation  *record.Revocation `json:"revocation,omitempty"`
	PEM         string             `json:"pem"` // leaf first, then intermediates
}

type recordEvents struct {
	Events []record.Event `json:"events"`
	Next   int64          `json:"next,omitempty"` // ?after= of the next page
}

// authorizeReading authenticates a peer and authorizes it to read the record.
func (a *Authority) authorizeReading(r *http.Request) error {
	_, err := a.authorizePeer(r, actRead)
	return err
}

// authorizePeer authenticates the peer of a connection by its client certificate, and
// authorizes it to do something that needs no certificate request.
func (a *Authority) authorizePeer(r *http.Request, what action) (caller, error) {
	c, entry, err := a.verifyPeer(r.Context(), r.TLS)
	if err != nil {
		return c, err
	}
	return c, a.authorize(r.Context(), a.state.Load(), c, accessRequest{action: what, lineage: entry.Lineage})
}

func (a *Authority) getRecordCertificates(w http.ResponseWriter, r *http.Request) error {
	if err := a.authorizeReading(r); err != nil {
		return err
	}
	q, err := parseRecordQuery(r.URL.RawQuery, time.Now())
	if err != nil {
		return err
	}
	page, next, err := a.record.List(r.Context(), q.Query)
	if err != nil {
		return err
	}
	out := stepapi.RecordPage{Certificates: make([]stepapi.RecordRow, len(page)), Next: next}
	for i, c := range page {
		row := &out.Certificates[i]
		*row = record.NewRow(c, q.Now)
		if !q.pem {
			continue
		}
		if row.PEM, err = recordedPEM(&c); err != nil {
			return err
		}
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

func (a *Authority) getRecordCertificate(w http.ResponseWriter, r *http.Request) error {
	if err := a.authorizeReading(r); err != nil {
		return err
	}
	serial, err := certs.ParseSerial(chi.URLParam(r, "serial"))
	if err != nil {
		return denial.BadRequest("%v", err)
	}
	c, err := a.record.Get(r.Context(), serial)
	if err != nil {
		return err
	}
	text, err := recordedPEM(&c)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, recordCertificate{record.NewRow(c, time.Now()), c.Revocation, text})
	return nil
}

// recordedPEM returns a certificate of the record and its intermediates, leaf first.
func recordedPEM(c *record.Certificate) (string, error) {
	chain, err := x509.ParseCertificates(slices.Concat(c.DER, c.Chain))
	return string(pemfile.EncodeCertificates(chain)), err
}

func (a *Authority) getRecordAuthorities(w http.ResponseWriter, r *http.Request) error {
	if err := a.authorizeReading(r); err != nil {
		return err
	}
	roots, others, err := a.files.Authorities()
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, stepapi.RecordAuthorities{Roots: pemsOf(roots), Others: pemsOf(others)})
	return nil
}

func (a *Authority) getRecordEvents(w http.ResponseWriter, r *http.Request) error {
	if err := a.authorizeReading(r); err != nil {
		return err
	}
	q, err := parameters(r.URL.RawQuery, "after", "kind", "limit")
	if err != nil {
		return err
	}
	after, err := sizeParam(q, "after", 0)
	if err != nil {
		return err
	}
	limit, err := pageSize(q)
	if err != nil {
		return err
	}
	events, err := a.record.Events(r.Context(), q.Get("kind"), after, limit)
	if err != nil {
		return err
	}
	out := recordEvents{Events: events}
	if len(events) == limit {
		out.Next = events[limit-1].ID
	}
	if out.Events == nil {
		out.Events = []record.Event{} // a list, not null
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

const (
	maxParameter = 300 // bytes; the longest name has 253
	apiPage      = 100
	maxAPIPage   = 1000
)

// parameters parses a query strictly: if a misspelt filter were ignored, the answer would
// have more than was asked for.
func parameters(raw string, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, denial.BadRequest("the query is not well formed")
	}
	for key, values := range q {
		switch {
		case !slices.Contains(known, key):
			return nil, denial.BadRequest("unknown parameter %.40q: want %s", key, strings.Join(known, ", "))
		case len(values) != 1 || len(values[0]) > maxParameter || strings.ContainsRune(values[0], 0): // PostgreSQL has no texts with a NUL
			return nil, denial.BadRequest("%s: want one value of at most %d bytes", key, maxParameter)
		}
	}
	return q, nil
}

func pageSize(q url.Values) (int, error) {
	text := q.Get("limit")
	if text == "" {
		return apiPage, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxAPIPage {
		return 0, denial.BadRequest("limit: want 1 to %d", maxAPIPage)
	}
	return n, nil
}

// cursorForm is the form of the cursors of [store.Store.List]. 18 digits fit an int64.
var cursorForm = regexp.MustCompile(`^-?[0-9]{1,18}\.[0-9]{1,18}$`)

// recordQuery has the parameters of GET /records/certificates.
type recordQuery struct {
	record.Query
	pem bool
}

// parseRecordQuery reads the parameters of GET /records/certificates.
func parseRecordQuery(raw string, now time.Time) (out recordQuery, err error) {
	q, err := parameters(raw, "service", "name", "state", "issuer", "expires_before", "limit", "cursor", "pem")
	if err != nil {
		return out, err
	}
	out.Query = record.Query{Service: q.Get("service"), State: q.Get("state"), Issuer: q.Get("issuer"), Cursor: q.Get("cursor"), Now: now}
	if out.Limit, err = pageSize(q); err != nil {
		return recordQuery{}, err
	}
	if name := q.Get("name"); name != "" {
		if out.Name, err = names.Canonical(name); err != nil {
			return recordQuery{}, denial.BadRequest("%v", err)
		}
	}
	if out.Cursor != "" && !cursorForm.MatchString(out.Cursor) {
		return recordQuery{}, denial.BadRequest("cursor: not one that a page returned")
	}
	if !slices.Contains([]string{"", record.StateValid, record.StateExpired, record.StateRevoked}, out.State) {
		return recordQuery{}, denial.BadRequest("state: want %s, %s or %s", record.StateValid, record.StateExpired, record.StateRevoked)
	}
	if text := q.Get("expires_before"); text != "" {
		if out.ExpiresBefore, err = validity.AskedTime("expires_before", text, now); err != nil {
			return recordQuery{}, err
		}
		out.SoonestFirst = true
	}
	if !slices.Contains([]string{"", "true", "false"}, q.Get("pem")) {
		return recordQuery{}, denial.BadRequest("pem: want true or false")
	}
	out.pem = q.Get("pem") == "true"
	return out, nil
}
