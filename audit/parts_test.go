package audit_test

import (
	"math/big"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/audit/cert"
)

// partialFields is what remains of a certificate that crypto/x509 refuses.
type partialFields struct {
	Raw                 []byte
	SerialNumber        *big.Int
	NotBefore, NotAfter time.Time
}

// remains are the fields of a certificate that crypto/x509 refuses, if it has dates.
func remains(data []byte) *partialFields {
	c := cert.ParsePartial(data)
	if c == nil || c.NotBefore.IsZero() || c.NotAfter.IsZero() {
		return nil
	}
	n, _ := new(big.Int).SetString(strings.TrimPrefix(c.Serial, "0x"), 16)
	return &partialFields{c.Raw, n, c.NotBefore, c.NotAfter}
}
