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

	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// The record over HTTP, read only, for the services that pki.yaml lists as
// auditors; nobody by default. They show their client certificate as for a
// renewal. Whatever is asked is bounded: pages of 1000 rows at most, each a range
// scan of an index.

// Row is a certificate of the record as the API and "artstore-pki list" show it;
// the JSON field names are stable.
type Row struct {
	Serial    string    `json:"serial"` // decimal
	SerialHex string    `json:"serial_hex"`
	Service   string    `json:"service"`
	State     string    `json:"state"`
	Names     []string  `json:"names"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Kind      string    `json:"kind"`
	Caller    string    `json:"caller"`
	Lineage   string    `json:"lineage"`
	Previous  string    `json:"previous,omitempty"`
	Issuer    string    `json:"issuer"`

	ProofUntil time.Time `json:"proof_until,omitzero"` // no renewal ends after it; absent: the proof has no end
}

// NewRow shows a certificate as it is at a moment.
func NewRow(c store.Certificate, now time.Time) Row {
	return Row{
		Serial: c.Serial, SerialHex: pemfile.HexSerial(c.Serial), Service: c.Service, State: c.State(now), Names: c.Names,
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, Kind: c.Kind, Caller: c.Caller,
		Lineage: c.Lineage, Previous: c.Previous, Issuer: c.Issuer, ProofUntil: c.ProofUntil,
	}
}

type recordPage struct {
	Certificates []Row  `json:"certificates"`
	Next         string `json:"next,omitempty"` // cursor of the next page
}

type recordCertificate struct {
	Certificate Row               `json:"certificate"`
	Revocation  *store.Revocation `json:"revocation,omitempty"`
	PEM         string            `json:"pem"` // leaf first, then intermediates
}

type recordEvents struct {
	Events []store.Event `json:"events"`
	Next   int64         `json:"next,omitempty"` // ?after= of the next page
}

// allowReading asks the door for a peer who wants to read the record.
func (a *Authority) allowReading(r *http.Request) error {
	c, entry, err := a.verifyPeer(r.Context(), r.TLS)
	if err != nil {
		return err
	}
	return a.allow(r.Context(), a.state.Load(), c, want{action: actRead, lineage: entry.Lineage})
}

func (a *Authority) getRecordCertificates(w http.ResponseWriter, r *http.Request) error {
	if err := a.allowReading(r); err != nil {
		return err
	}
	q, err := parseRecordQuery(r.URL.RawQuery, time.Now())
	if err != nil {
		return err
	}
	page, next, err := a.record.List(r.Context(), q)
	if err != nil {
		return err
	}
	out := recordPage{Certificates: make([]Row, len(page)), Next: next}
	for i, c := range page {
		out.Certificates[i] = NewRow(c, q.Now)
	}
	answer(w, http.StatusOK, out)
	return nil
}

func (a *Authority) getRecordCertificate(w http.ResponseWriter, r *http.Request) error {
	if err := a.allowReading(r); err != nil {
		return err
	}
	serial, err := store.ParseSerial(chi.URLParam(r, "serial"))
	if err != nil {
		return badRequest("%v", err)
	}
	c, err := a.record.Get(r.Context(), serial)
	if err != nil {
		return err
	}
	chain, err := x509.ParseCertificates(slices.Concat(c.DER, c.Chain))
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, recordCertificate{NewRow(c, time.Now()), c.Revocation, string(pemfile.EncodeCertificates(chain))})
	return nil
}

func (a *Authority) getRecordEvents(w http.ResponseWriter, r *http.Request) error {
	if err := a.allowReading(r); err != nil {
		return err
	}
	q, err := parameters(r.URL.RawQuery, "after", "kind", "limit")
	if err != nil {
		return err
	}
	after, err := logSize(q, "after", 0)
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
		out.Events = []store.Event{} // a list, not null
	}
	answer(w, http.StatusOK, out)
	return nil
}

const (
	maxParameter = 300 // bytes; the longest name has 253
	apiPage      = 100
	maxAPIPage   = 1000
)

// parameters reads a query strictly: a misspelt filter that is ignored would
// answer more than was asked for.
func parameters(raw string, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, badRequest("the query is not well formed")
	}
	for key, values := range q {
		switch {
		case !slices.Contains(known, key):
			return nil, badRequest("unknown parameter %.40q: want %s", key, strings.Join(known, ", "))
		case len(values) != 1 || len(values[0]) > maxParameter || strings.ContainsRune(values[0], 0): // PostgreSQL has no texts with a NUL
			return nil, badRequest("%s: want one value of at most %d bytes", key, maxParameter)
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
		return 0, badRequest("limit: want 1 to %d", maxAPIPage)
	}
	return n, nil
}

// cursorForm is what [store.Store.List] returns; 18 digits fit an int64.
var cursorForm = regexp.MustCompile(`^-?[0-9]{1,18}\.[0-9]{1,18}$`)

// parseRecordQuery reads the filters of GET /records/certificates.
func parseRecordQuery(raw string, now time.Time) (out store.Query, err error) {
	q, err := parameters(raw, "service", "name", "state", "issuer", "expires_before", "limit", "cursor")
	if err != nil {
		return out, err
	}
	out = store.Query{Service: q.Get("service"), State: q.Get("state"), Issuer: q.Get("issuer"), Cursor: q.Get("cursor"), Now: now}
	if out.Limit, err = pageSize(q); err != nil {
		return store.Query{}, err
	}
	if name := q.Get("name"); name != "" {
		if out.Name, err = names.Canonical(name); err != nil {
			return store.Query{}, badRequest("%v", err)
		}
	}
	if out.Cursor != "" && !cursorForm.MatchString(out.Cursor) {
		return store.Query{}, badRequest("cursor: not one that a page returned")
	}
	if !slices.Contains([]string{"", store.StateValid, store.StateExpired, store.StateRevoked}, out.State) {
		return store.Query{}, badRequest("state: want %s, %s or %s", store.StateValid, store.StateExpired, store.StateRevoked)
	}
	if text := q.Get("expires_before"); text != "" {
		if out.ExpiresBefore, err = askedTime("expires_before", text, now); err != nil {
			return store.Query{}, err
		}
		out.SoonestFirst = true
	}
	return out, nil
}
