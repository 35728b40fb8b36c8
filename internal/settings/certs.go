package settings

import (
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/fileperm"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// soon is how far in the future the beginning of a certificate may be. A client waits for
// it so long, because clocks differ.
const soon = time.Minute

// identity decides where the certificate comes from, files or the authority, and reads the
// files. Both at once are an error: one of them would be ignored silently.
func (p *parser) identity(now time.Time) {
	t, a := &p.out.TLS, &p.out.Authority
	files := map[string]string{"tls.cert_file": t.Cert, "tls.key_file": t.Key, "tls.ca_cert_file": t.CA}
	switch {
	case !t.Enabled:
		return
	case a.URL != "":
		for key, path := range files {
			if path != "" {
				p.fail(key, "does not go with ARTSTORE_PKI_CA_URL: want the files or the authority")
			}
		}
		if strings.HasPrefix(strings.ToLower(a.URL), "http://") {
			p.fail("authority.url", "must start with https://")
		}
		if a.State == "" {
			p.missing("authority.state")
		}
		return
	}
	complete := true
	for key, path := range files {
		if path == "" {
			complete = false
			p.missing(key)
		}
	}
	if complete {
		p.certificate(now)
	}
}

// certificate checks the three files, each for itself and whether they fit each other. All
// problems are reported, so that an operator mends them in one go.
func (p *parser) certificate(now time.Time) {
	chain := p.read("tls.cert_file", p.out.TLS.Cert)
	if chain != nil {
		p.leaf(chain[0], now)
	}
	p.roots("tls.ca_cert_file", p.out.TLS.CA, now)
	path := p.out.TLS.Key
	info, err := os.Stat(path)
	if err != nil {
		p.fail("tls.key_file", "reading the key: "+err.Error())
		return
	}
	if fileperm.Exposed(info) {
		p.fail("tls.key_file", fmt.Sprintf("mode %04o of %s lets others read the key: want 0600 (0640 if root owns it)", info.Mode().Perm(), path))
	}
	data, _, err := readFile(path)
	if err != nil {
		p.fail("tls.key_file", "reading the key: "+err.Error())
		return
	}
	key, err := pemfile.PrivateKey(data)
	switch {
	case err != nil:
		p.fail("tls.key_file", fmt.Sprintf("reading the key in %s: %s", path, err))
	case chain != nil && !certs.Fits(chain[0], key):
		p.fail("tls.key_file", fmt.Sprintf("the key in %s does not fit the certificate in %s", path, p.out.TLS.Cert))
	}
}

// read returns the certificates in a file. It reports a problem and returns nil if there are
// none.
func (p *parser) read(key, path string) []*x509.Certificate {
	data, _, err := readFile(path)
	if err != nil {
		p.fail(key, "reading certificates: "+err.Error())
		return nil
	}
	certs, err := pemfile.Certificates(data)
	if err != nil {
		p.fail(key, fmt.Sprintf("reading certificates in %s: %s", path, err))
		return nil
	}
	return certs
}

// leaf checks what a server would refuse during the handshake, where the message is only an
// alert.
func (p *parser) leaf(leaf *x509.Certificate, now time.Time) {
	const key = "tls.cert_file"
	switch {
	case leaf.IsCA:
		p.fail(key, "the first certificate is an authority's: want the leaf first")
	case !now.Before(leaf.NotAfter):
		p.fail(key, "the certificate expired at "+leaf.NotAfter.UTC().Format(time.RFC3339))
	case leaf.NotBefore.After(now.Add(soon)):
		p.fail(key, "the certificate is not valid before "+leaf.NotBefore.UTC().Format(time.RFC3339))
	// ArtStore's compose files gave the ingester a server's certificate; a server refuses that.
	// A certificate without the extension is good for all (RFC 5280 §4.2.1.12).
	case len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 &&
		!slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		p.fail(key, "the certificate lacks clientAuth among its extended key usages: servers will refuse it")
	}
}

// roots checks a trust bundle. One expired certificate is allowed, as during a change of
// roots; only expired ones are not.
func (p *parser) roots(key, path string, now time.Time) {
	bundle, alive := p.read(key, path), false
	for _, c := range bundle {
		alive = alive || now.Before(c.NotAfter)
		if !c.IsCA {
			p.fail(key, fmt.Sprintf("%.60q is no authority's certificate: it can vouch for nobody", c.Subject.CommonName))
		}
	}
	if bundle != nil && !alive {
		p.fail(key, "every certificate of the bundle has expired")
	}
}
