package rotation

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"
)

// ticketDay is for how long one ticket key encrypts. For as long again it still
// decrypts, so a ticket is good for 24 to 48 hours. A longer life would weaken forward
// secrecy: a stolen key decrypts all tickets of its time.
const ticketDay = 24 * time.Hour

// ticketSecret is the secret that all ticket keys of an Identity are derived from. A
// ticket holds the verified chain of the peer, so a holder of the key can pose as any
// peer. The secret is random, never leaves the process and is never printed.
type ticketSecret struct{ prk []byte }

func newTicketSecret() ticketSecret {
	s := ticketSecret{prk: make([]byte, sha256.Size)}
	_, _ = rand.Read(s.prk) // does not fail; it would end the process
	return s
}

// keys derives two keys (RFC 5869 §2.3): that of day, which encrypts, and that of the day
// before, which still decrypts. Equal scopes give equal keys, so resumption survives a
// renewal. Another scope gives unrelated keys: older tickets then cannot be read, and the
// handshake becomes a full one, without an alert.
func (s ticketSecret) keys(day time.Time, scope []string) ([][32]byte, error) {
	h := sha256.New()
	for _, part := range scope {
		sum := sha256.Sum256([]byte(part)) // of fixed size, so the borders between parts are part of the digest
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
