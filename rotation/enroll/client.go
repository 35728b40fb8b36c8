package enroll

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/secret"
)

const (
	// defaultTimeout bounds one request, if Config.Timeout is 0.
	defaultTimeout = 30 * time.Second
	// recordRows is how many certificates a page of the record has. With chains of 4 KiB
	// that is a megabyte.
	recordRows = 200
	// maxRecordPage bounds such a page, in bytes. A certificate with 100 names of 253
	// bytes takes 60 KiB with its chain.
	maxRecordPage = 16 << 20
)

// Client speaks the step API with one authority. It is made by [NewClient], and is safe for
// concurrent use. AuthorityName and TrustDigest must be set before the first request.
type Client struct {
	// TrustDigest is the digest of the trust bundle in effect here. If it is not empty,
	// the authority gets it with each request, and records it if the client shows a certificate.
	TrustDigest string
	// AuthorityName is [Config.AuthorityName].
	AuthorityName string

	reporter     string                                   // see Source.reporter; with TrustDigest; "" for none
	url          string                                   // https://host[:port]
	http         *http.Client                             // has the trust and the certificate; redirects are never followed
	checkRevoked func(chains [][]*x509.Certificate) error // checks the server by revocation lists; nil if there are none
	observe      func() func(http.Header)                 // if set, called when a request is sent; its result is called with the header of the answer
}

// NewClient returns a client for the authority at url, https://host[:port]. It trusts roots
// only, and shows cert if that is not nil. If another server under these roots answers,
// requests fail with [ErrNotAuthority] before anything is sent. The caller ends it with
// Close.
func NewClient(url string, roots []*x509.Certificate, cert *tls.Certificate) (*Client, error) {
	return dialer{timeout: defaultTimeout, dial: (&net.Dialer{}).DialContext}.newClient(url, roots, cert)
}

// URL returns the address of the authority, as NewClient got it.
func (c *Client) URL() string { return c.url }

// Close closes idle connections. It does not wait for requests under way.
func (c *Client) Close() {
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
}

// dialer has what all clients of one source share. A source makes a client for each
// operation, because roots and certificate are those of the identity in effect, and an
// http.Transport cannot change either.
type dialer struct {
	timeout      time.Duration
	name         string                            // Client.AuthorityName
	reporter     string                            // of every Client
	checkRevoked func([][]*x509.Certificate) error // of every Client; may be nil
	observe      func() func(http.Header)          // of every Client; may be nil
	keepAlive    bool                              // keep the connection between requests
	dial         func(ctx context.Context, network, addr string) (net.Conn, error)
}

// newClient makes a client that speaks TLS 1.3, trusts the given roots only, and keeps no
// connection unless d.keepAlive says so. A shared http.Client would have trust, proxies and cookies of other code.
func (d dialer) newClient(url string, roots []*x509.Certificate, cert *tls.Certificate) (*Client, error) {
	if _, err := parseURL(url); err != nil {
		return nil, err
	}
	if len(roots) == 0 {
		return nil, errors.New("no roots to trust the authority by")
	}
	c := &Client{url: url, AuthorityName: d.name, reporter: d.reporter, checkRevoked: d.checkRevoked, observe: d.observe}
	conf := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: certs.Pool(roots...), VerifyConnection: c.checkIsAuthority}
	if cert != nil {
		// Not Certificates: crypto/tls would send none of them if the server's
		// certificate_authorities (RFC 8446 §4.2.4) do not fit, and the authority would
		// answer 401.
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	transport := &http.Transport{ // without Proxy: the environment must not decide where identities come from
		TLSClientConfig:     conf,
		DialContext:         d.dial,
		TLSHandshakeTimeout: d.timeout,
		// So that no connection lives longer than its certificate. The owner of a client that
		// keeps its connection closes it in time.
		DisableKeepAlives: !d.keepAlive,
	}
	c.http = &http.Client{Transport: transport, Timeout: d.timeout}
	return c, nil
}

// Sign sends a CSR (PEM) and a one-time token, and returns a chain, leaf first. The caller
// must verify the chain and compare the key. The error is an [*Error] if the authority
// refuses, and another one if it was not reached.
func (c *Client) Sign(ctx context.Context, csr []byte, token secret.String) ([]*x509.Certificate, error) {
	return c.certify(ctx, apiRequest{
		operation: "requesting a certificate", path: stepapi.PathSign, secret: token,
		body: stepapi.SignRequest{CSR: string(csr), OTT: token.Expose()},
	})
}

