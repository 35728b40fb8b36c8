package format

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/audit/cert"
)

// certNames are the endings of files that are expected to hold a certificate:
// one that does not is a finding, elsewhere it is a file of something else.
var certNames = []string{".crt", ".cer", ".cert", ".der", ".pem", ".p7b", ".p7c", ".p12", ".pfx", ".crl", ".spc", ".sst",
	".jks", ".jceks", ".keystore", ".truststore", ".bks", ".uber", ".bcfks"}

// onlyCertNames are those of them under which programs look for nothing else: a key
// alone is a mistake there.
var onlyCertNames = []string{".crt", ".cer", ".cert", ".p7b", ".p7c"}

// Expects reports whether files of this name are expected to hold a certificate.
func Expects(path string) bool {
	return slices.Contains(certNames, ending(path)) || expectsContainer(path)
}

func ending(path string) string { return strings.ToLower(filepath.Ext(path)) }

// requireCertificate makes sure that a file or entry whose name promises a certificate has a
// part that is a row. What else is kept under such a name is no error, if it can be.
func requireCertificate(name string, parts []Part) []Part {
	only := slices.Contains(onlyCertNames, ending(name))
	other := ""
	for _, p := range parts {
		switch {
		case p.Cert != nil || p.DER != nil || p.Document != nil || p.Err != nil || p.IsKey && !only || p.In != nil && p.In.File != "":
			return parts
		case p.IsKey:
			other = "a private key"
		case p.Other != "":
			other = p.Other
		}
	}
	switch {
	case other == "":
		return append(parts, Part{Err: ErrNoCert})
	case only:
		return append(parts, Part{Err: fmt.Errorf("%w, but %s", ErrNoCert, other)})
	}
	return []Part{{Document: &cert.Document{What: other, Name: other, Unrelated: true}}}
}
