package enroll

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/internal/tlsalert"
	"github.com/artstore/artstore-pki/secret"
)

const (
	// maxAnswer bounds an answer, in bytes. It is above the bound of requests, because an
	// answer has whole chains and bundles.
	maxAnswer = 4 * stepapi.MaxBody
	// maxMessage bounds text of the authority in errors, in runes.
	maxMessage = 200
	// minSecretPart is the length in bytes from which a part of a token is redacted.
	minSecretPart = 8
)

// Error is an answer of the authority that refuses a request. Failures to reach it are
// other errors.
type Error struct {
	Status     int           // HTTP status
	Message    string        // the reason, as the authority says it: printable, at most 200 runes, without secrets
	RetryAfter time.Duration // as the authority asked for, at most a day; 0 if it did not
	operation  string
	body       []byte // as the authority sent it; maxAnswer bytes at most
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: the authority answered %d: %s", e.operation, e.Status, e.Message)
}

// refusesCaller reports whether the authority refused the caller (401 or 403). To repeat the
// request soon is then of no use.
func (e *Error) refusesCaller() bool {
	return e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
}

// apiRequest is one request. Without method it is a POST if it has a body, else a GET.
type apiRequest struct {
	operation, method, path string
	body                    any                   // is sent as JSON
	secret                  secret.String         // must not appear in an error
	bearer                  secret.String         // is sent in the Authorization header; must not appear either
	tag                     string                // is sent as If-None-Match; status 304 is then no error
	limit                   int64                 // of the answer, in bytes; 0 means maxAnswer
	read                    func(io.Reader) error // if set, reads the body of a success
}

// apiResponse is a successful answer.
type apiResponse struct {
	status int
	header http.Header
	body   []byte
}

// callJSON sends one request and decodes its answer into out. It never retries: only the
// callers know whether and when that is safe. Errors have text of the server only from the
// JSON of a refusal, through oneLine; a page of a proxy does not get into a log.
func (c *Client) callJSON(ctx context.Context, in apiRequest, out any) error {
	r, err := c.roundTrip(ctx, in)
	if err != nil {
		return err
	}
	return c.decode(in, r, out)
}

func (c *Client) decode(in apiRequest, r apiResponse, out any) error {
	if err := json.Unmarshal(r.body, out); err != nil {
		return fmt.Errorf("%s: %s does not speak the step API: the answer is not the JSON expected", in.operation, c.url)
	}
	return nil
}

// roundTrip sends one request and reads the answer. The result is a success; everything
// else is an error.
func (c *Client) roundTrip(ctx context.Context, in apiRequest) (apiResponse, error) {
	req, err := c.newRequest(ctx, in)
	if err != nil {
		return apiResponse{}, fmt.Errorf("%s: %w", in.operation, err)
	}
	if c.http == nil { // http.DefaultClient would trust the system's roots
		return apiResponse{}, fmt.Errorf("%s: the client was not made by NewClient", in.operation)
	}
	arrived := func(http.Header) {}
	if c.observe != nil {
		arrived = c.observe()
	}
	direct := *c.http
	direct.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := direct.Do(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err // the text of ue repeats method and address
		}
		return apiResponse{}, noAnswer{fmt.Errorf("%s: reaching the authority at %s: %w", in.operation, c.url, err)}
	}
	arrived(resp.Header)
	defer func() { _ = resp.Body.Close() }() // read only: nothing to lose
	limit := in.limit
	if limit == 0 {
		limit = maxAnswer
	}
	success := resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusCreated
	from := http.MaxBytesReader(nil, resp.Body, limit)
	var body []byte
	if success && in.read != nil {
		err = in.read(from)
	} else {
		body, err = io.ReadAll(from)
	}
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		return apiResponse{}, fmt.Errorf("%s: the answer of %s is longer than %d bytes", in.operation, c.url, limit)
	case err != nil:
		return apiResponse{}, fmt.Errorf("%s: reading the answer of %s: %w", in.operation, c.url, err)
	case success, resp.StatusCode == http.StatusNotModified && in.tag != "":
		return apiResponse{resp.StatusCode, resp.Header, body}, nil
	}
	return apiResponse{}, refusal(in, resp, body)
}

