package enroll

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"

	"github.com/artstore/artstore-pki/secret"
)

// blot removes every part of the token: an authority that quotes what it refused must not put it into our log.
func blot(message string, token secret.String) string {
	for part := range strings.SplitSeq(token.Expose(), ".") {
		if len(part) >= minSecretPart {
			message = strings.ReplaceAll(message, part, token.String())
		}
	}
	return message
}

// printable makes foreign text fit for one log line.
func printable(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n == maxMessage {
			b.WriteRune('…')
			break
		}
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			r = ' '
		}
		b.WriteRune(r)
		n++
	}
	return strings.TrimSpace(b.String())
}

// parseURL returns the address without a trailing slash, or says what is wrong with it.
func parseURL(raw string) (string, error) {
	u, err := url.Parse(raw)
	switch {
	case raw == "":
		return "", errors.New("no URL of the authority")
	case err != nil:
		return "", fmt.Errorf("parsing the URL of the authority: %w", err.(*url.Error).Err) //nolint:errorlint // url.Parse documents *url.Error
	case u.Scheme != "https":
		return "", fmt.Errorf("the URL of the authority must start with https://, got %q", printable(u.Redacted()))
	case u.Host == "" || u.Hostname() == "":
		return "", fmt.Errorf("the URL of the authority names no host: %q", printable(u.Redacted()))
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", errors.New("the URL of the authority must be https://host[:port] and nothing else")
	}
	return strings.TrimRight(raw, "/"), nil
}
