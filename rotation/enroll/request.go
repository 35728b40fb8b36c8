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
	// maxAnswer is above what any request may carry, because an answer holds whole chains and bundles.
	maxAnswer = 4 * stepapi.MaxBody
	// maxMessage bounds the authority's words in our errors, in runes.
	maxMessage = 200
	// minSecretPart is the length from which a part of a token is blotted out wherever it turns up.
	minSecretPart = 8
)

// Error is a refusal by the authority: it answered, and the answer was no.
// Network failures are other errors.
type Error struct {
	Status     int           // HTTP status
	Message    string        // the authority's reason, printable, at most 200 runes, without secrets
	RetryAfter time.Duration // what the authority asked for; 0 if it did not
	operation  string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: the authority answered %d: %s", e.operation, e.Status, e.Message)
}

// isDenied reports a verdict on the caller, which repeating the request will not change.
func (e *Error) isDenied() bool {
	return e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
}

// apiRequest is one request. Without a body it is a GET unless method says otherwise.
type apiRequest struct {
	operation, method, path string
	body                    any
	secret                  secret.String         // must not come back in an error
	bearer                  secret.String         // goes into the Authorization header; as secret
	tag                     string                // goes into If-None-Match; an answer of 304 is then no error
	limit                   int64                 // of the answer, in bytes; 0 means maxAnswer
	read                    func(io.Reader) error // if set, reads the body of a success in place of decode
}

// apiResponse is a successful answer.
type apiResponse struct {
	status int
	header http.Header
	body   []byte
}

// callJSON sends one request and decodes its answer into out. Nothing in here
// retries: whether that is safe and how soon is known only above. Foreign bytes
// enter errors through oneLine alone, and never from a body that is not the
// JSON of a refusal: a proxy's page has no place in a log.
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
		if ue := (*url.Error)(nil); errors.As(err, &ue) {
			err = ue.Err // its text would repeat method and address
		}
		return apiResponse{}, fmt.Errorf("%s: reaching the authority at %s: %w", in.operation, c.url, err)
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
		if c.TrustDigest != "" {
			req.Header.Set(stepapi.HeaderTrustDigest, c.TrustDigest)
		}
	}
	return req, nil
}

// refusal turns an answer that is not a success into an [Error].
func refusal(in apiRequest, resp *http.Response, body []byte) error {
	e := &Error{Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header), operation: in.operation}
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

// retryAfter reads the header of RFC 9110 §10.2.3, seconds or a date, at most a
// day: callers shorten it further, and a larger number would overflow on the way.
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
		from = date // both by the authority's clock: ours may be off
	}
	return min(max(at.Sub(from), 0), 24*time.Hour)
}

// isDenied reports a verdict of the authority on the caller, by an HTTP status
// or by an alert in the handshake, which is how crypto/tls refuses certificates.
func isDenied(err error) bool {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.isDenied()
	}
	return tlsalert.Text(err) != ""
}

// isTemporary reports a failure that may be over with the next attempt: the
// authority was not reached, was cut off, or says itself that it is busy.
func isTemporary(err error) bool {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Status >= http.StatusInternalServerError || e.Status == http.StatusTooManyRequests || e.Status == http.StatusRequestTimeout
	}
	if isDenied(err) {
		return false
	}
	// Not any net.Error: the error numbers of a full disk are that, too.
	var slow net.Error
	return errors.As(err, new(*net.OpError)) || errors.As(err, new(*net.DNSError)) || errors.As(err, &slow) && slow.Timeout() ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// retryAfterOf is what the authority asked for, 0 for an error that is not its answer.
func retryAfterOf(err error) time.Duration {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}

// redact removes every part of the token: an authority that quotes what it refused must not put it into our log.
func redact(message string, token secret.String) string {
	for part := range strings.SplitSeq(token.Expose(), ".") {
		if len(part) >= minSecretPart {
			message = strings.ReplaceAll(message, part, token.String())
		}
	}
	return message
}

// oneLine makes foreign text fit for an error and one line of the log.
func oneLine(s string) string { return printable.Line(s, maxMessage) }

// parseURL returns the address without a trailing slash, or says what is wrong with it.
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