func (c *Client) newRequest(ctx context.Context, in apiRequest) (*http.Request, error) {
	base, err := parseURL(c.url)
	if err != nil {
		return nil, err
	}
	method, body := http.MethodGet, io.Reader(http.NoBody)
	if in.body != nil {
		b, err := json.Marshal(in.body)
		if err != nil {
			return nil, err
		}
		method, body = http.MethodPost, bytes.NewReader(b)
	}
	if in.method != "" {
		method = in.method
	}
	req, err := http.NewRequestWithContext(ctx, method, base+stepapi.Prefix+in.path, body)
	if err != nil {
		return nil, err
	}
	if !in.bearer.IsZero() {
		req.Header.Set("Authorization", "Bearer "+in.bearer.Expose())
	}
	if in.tag != "" {
		req.Header.Set("If-None-Match", in.tag)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.TrustDigest != "" {
		req.Header.Set(stepapi.HeaderTrustDigest, c.TrustDigest)
	}
	if c.reporter != "" {
		req.Header.Set(stepapi.HeaderReporter, c.reporter)
	}
	return req, nil
}

// refusal turns an answer that is not a success into an [Error].
func refusal(in apiRequest, resp *http.Response, body []byte) error {
	e := &Error{Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header), operation: in.operation, body: body}
	var wire stepapi.Error
	switch err := json.Unmarshal(body, &wire); {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		e.Message = "a redirect, which is not followed"
	case err != nil || wire.Message == "":
		e.Message = http.StatusText(resp.StatusCode)
	default:
		e.Message = oneLine(redact(redact(wire.Message, in.secret), in.bearer))
	}
	return e
}

// retryAfter reads the header Retry-After (RFC 9110 §10.2.3), seconds or a date. The result
// is a day at most, so that callers can compute with it without an overflow.
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if s, err := strconv.Atoi(v); err == nil {
		return time.Duration(min(max(s, 0), int(24*time.Hour/time.Second))) * time.Second
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	from := time.Now()
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		from = date // the authority's clock wrote both dates
	}
	return min(max(at.Sub(from), 0), 24*time.Hour)
}

// isDenied reports whether the authority refused the caller, by status 401 or 403 or by an
// alert in the handshake: a server with crypto/tls refuses certificates so.
func isDenied(err error) bool {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.refusesCaller()
	}
	return tlsalert.Text(err) != ""
}

// isTemporary reports whether the next attempt may succeed: the authority was not reached,
// the connection broke, or the authority is busy.
func isTemporary(err error) bool {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status >= http.StatusInternalServerError || e.Status == http.StatusTooManyRequests || e.Status == http.StatusRequestTimeout
	}
	if isDenied(err) {
		return false
	}
	// Not every net.Error: a syscall.Errno, as of a full disk, is a net.Error too.
	var slow net.Error
	return errors.As(err, new(*net.OpError)) || errors.As(err, new(*net.DNSError)) || errors.As(err, &slow) && slow.Timeout() ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// noAnswer is the error of a request that has got no answer.
type noAnswer struct{ error }

func (e noAnswer) Unwrap() error { return e.error }

// retryAfterOf returns the Retry-After of an [Error], and 0 for other errors.
func retryAfterOf(err error) time.Duration {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.RetryAfter
	}
	return 0
}

// redact removes the parts of a token from a message: an authority may quote the token
// that it refuses, and the message gets into logs.
func redact(message string, token secret.String) string {
	for part := range strings.SplitSeq(token.Expose(), ".") {
		if len(part) >= minSecretPart {
			message = strings.ReplaceAll(message, part, token.String())
		}
	}
	return message
}

// oneLine makes foreign text printable, on one line and of maxMessage runes at most.
func oneLine(s string) string { return printable.Line(s, maxMessage) }

// parseURL returns the address of an authority without a slash at its end, or an error if
// it is not https://host[:port].
func parseURL(raw string) (string, error) {
	u, err := url.Parse(raw)
	switch {
	case raw == "":
		return "", errors.New("no URL of the authority")
	case err != nil:
		return "", fmt.Errorf("parsing the URL of the authority: %w", err.(*url.Error).Err) //nolint:errorlint // url.Parse documents *url.Error
	case u.Scheme != "https":
		return "", fmt.Errorf("the URL of the authority must start with https://, got %q", oneLine(u.Redacted()))
	case u.Host == "" || u.Hostname() == "":
		return "", fmt.Errorf("the URL of the authority names no host: %q", oneLine(u.Redacted()))
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", errors.New("the URL of the authority must be https://host[:port] and nothing else")
	}
	return strings.TrimRight(raw, "/"), nil
}
