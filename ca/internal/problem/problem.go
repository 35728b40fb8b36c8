// Package problem has the problem documents of ACME (RFC 8555 §6.7): a type that
// programs read, and a detail that people read. A detail names the cause and the
// remedy. It never quotes a server that was asked during validation, because the
// reader may be a client that cannot reach that server.
//
//	return problem.New(problem.BadCSR, "the request has the names %q, the order has %q", got, want)
//
// A Document is an error. Any other error is answered as serverInternal, without its text.
package problem

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Type is a type of RFC 8555 §6.7 without its prefix.
type Type string

// The types that this authority uses.
const (
	AccountDoesNotExist     Type = "accountDoesNotExist"
	AlreadyReplaced         Type = "alreadyReplaced" // RFC 9773
	AlreadyRevoked          Type = "alreadyRevoked"
	BadCSR                  Type = "badCSR"
	BadNonce                Type = "badNonce"
	BadPublicKey            Type = "badPublicKey"
	BadRevocationReason     Type = "badRevocationReason"
	BadSignatureAlgorithm   Type = "badSignatureAlgorithm"
	Connection              Type = "connection"
	DNS                     Type = "dns"
	ExternalAccountRequired Type = "externalAccountRequired"
	IncorrectResponse       Type = "incorrectResponse"
	InvalidContact          Type = "invalidContact"
	InvalidProfile          Type = "invalidProfile" // draft-ietf-acme-profiles
	Malformed               Type = "malformed"
	OrderNotReady           Type = "orderNotReady"
	RateLimited             Type = "rateLimited"
	RejectedIdentifier      Type = "rejectedIdentifier"
	ServerInternal          Type = "serverInternal"
	TLS                     Type = "tls"
	Unauthorized            Type = "unauthorized"
	UnsupportedContact      Type = "unsupportedContact"
	UnsupportedIdentifier   Type = "unsupportedIdentifier"
)

const prefix = "urn:ietf:params:acme:error:"

// Document is one problem.
type Document struct {
	Type        Type
	Status      int // of the HTTP answer
	Detail      string
	Algorithms  []string     // with BadSignatureAlgorithm (RFC 8555 §6.2)
	Subproblems []Subproblem // RFC 8555 §6.7.1

	// RetryAfter and Location become headers if they are set.
	RetryAfter time.Duration
	Location   string
}

// Subproblem is the part of a problem that concerns one identifier.
type Subproblem struct {
	Type   Type
	Detail string
	Kind   string // of the identifier: dns or ip
	Value  string
}

// New makes a problem with the status that belongs to its type.
func New(t Type, format string, args ...any) *Document {
	return &Document{Type: t, Status: t.status(), Detail: fmt.Sprintf(format, args...)}
}

// With changes the status, where RFC 8555 or RFC 9110 has one of its own.
func (d *Document) With(status int) *Document {
	d.Status = status
	return d
}

// Error is the detail with its type.
func (d *Document) Error() string { return string(d.Type) + ": " + d.Detail }

// Of returns the problem in an error. Any other error is serverInternal without
// its text, which is the authority's own business.
func Of(err error) *Document {
	if d, ok := errors.AsType[*Document](err); ok {
		return d
	}
	return New(ServerInternal, "the authority could not answer; its log has the reason")
}

func (t Type) status() int {
	switch t {
	case Unauthorized, OrderNotReady: // RFC 8555 §7.4 for the second
		return http.StatusForbidden
	case RateLimited: // RFC 6585 §4
		return http.StatusTooManyRequests
	case ServerInternal:
		return http.StatusInternalServerError
	}
	return http.StatusBadRequest
}

// URN is the type as it is sent.
func (t Type) URN() string { return prefix + string(t) }

type wireDocument struct {
	Type        string           `json:"type"`
	Detail      string           `json:"detail"`
	Status      int              `json:"status"`
	Algorithms  []string         `json:"algorithms,omitempty"`
	Subproblems []wireSubproblem `json:"subproblems,omitempty"`
}

type wireSubproblem struct {
	Type       string         `json:"type"`
	Detail     string         `json:"detail"`
	Identifier wireIdentifier `json:"identifier"`
}

type wireIdentifier struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// MarshalJSON has the form of RFC 7807.
func (d *Document) MarshalJSON() ([]byte, error) {
	out := wireDocument{Type: d.Type.URN(), Detail: d.Detail, Status: d.Status, Algorithms: d.Algorithms}
	for _, s := range d.Subproblems {
		out.Subproblems = append(out.Subproblems, wireSubproblem{s.Type.URN(), s.Detail, wireIdentifier{s.Kind, s.Value}})
	}
	return json.Marshal(out)
}

// Write answers a request with the problem.
func (d *Document) Write(w http.ResponseWriter) {
	body, err := json.Marshal(d)
	if err != nil { // it has strings and numbers only
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	if d.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(d.RetryAfter.Seconds()))))
	}
	if d.Location != "" {
		h.Set("Location", d.Location)
	}
	w.WriteHeader(d.Status)
	_, _ = w.Write(append(body, '\n')) // a client that is gone gets nothing
}

// TypeOf is the type of a URN; one that is not of ACME is serverInternal.
func TypeOf(urn string) Type {
	if t, ok := strings.CutPrefix(urn, prefix); ok {
		return Type(t)
	}
	return ServerInternal
}
