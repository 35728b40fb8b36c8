package rotation

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"
)

// ticketDay is how long one ticket key encrypts. Its successor still decrypts
// for as long, so a ticket is good for 24 to 48 hours: enough for sleepy peers,
// and the forward secrecy that a longer-lived key would cost.
const ticketDay = 24 * time.Hour

// ticketSecret is the root of all ticket keys of the process. A ticket holds the
// peer's verified chain, so who has the key can be anyone: the secret is random,
// never leaves the process and is never printed.
type ticketSecret struct{ prk []byte }

func newTicketSecret() ticketSecret {
	s := ticketSecret{prk: make([]byte, sha256.Size)}
	_, _ = rand.Read(s.prk) // does not fail; it would end the process
	return s
}

// keys derives today's key, which encrypts, and yesterday's, which still
// decrypts (RFC 5869). Equal scopes give equal keys: that is how resumption
// survives a renewal. Any difference gives unrelated ones: older tickets cannot
// be read, and the handshake falls back to a full one without an alert.
func (s ticketSecret) keys(day time.Time, scope []string) ([][32]byte, error) {
	h := sha256.New()
	for _, part := range scope {
		sum := sha256.Sum256([]byte(part)) // fixed size each: parts cannot run into each other
		_, _ = h.Write(sum[:])             // a hash does not fail
	}
	digest := h.Sum(nil)
	keys := make([][32]byte, 2)
	for i := range keys {
		info := binary.BigEndian.AppendUint64([]byte("artstore-pki session tickets v1 "), uint64(day.Add(-time.Duration(i)*ticketDay).Unix())) //nolint:gosec // G115: dates are positive
		key, err := hkdf.Expand(sha256.New, s.prk, string(append(info, digest...)), len(keys[i]))
		if err != nil {
			return nil, fmt.Errorf("deriving session ticket keys: %w", err)
		}
		copy(keys[i][:], key)
	}
	return keys, nil
}

// String keeps the secret out of every format verb.
func (ticketSecret) String() string { return "[redacted]" }

// GoString is String.
func (ticketSecret) GoString() string { return "[redacted]" }
