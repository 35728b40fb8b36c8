package denial

import (
	"fmt"
	"net/http"
)

// What a client is told while the database is away: the text, and the seconds of the
// header Retry-After (RFC 9110 §10.2.3).
const (
	DatabaseAway  = "the authority's database is not available: try again in " + RetryDatabase + " s"
	RetryDatabase = "5"
)

// RequestError is an error of the client (4xx, 501 or 505). A 401 is counted and charged
// to the address, not recorded: an unauthenticated client could fill the record.
type RequestError struct {
	Status int // HTTP
	Text   string
}

func (e *RequestError) Error() string { return e.Text }

// BadRequest returns a [RequestError] with status 400.
func BadRequest(format string, args ...any) error {
	return &RequestError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// Unauthorized returns a [RequestError] with status 401: the request has no good credential.
func Unauthorized(format string, args ...any) error {
	return &RequestError{http.StatusUnauthorized, fmt.Sprintf(format, args...)}
}