// Renew returns a successor of the client's certificate for the same key. It is for keys
// that cannot be replaced, as in hardware; [Source] and the function [Renew] make a new
// key each time.
func (c *Client) Renew(ctx context.Context) ([]*x509.Certificate, error) {
	return c.certify(ctx, apiRequest{operation: "renewing the certificate", method: http.MethodPost, path: stepapi.PathRenew})
}

// Rekey returns a successor of the client's certificate for the key of the CSR (PEM). The
// authority copies the names of the old certificate and ignores those of the CSR.
func (c *Client) Rekey(ctx context.Context, csr []byte) ([]*x509.Certificate, error) {
	return c.certify(ctx, apiRequest{
		operation: "renewing the certificate", path: stepapi.PathRekey,
		body: stepapi.RekeyRequest{CSR: string(csr)},
	})
}

// Revoke revokes the certificate with the decimal serial number, for a reason of RFC 5280
// §5.3.1. It needs a revocation token; with the zero value, it revokes the certificate
// that the client shows.
func (c *Client) Revoke(ctx context.Context, serial string, reason int, token secret.String) error {
	var out stepapi.RevokeResponse
	err := c.callJSON(ctx, apiRequest{
		operation: "revoking the certificate", path: stepapi.PathRevoke, secret: token,
		body: stepapi.RevokeRequest{Serial: serial, OTT: token.Expose(), ReasonCode: reason, Passive: true},
	}, &out)
	if err == nil && out.Status != "ok" {
		return fmt.Errorf("revoking the certificate: unexpected status %q", oneLine(out.Status))
	}
	return err
}

// EnrolmentToken asks for a one-time token for another service. The client must show the
// certificate of an enroller in the authority's pki.yaml. The token is a secret: its holder
// can get a certificate of that service.
func (c *Client) EnrolmentToken(ctx context.Context, want stepapi.TokenRequest) (secret.String, error) {
	const doing = "requesting a token"
	var out stepapi.TokenResponse
	if err := c.callJSON(ctx, apiRequest{operation: doing, path: stepapi.PathToken, body: want}, &out); err != nil {
		return secret.String{}, err
	}
	token := secret.New(out.OTT)
	has, err := parseToken(token)
	if err != nil {
		return secret.String{}, fmt.Errorf("%s: %w", doing, err)
	}
	if has.subject != want.Service {
		return secret.String{}, fmt.Errorf("%s: the answer is a token for %q", doing, oneLine(has.subject))
	}
	return token, nil
}

// Roots fetches the trust bundle. It is never empty, and has CA certificates only.
func (c *Client) Roots(ctx context.Context) ([]*x509.Certificate, error) {
	const doing = "fetching the trust bundle"
	var out stepapi.RootsResponse
	if err := c.callJSON(ctx, apiRequest{operation: doing, path: stepapi.PathRoots}, &out); err != nil {
		return nil, err
	}
	roots, err := parseAll(out.Certificates)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	for _, r := range roots {
		if !r.BasicConstraintsValid || !r.IsCA {
			return nil, fmt.Errorf("%s: %s is not a CA certificate", doing, certs.Fingerprint(r))
		}
	}
	return roots, nil
}

// Health asks whether the authority serves.
func (c *Client) Health(ctx context.Context) error {
	const doing = "checking the authority"
	var out struct{ Status string }
	if err := c.callJSON(ctx, apiRequest{operation: doing, path: stepapi.PathHealth}, &out); err != nil {
		return err
	}
	if out.Status != "ok" {
		return fmt.Errorf("%s: status %q", doing, oneLine(out.Status))
	}
	return nil
}

// certify sends a request whose answer is a chain. It prefers the member certChain to crt
// and ca, because only certChain can have more than one intermediate.
func (c *Client) certify(ctx context.Context, req apiRequest) ([]*x509.Certificate, error) {
	var out stepapi.SignResponse
	if err := c.callJSON(ctx, req, &out); err != nil {
		return nil, err
	}
	blocks := out.Chain
	if len(blocks) == 0 { // older authorities
		blocks = []string{out.Certificate, out.CA}
	}
	chain, err := parseAll(blocks)
	if err != nil {
		return nil, fmt.Errorf("%s: reading the answer: %w", req.operation, err)
	}
	return chain, nil
}

