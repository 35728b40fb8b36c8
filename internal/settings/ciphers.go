package settings

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
)

// ciphers decides which cipher suites are offered.
//
// crypto/tls always offers all three suites of TLS 1.3, and so does OpenSSL's set_ciphers.
// ArtStore's own default names these three; Python passed it to set_ciphers, which failed,
// and no client started. Here a list that names all three is accepted, because it asks for
// what happens anyway. A list that leaves one out is refused: accepting it would claim a
// restriction that does not exist.
func (p *parser) ciphers() {
	const key = "tls.ciphers"
	var older []uint16
	var newer []string
	for _, name := range splitList(strings.ReplaceAll(p.out.TLS.ciphers, ":", ",")) {
		suite, why := findSuite(name)
		switch {
		case why != "":
			p.fail(key, fmt.Sprintf("%.60q %s", name, why))
		case suite.SupportedVersions[0] == tls.VersionTLS13:
			newer = append(newer, suite.Name)
		case p.out.TLS.MinVersion == tls.VersionTLS13:
			p.fail(key, fmt.Sprintf("%s is a suite of TLS 1.2, which TLS__PROTOCOL_VERSION=TLSv1.3 never speaks", name))
		case !slices.Contains(older, suite.ID):
			older = append(older, suite.ID)
		}
	}
	if absent := without(newer); len(newer) > 0 && len(absent) > 0 {
		p.fail(key, fmt.Sprintf("leaves out %s: the suites of TLS 1.3 cannot be chosen, all three are offered and all are good; name all or none",
			strings.Join(absent, " and ")))
	}
	p.out.TLS.CipherSuites = older
}

// without lists the suites of TLS 1.3 that are not among names.
func without(names []string) (out []string) {
	for _, s := range tls.CipherSuites() {
		if s.SupportedVersions[0] == tls.VersionTLS13 && !slices.Contains(names, s.Name) {
			out = append(out, s.Name)
		}
	}
	return out
}

// findSuite finds a suite by its IANA or its OpenSSL name, or says what is wrong with it.
func findSuite(name string) (suite *tls.CipherSuite, why string) {
	named := func(s *tls.CipherSuite) bool {
		return strings.EqualFold(s.Name, name) || strings.EqualFold(opensslName(s.Name), name)
	}
	if i := slices.IndexFunc(tls.CipherSuites(), named); i >= 0 {
		return tls.CipherSuites()[i], ""
	}
	if slices.ContainsFunc(tls.InsecureCipherSuites(), named) {
		return nil, "is insecure and never offered"
	}
	return nil, "is no cipher suite that is known here; OpenSSL's groups such as HIGH are not either"
}

// opensslName turns TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 into ECDHE-RSA-AES128-GCM-SHA256.
func opensslName(iana string) string {
	exchange, cipher, old := strings.Cut(strings.TrimPrefix(iana, "TLS_"), "_WITH_")
	if !old { // TLS 1.3: one name for all
		return iana
	}
	cipher = strings.NewReplacer("AES_128", "AES128", "AES_256", "AES256", "_CBC", "", "RC4_128", "RC4", "POLY1305_SHA256", "POLY1305", "3DES_EDE", "DES-CBC3").Replace(cipher)
	name := strings.ReplaceAll(exchange+"-"+cipher, "_", "-")
	return strings.TrimPrefix(name, "RSA-") // OpenSSL leaves out plain RSA
}
