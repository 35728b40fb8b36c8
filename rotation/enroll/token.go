package enroll

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/artstore/artstore-pki/internal/jws"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/secret"
)

const (
	maxToken = 16 << 10 // bytes; normal ones are below 2 KiB
	maxNames = stepapi.MaxNames
)

// claims are the claims of an enrolment token. Its signature is not verified, which only the
// authority can do. They are used only for what the holder of the token may decide: which
// names to ask for, and which root to trust.
type claims struct {
	subject string
	names   []string     // never empty: if the token has none, the subject is the name, as for the authority
	pin     *fingerprint // of a root; nil if the token has none
}

// parseToken reads the claims of a token. Its errors never quote the token, so they do not
// wrap those of encoding/json and jws.
//
// It does not check the times: the clock of the authority decides whether the token has
// expired, and the clock here may be wrong.
func parseToken(token secret.String) (claims, error) {
	raw := token.Expose()
	if len(raw) > maxToken {
		return claims{}, fmt.Errorf("reading the token: longer than %d bytes", maxToken)
	}
	parts, ok := jws.Split(raw)
	if !ok {
		return claims{}, errors.New("reading the token: not a JWT (three parts joined by dots)")
	}
	payload, err := jws.Decode(parts.Payload)
	if err != nil {
		return claims{}, errors.New("reading the token: its second part is not base64url")
	}
	var wire struct {
		Subject string   `json:"sub"`
		Names   []string `json:"sans"`
		Root    string   `json:"sha"`
	}
	if err := json.Unmarshal(payload, &wire); err != nil {
		return claims{}, errors.New("reading the token: its claims are not the JSON expected")
	}
	c := claims{subject: wire.Subject, names: wire.Names}
	switch {
	case c.subject == "":
		return claims{}, errors.New("reading the token: it names no subject")
	case len(c.names) > maxNames:
		return claims{}, fmt.Errorf("reading the token: %d names, at most %d are allowed", len(c.names), maxNames)
	case len(c.names) == 0:
		c.names = []string{c.subject}
	}
	if wire.Root != "" {
		if c.pin, err = parseFingerprint(wire.Root); err != nil {
			return claims{}, fingerprintError("reading the token: its root fingerprint is not a SHA-256 in hex")
		}
	}
	return c, nil
}
