package format

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/artstore/artstore-pki/audit/cert"
)

// certNames are the endings of names of files that must hold a certificate. A file with
// such a name and without a certificate is a row of the report; any other file without
// one is passed over.
var certNames = []string{".crt", ".cer", ".cert", ".der", ".pem", ".p7b", ".p7c", ".p12", ".pfx", ".crl", ".spc", ".sst",
	".jks", ".jceks", ".keystore", ".truststore", ".bks", ".uber", ".bcfks"}

// onlyCertNames are the endings under which programs look for certificates only, so that
// a key without a certificate is a mistake there.
var onlyCertNames = []string{".crt", ".cer", ".cert", ".p7b", ".p7c"}

// Expects reports whether files of this name are expected to hold a certificate.
func Expects(path string) bool {
	return slices.Contains(certNames, ending(path)) || expectsContainer(path)
}

// ending returns the extension of a name in lower case, with its dot.
func ending(path string) string { return strings.ToLower(filepath.Ext(path)) }

// requireCertificate makes sure that a file or an entry whose name promises a certificate
// has a part that becomes a row. A file of another known kind, such as parameters of
// Diffie-Hellman, gets an unrelated document; under onlyCertNames it is an error.
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
