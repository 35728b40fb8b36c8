package audit

import "crypto/x509"

// Pure functions under names of their own.
var (
	Span         = span
	ParseAddress = parseAddress
)

// Part is one block of a file, for the external tests.
type Part struct {
	Cert *x509.Certificate
	Err  error
}

// Remains is remains.
var Remains = remains

// Parse is parse.
func Parse(data []byte) (out []Part) {
	for _, p := range parse(data) {
		out = append(out, Part{p.cert, p.err})
	}
	return out
}
