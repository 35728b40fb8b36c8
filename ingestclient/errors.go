package ingestclient

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Errors for errors.Is, those about tokens first.
var (
	// ErrCredentials: unknown client id, or wrong secret, key or certificate.
	ErrCredentials = errors.New("credentials refused")
	// ErrTokenEndpoint: unreachable, overloaded or failing.
	ErrTokenEndpoint = errors.New("token endpoint unavailable")
	// ErrTokenAnswer: 200 without a token that can be sent.
	ErrTokenAnswer = errors.New("token answer not usable")
	// ErrTokenBinding: the token is bound to another certificate than ours (RFC 8705 §3):
	// a proxy on the way to the endpoint ends TLS.
	ErrTokenBinding = errors.New("token is bound to another certificate")
	// ErrUnauthorized: 401, also with a new token. It comes with [ErrClock] if a wrong clock explains it.
	ErrUnauthorized = errors.New("token rejected by the storage element")
	// ErrForbidden: 403.
	ErrForbidden = errors.New("not allowed")
	// ErrTooLarge: 413, with several elements from each of them.
	ErrTooLarge = errors.New("file too large")
	// ErrFull: 507, with several elements from each of them.
	ErrFull = errors.New("storage full")
	// ErrMode: 409, or 400 in the Python dialect.
	ErrMode = errors.New("storage element does not take uploads in its mode")
	// ErrRegistry: Config.RegistryURL did not give a list, and there is no older one.
	ErrRegistry = errors.New("storage elements cannot be listed")
	// ErrNotFound: 404, with several elements from each of them.
	ErrNotFound = errors.New("no such file")
	// ErrRejected: any other 3xx and 4xx.
	ErrRejected = errors.New("request rejected")
	// ErrServer: 408, 425, 429 and 5xx.
	ErrServer = errors.New("storage element failed")
	// ErrUnavailable: the element says that it is not ready; from Client.Probe only.
	ErrUnavailable = errors.New("storage element is not ready")
	// ErrClock: a rejected token was not yet valid, or expired, by the clock of the element
	// that rejected it.
	ErrClock = errors.New("the clocks differ")
	// ErrAnswer: 2xx, but not in the form of the API.
	ErrAnswer = errors.New("answer not usable")
	// ErrChecksum: by size or SHA-256; RequestError.FileID names it.
	ErrChecksum = errors.New("stored content differs from what was sent")
	// ErrFileChanged: nothing was stored.
	ErrFileChanged = errors.New("file changed while it was read")
	// ErrContent: it could not be read, or its size is negative. Nothing was stored.
	ErrContent = errors.New("reading the content failed")
	// ErrConnection: there is none, or it was lost.
	ErrConnection = errors.New("connection failed")
	// ErrTLSPeer: one side did not accept the other; also every [ErrServerCertificate] and
	// [ErrClientCertificate].
	ErrTLSPeer = errors.New("TLS peer refused")
	// ErrServerCertificate: we do not accept the certificate of the server.
	ErrServerCertificate = fmt.Errorf("certificate of the server not accepted: %w", ErrTLSPeer)
	// ErrClientCertificate: the server does not accept ours.
	ErrClientCertificate = fmt.Errorf("the server does not accept our certificate: %w", ErrTLSPeer)
	// ErrStalled: Config.StallTimeout.
	ErrStalled = errors.New("no byte moved within the stall timeout")
	// ErrTooSlow: Config.MinRate.
	ErrTooSlow = errors.New("slower than the minimum rate")
	// ErrNoAnswer: Config.ResponseTimeout.
	ErrNoAnswer = errors.New("no answer within the response timeout")
	// ErrAmbiguous: repeated only with an id that makes it safe.
	ErrAmbiguous = errors.New("sent completely, outcome unknown: it may be stored")
	// ErrClosed: Shutdown or Close was called.
	ErrClosed = errors.New("ingest client is closed")
)

// AuthError is a failure to get a token. It never has the message or the body of the
// endpoint's answer, because endpoints repeat the request there, with the secret.
type AuthError struct {
	Status     int           // HTTP status, 0 if there was no answer
	Code       string        // OAuth error code (RFC 6749 §5.2) if it is a known one, else ""
	RetryAfter time.Duration // the earliest time of the next request, counted from the failure
	Temporary  bool          // if false, the same secret and certificate will be refused again
	Err        error         // one of the sentinels above, possibly with its cause
}

func (e *AuthError) Error() string {
	var b strings.Builder
	b.WriteString("fetching a token: ")
	if e.Status != 0 {
		fmt.Fprintf(&b, "status %d", e.Status)
		if e.Code != "" {
			b.WriteString(" " + e.Code)
		}
		b.WriteString(": ")
	}
	fmt.Fprint(&b, e.Err)
	return b.String()
}

func (e *AuthError) Unwrap() error { return e.Err }

// RequestError is a failed request to a Storage Element. Err may hold several of
// the sentinels, such as [ErrConnection] with [ErrAmbiguous].
type RequestError struct {
	Op        string // "uploading", "downloading", "looking up", "listing" or "probing"
	Name      string // the file's name, or its id; the path of a probe; "files" of a list
	Element   string // base URL of the Storage Element, "" if none was chosen yet
	Status    int    // HTTP status, 0 if there was no answer
	Code      string // the answer's error code, "" if it has none
	Message   string // the answer's message, shortened and without anything that looks like a token
	FileID    string // the id of what was stored, if the answer named it
	Sent      int64  // bytes of content handed to the connection
	Attempt   int    // counted from 1
	Retryable bool   // sending it again cannot store it twice, and may help
	Err       error

	retryAfter time.Duration
	token      *token // the one that was sent, after a 401
	retired    *lease // the one whose generation was retired; nothing was sent
	elsewhere  bool   // another element may be tried at once
}

func (e *RequestError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: ", e.Op, e.Name)
	if e.Status != 0 {
		fmt.Fprintf(&b, "status %d", e.Status)
		if e.Code != "" {
			b.WriteString(" " + e.Code)
		}
		if e.Message != "" {
			fmt.Fprintf(&b, " (%s)", e.Message)
		}
		b.WriteString(": ")
	}
	b.WriteString(strings.ReplaceAll(e.Err.Error(), "\n", ": "))
	return b.String()
}

func (e *RequestError) Unwrap() error { return e.Err }
