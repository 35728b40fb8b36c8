package audit

import (
	"crypto/x509"
	"slices"
)

// chainResult is what there is to say of a chain; zero before somebody has asked.
type chainResult int

const (
	chainFine       chainResult = iota + 1
	chainIncomplete             // an issuer is neither with the leaf nor in the bundle
	chainUntrusted              // it ends at a root that the bundle does not have
	chainInvalid                // a path exists and breaks a rule
)

// ruling is the verdict on the chain of one subject, with what it rests on.
type ruling struct {
	verdict  chainResult
	severity Severity
	text     string
	remedy   string                // "": that of the check
	paths    [][]*x509.Certificate // from the leaf to a root of the bundle; verified
	last     *x509.Certificate     // above the leaf, with which the paths end; nil without one
}

// firstToEnd is the certificate above the leaf that ends first, on the path that
// lasts longest.
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
