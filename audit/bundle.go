package audit

import (
	"bytes"
	"slices"
)

// A file above largeFile is a bundle of thousands of certificates. These are
// decoded over the text that they were written as, and each is parsed when its
// turn has come, so that the file costs its size and no more. What they share, the
// authorities and keys in the file, is parsed at once.

// inPlace is plain for a bundle, whose data nobody uses afterwards.
func (o *opening) inPlace() func(data []byte) (p parsed, rest []byte, ok bool) {
	room := make([]byte, usualFile)
	return func(data []byte) (p parsed, rest []byte, ok bool) {
		der, rest, ok := plainBlock(data, room)
		if !ok {
			return p, nil, false
		}
		der = data[:copy(data, der):len(der)]
		if mayIssue(der) {
			p.cert, p.err = o.certificate(der)
		} else {
			p.der = der
		}
		return p, rest, true
	}
}

// awake parses what was put off.
func (o *opening) awake(p *parsed) {
	if p.der != nil {
		p.cert, p.err = o.certificate(p.der)
	}
}

// oidConstraints is the object identifier of basicConstraints (RFC 5280 section
// 4.2.1.9) in DER. What follows it in a certificate that is no authority's is one
// of notAuthority.
var (
	oidConstraints = []byte("\x06\x03\x55\x1d\x13")
	notAuthority   = [][]byte{
		[]byte("\x04\x02\x30\x00"), []byte("\x04\x05\x30\x03\x01\x01\x00"),
		[]byte("\x01\x01\xff\x04\x02\x30\x00"), []byte("\x01\x01\xff\x04\x05\x30\x03\x01\x01\x00"),
	}
)

// mayIssue tells without parsing whether a certificate may be an authority's. The
// bytes of the identifier may be part of something else, so each place counts.
func mayIssue(der []byte) bool {
	for {
		_, rest, found := bytes.Cut(der, oidConstraints)
		if !found {
			return false
		}
		if !slices.ContainsFunc(notAuthority, func(p []byte) bool { return bytes.HasPrefix(rest, p) }) {
			return true
		}
		der = rest
	}
}