// parseAll parses strings with one certificate (PEM) each. An empty list is an error, and so
// is a string with two certificates.
func parseAll(blocks []string) ([]*x509.Certificate, error) {
	certs := make([]*x509.Certificate, 0, len(blocks))
	for _, b := range blocks {
		c, err := pemfile.Certificates([]byte(b))
		if err != nil {
			return nil, fmt.Errorf("parsing certificates: %w", err)
		}
		if len(c) != 1 {
			return nil, fmt.Errorf("parsing certificates: %d where one belongs", len(c))
		}
		certs = append(certs, c[0])
	}
	if len(certs) == 0 {
		return nil, errors.New("parsing certificates: the list is empty")
	}
	return certs, nil
}

// RecordPage reads a page of the authority's record, with the certificates themselves.
// Certificates that expire last come first. cursor is "" for the first page, and Next of the
// page before for the others; the last page has no Next. The client must show the
// certificate of an auditor in the authority's pki.yaml.
func (c *Client) RecordPage(ctx context.Context, cursor string) (out stepapi.RecordPage, err error) {
	query := url.Values{"pem": {"true"}, "limit": {strconv.Itoa(recordRows)}}
	if cursor != "" {
		query.Set("cursor", cursor)
	}
	err = c.callJSON(ctx, apiRequest{operation: "reading the record", path: stepapi.PathRecordCertificates + "?" + query.Encode(), limit: maxRecordPage}, &out)
	return out, err
}

// RecordAuthorities returns the issuers of the certificates in the record: the trust bundle,
// and the other certificates of the authority, which are its intermediates and those that
// are not in use any more. It needs the same right as [Client.RecordPage].
func (c *Client) RecordAuthorities(ctx context.Context) (roots, others []*x509.Certificate, err error) {
	const doing = "reading the certificates of the authority"
	var out stepapi.RecordAuthorities
	if err := c.callJSON(ctx, apiRequest{operation: doing, path: stepapi.PathRecordAuthorities}, &out); err != nil {
		return nil, nil, err
	}
	if roots, err = parseAll(out.Roots); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", doing, err)
	}
	if others, err = parseAll(out.Others); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", doing, err)
	}
	return roots, others, nil
}

// Names for users of this module of what goes over the wire.
type (
	// TrustChange is one step of a change of trust.
	TrustChange = stepapi.TrustChange
	// TrustStatus says in which stages roots are, and who is not ready.
	TrustStatus = stepapi.TrustStatus
	// TrustRefusal is the error of a step that the authority has refused.
	TrustRefusal = stepapi.TrustRefusal
)

// maxStatus bounds what an operator is answered, in bytes. A row takes some 300.
const maxStatus = 32 << 20

// TrustStatus asks for the stages of the roots, and who is not ready. The client must show the
// certificate of an operator in the authority's pki.yaml.
func (c *Client) TrustStatus(ctx context.Context) (out TrustStatus, err error) {
	err = c.Operate(ctx, "reading the trust", stepapi.PathTrust, nil, &out)
	return out, err
}

// ChangeTrust asks the authority for one step of a change of trust, and returns the trust
// after it. The client must show the certificate of an operator. A step that the authority
// refuses is a [TrustRefusal]; its holders would be cut off.
func (c *Client) ChangeTrust(ctx context.Context, change TrustChange) (out TrustStatus, err error) {
	err = c.Operate(ctx, "changing the trust", stepapi.PathTrust, change, &out)
	if refused, ok := errors.AsType[*Error](err); ok && refused.Status == http.StatusConflict {
		why := new(TrustRefusal)
		if json.Unmarshal(refused.body, why) == nil {
			why.Message = refused.Message // printable
			return out, why
		}
	}
	return out, err
}

// Operate sends what an operator orders: a POST of in to a path of the authority's API such as
// /renewals, or a GET if in is nil. The answer, JSON of 32 MiB at most, goes into out. operation says
// in errors what was being done. The client must show the certificate of an operator in the
// authority's pki.yaml. A refusal is an [Error].
func (c *Client) Operate(ctx context.Context, operation, path string, in, out any) error {
	return c.callJSON(ctx, apiRequest{operation: operation, path: path, body: in, limit: maxStatus}, out)
}
