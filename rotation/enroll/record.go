package enroll

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/url"
	"strconv"

	"github.com/artstore/artstore-pki/internal/stepapi"
)

const (
	// recordRows of a page: with chains of 4 KiB they are a megabyte.
	recordRows = 200
	// maxRecordPage bounds such a page, in bytes: a certificate with 100 names of 253 bytes and its chain takes 60 KiB.
	maxRecordPage = 16 << 20
)

// RecordPage reads a page of the authority's record, with the certificates themselves:
// those that expire last come first. cursor is "" for the first page and Next of the
// page before for the others; Next is "" in the last. The certificate that the client
// shows must be that of an auditor in the authority's pki.yaml.
func (c *Client) RecordPage(ctx context.Context, cursor string) (out stepapi.RecordPage, err error) {
	query := url.Values{"pem": {"true"}, "limit": {strconv.Itoa(recordRows)}}
	if cursor != "" {
		query.Set("cursor", cursor)
	}
	err = c.callJSON(ctx, apiRequest{operation: "reading the record", path: stepapi.PathRecordCertificates + "?" + query.Encode(), limit: maxRecordPage}, &out)
	return out, err
}

// RecordAuthorities returns what the certificates of the record lead to: the trust
// bundle, and the other certificates of the authority, which are its intermediates and
// what is no longer in use. It asks for the same right as [Client.RecordPage].
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
