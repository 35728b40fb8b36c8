package audit

import (
	"crypto/x509"
	"slices"
)

// chainResult is the result of verifying a chain. Zero means that it was not verified.
type chainResult int

const (
	chainFine       chainResult = iota + 1
	chainIncomplete             // an issuer is neither with the leaf nor in the bundle
	chainUntrusted              // it ends at a root that the bundle does not have
	chainInvalid                // a path exists and breaks a rule
)

// ruling is the verdict on the chain of one subject, with its reasons.
type ruling struct {
	verdict  chainResult
	severity Severity
	text     string
	remedy   string                // "" means the remedy of the check
	paths    [][]*x509.Certificate // verified, from the leaf to a root of the bundle
	last     *x509.Certificate     // see firstToEnd; nil without a path
}

// firstToEnd returns the issuer that ends first on the path that lasts longest. From its end
// on no path verifies. It returns nil if no path has an issuer.
func firstToEnd(paths [][]*x509.Certificate) (last *x509.Certificate) {
	for _, path := range paths {
		if len(path) == 1 {
			continue // it is in the bundle itself
		}
		first := slices.MinFunc(path[1:], func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
		if last == nil || first.NotAfter.After(last.NotAfter) {
			last = first
		}
	}
	return last
}
