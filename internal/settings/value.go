package settings

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/secret"
)

// Types whose pointers say how a text is parsed.
type (
	address string // URL of a peer
	lookup  string // the same, with a query if need be
	size    int64  // bytes
	version uint16 // of TLS
)

// Words of [Setting.Type] that the code asks for.
const (
	typeBool     = "boolean"
	typeDuration = "duration"
	typeSize     = "size"
)

// off is the text that turns a limit off, and one of the words for false.
const off = "off"

// Type names the kind of text that the setting takes, in one word.
func (r Setting) Type() string {
	if len(r.Choices) > 0 {
		return "choice"
	}
	switch r.target(new(Settings)).(type) {
	case *bool:
		return typeBool
	case *time.Duration:
		return typeDuration
	case *size:
		return typeSize
	case *int:
		return "number"
	case *address, *lookup:
		return "URL"
	case *[]string:
		return "URLs"
	}
	if r.secret {
		return "secret"
	}
	return "text"
}

// parse turns text into the setting's value in s. Errors never quote a secret or an address,
// which may contain a password.
func (r Setting) parse(text string, s *Settings) (err error) {
	if len(r.Choices) > 0 {
		i := slices.IndexFunc(r.Choices, func(c string) bool { return strings.EqualFold(c, text) })
		if i < 0 {
			return fmt.Errorf("%.40q is not one of %s", text, strings.Join(r.Choices, ", "))
		}
		text = r.Choices[i]
	}
	switch v := r.target(s).(type) {
	case *string:
		*v = text
	case *Text:
		v.value = secret.New(text)
	case *[]string:
		*v, err = parseAddresses(text)
	case *address:
		*v, err = address(text), checkAddress(text, false)
	case *lookup:
		*v, err = lookup(text), checkAddress(text, true)
	case *bool:
		*v, err = parseBool(text)
	case *int:
		*v, err = parseCount(text)
	case *version:
		*v = tls.VersionTLS13
		if text == "TLSv1.2" {
			*v = tls.VersionTLS12
		}
	case *time.Duration:
		if *v = -1; !r.off || text != off {
			*v, err = parseDuration(text)
		}
	case *size:
		if *v = -1; !r.off || text != off {
			*v, err = parseSize(text)
		}
	}
	return err
}

// parseBool reads the words that pydantic accepts, ArtStore's own on and off among them.
func parseBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "on", "1", "yes":
		return true, nil
	case "false", off, "0", "no":
		return false, nil
	}
	return false, fmt.Errorf("%.40q is no switch: want true or false, on or off, yes or no, 1 or 0", text)
}

// parseDuration reads seconds, as ArtStore writes them, or what [humantime.Parse] reads. It
// must be more than 0. The comparison with the maximum is negated, so that NaN fails it.
func parseDuration(text string) (time.Duration, error) {
	d, err := humantime.Parse(text)
	if seconds, notANumber := strconv.ParseFloat(text, 64); notANumber == nil {
		if !(seconds < math.MaxInt64/float64(time.Second)) {
			return 0, fmt.Errorf("%.40q is too long", text)
		}
		d, err = time.Duration(seconds*float64(time.Second)), nil
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("%.40q is no length of time: want seconds such as 30 or 2.5, or 30s, 1m30s, 1d", text)
	case d <= 0:
		return 0, fmt.Errorf("%.40q is no time at all: want more than 0", text)
	}
	return d, nil
}

// sizeUnits are the units of sizes in lower case: those with an i are powers of 1024.
var sizeUnits = map[string]float64{
	"": 1, "b": 1, "k": 1e3, "kb": 1e3, "m": 1e6, "mb": 1e6, "g": 1e9, "gb": 1e9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
}

// parseSize reads a number of bytes, at least 1: 65536, 64KiB, 1.5MB, and 64KiB/s for rates.
func parseSize(text string) (size, error) {
	number := strings.TrimRight(strings.TrimSuffix(text, "/s"), "bBiIkKmMgG ")
	unit, known := sizeUnits[strings.ToLower(strings.TrimSpace(strings.TrimSuffix(text, "/s")[len(number):]))]
	n, err := strconv.ParseFloat(number, 64)
	switch {
	case err != nil || !known || math.IsNaN(n):
		return 0, fmt.Errorf("%.40q is no size: want bytes such as 65536, or 64KiB, 1MiB, 10MB", text)
	case n*unit < 1:
		return 0, fmt.Errorf("%.40q is no size at all: want 1 byte or more", text)
	case n*unit >= math.MaxInt64:
		return 0, fmt.Errorf("%.40q is too large", text)
	}
	return size(n * unit), nil
}

// maxCount bounds numbers, such as those of connections and retries.
const maxCount = 100_000

// parseCount reads a whole number from 0 to maxCount.
func parseCount(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > maxCount {
		return 0, fmt.Errorf("%.40q is not a whole number from 0 to %d", text, maxCount)
	}
	return n, nil
}

// parseAddresses reads a list of addresses. An address twice is an error.
func parseAddresses(text string) ([]string, error) {
	var errs []error
	list := splitList(text)
	named := map[string]bool{}
	for _, a := range list {
		errs = append(errs, checkAddress(a, false))
		if base := strings.TrimSuffix(a, "/"); named[base] {
			errs = append(errs, errors.New("names the same address twice"))
		} else {
			named[base] = true
		}
	}
	return list, errors.Join(errs...)
}

// splitList splits a list at commas and blanks. Empty items are left out.
func splitList(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' })
}

// checkAddress checks the URL of a server. The error never quotes it, because it may contain
// a password.
func checkAddress(text string, query bool) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("is not a URL")
	case u.Scheme != "https" && u.Scheme != "http":
		return errors.New("must start with https://")
	case u.Hostname() == "":
		return errors.New("has no host")
	case u.User != nil:
		return errors.New("must not carry a user or password")
	case u.RawQuery != "" && !query || u.Fragment != "":
		return errors.New("must end with its path")
	}
	return nil
}

// displayValue returns the text as it may be printed: a secret, or a URL with a password, is
// redacted.
func (r Setting) displayValue(text string) string {
	if r.secret {
		return secret.New(text).String()
	}
	if !strings.Contains(text, "@") {
		return text
	}
	words := strings.Split(text, " ")
	for i, w := range words { // an address with a password is an error, and its password still not to be shown
		if u, err := url.Parse(w); strings.Contains(w, "://") && (err != nil || u.User != nil) {
			words[i] = secret.New(w).String()
		}
	}
	return strings.Join(words, " ")
}
