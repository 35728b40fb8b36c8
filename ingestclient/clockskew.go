package ingestclient

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"time"
)

// clockSlack is the difference between clocks that is not reported: a Date has whole
// seconds, and services allow about as much.
const clockSlack = 5 * time.Second

// dates are the NumericDate claims of a JWT (RFC 7519 §4.1). Zero is absent.
type dates struct{ issued, notBefore, expires time.Time }

// numericDate reads a claim. The result is zero for anything but a number of seconds between
// 1970 and the year 36812.
func numericDate(claim any) time.Time {
	seconds, ok := claim.(float64)
	if !ok || !(seconds > 0 && seconds < 1<<40) {
		return time.Time{}
	}
	whole, part := math.Modf(seconds)
	return time.Unix(int64(whole), int64(part*float64(time.Second)))
}

// redact removes the token from an answer.
func (t *token) redact(raw []byte) []byte {
	if t == nil {
		return raw
	}
	return bytes.ReplaceAll(raw, []byte(t.secret.Expose()), []byte("[redacted]"))
}

// explain adds to a 401 which clock is wrong, if t was not valid by the clock of the
// element that rejected it. That clock is the Date of its answer to the request that
// was sent at that time. The clock of the issuer is in iat, which it set while the
// client waited for the token.
func (t *token) explain(rejected error, h http.Header, sent time.Time) error {
	there, err := http.ParseTime(h.Get("Date"))
	if t == nil || err != nil {
		return rejected
	}
	from := t.issued
	if t.notBefore.After(from) {
		from = t.notBefore
	}
	var why string
	switch {
	case !from.IsZero() && from.Sub(there) > clockSlack:
		why = "the token is valid from " + clockTime(from)
	case !t.expires.IsZero() && there.Sub(t.expires) > clockSlack:
		why = "the token expired at " + clockTime(t.expires)
	default:
		return rejected
	}
	why += ", and at the storage element it is " + clockTime(there)
	if off := clockOff(there, sent, time.Now()).Round(time.Second); off.Abs() > clockSlack {
		why += "; the clock of the storage element is " + direction(off)
	}
	// A token from a cache of the issuer has an older iat, so only a later iat shows a
	// fast clock. A slow clock shows in exp: the life is shorter than expires_in.
	if off := t.issuerOffset(); off.Abs() > clockSlack {
		why += "; the clock of the token endpoint is " + direction(off)
	}
	return fmt.Errorf("%w: %w: %s", rejected, ErrClock, why)
}

// issuerOffset returns how far the issuer's clock is ahead of ours.
func (t *token) issuerOffset() time.Duration {
	begun := t.start.Round(0)
	switch {
	case t.issued.After(t.got):
		return t.issued.Sub(t.got).Round(time.Second)
	case !t.expires.IsZero() && t.expires.Before(begun.Add(t.promised)):
		return t.expires.Sub(begun.Add(t.promised)).Round(time.Second)
	}
	return 0
}

// clockOff returns how far a server's clock is ahead of ours, if it was at there at some
// moment between sent and got. The result is 0 if there is between the two: an answer
// can take long although the clock is right.
func clockOff(there, sent, got time.Time) time.Duration {
	sent, got = sent.Round(0), got.Round(0) // without monotonic readings, which there has not
	switch {
	case there.Before(sent):
		return there.Sub(sent)
	case there.After(got):
		return there.Sub(got)
	}
	return 0
}

func direction(off time.Duration) string {
	if off < 0 {
		return fmt.Sprintf("%s behind ours", -off)
	}
	return fmt.Sprintf("%s ahead of ours", off)
}

func clockTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }
