package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/credentials"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/hints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/pages"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// This file makes a source of an audit of the record of an authority. The package audit
// knows no database and no API.

// flagRecord is a state directory or the URL of an authority.
const flagRecord = "record"

// recordSource returns the record that --record names as a source that judges at now: the
// record of a state directory, or, if the name has a :// in it, that of a running authority.
// The caller calls release when the audit is over.
func recordSource(c *cli.Context, now time.Time) (source audit.Source, release func(), err error) {
	if name := c.String(flagRecord); !strings.Contains(name, "://") {
		return localRecord(c.Context, name, flagRecord, now)
	}
	return remoteRecord(c, now)
}

// remoteRecord returns the record of a running authority as a source. It asks over mutual TLS
// with the certificate of --cert, whose service the authority must list under auditors in
// pki.yaml.
func remoteRecord(c *cli.Context, now time.Time) (source audit.Source, release func(), err error) {
	address := c.String(flagRecord)
	if err := flags.HTTPSURL(flagRecord, address); err != nil {
		return nil, nil, err
	}
	files := credentials.FilesOf(c)
	if files.Cert == "" {
		return nil, nil, ui.WithHint(ui.UsageErrorf("--%s %s wants --%s", flagRecord, address, credentials.Cert),
			"the certificate of a service in auditors of pki.yaml: a directory that issue wrote, or a file with --%s and --%s", credentials.Key, credentials.CACert)
	}
	cert, roots, err := files.Read()
	if err != nil {
		return nil, nil, err
	}
	record, release, err := askRecord(c.Context, address, cert, roots)
	record.Now = now
	return record, release, err
}

// askRecord returns the record of the authority at a URL. The certificates of the authority are
// asked for at once, so that a refusal ends the command before anything is audited.
func askRecord(ctx context.Context, address string, cert *tls.Certificate, roots []*x509.Certificate) (audit.Record, func(), error) {
	client, err := enroll.NewClient(address, roots, cert)
	if err != nil {
		return audit.Record{}, nil, err
	}
	roots, issuers, err := client.RecordAuthorities(ctx)
	if err != nil {
		client.Close()
		return audit.Record{}, nil, hints.Refused(err, "auditors in pki.yaml of the authority lists who may read its record")
	}
	return audit.Record{Name: address, List: pages.All(remotePages(client)), Roots: roots, Issuers: issuers}, client.Close, nil
}

// recordForExporter opens the record that the configuration of the exporter names.
func recordForExporter(ctx context.Context, name string, cert *tls.Certificate, roots []*x509.Certificate) (audit.Record, func(), error) {
	if strings.Contains(name, "://") {
		switch {
		case !strings.HasPrefix(name, "https://"):
			return audit.Record{}, nil, fmt.Errorf("record %q: want a URL with https://", name)
		case cert == nil || len(roots) == 0:
			return audit.Record{}, nil, errors.New("the record of a running authority wants client and trust_bundle in the configuration")
		}
		return askRecord(ctx, name, cert, roots)
	}
	return localRecord(ctx, name, flagRecord, time.Time{})
}

// remotePages returns a function that reads the pages of the record through client. A row
// whose PEM is damaged has no certificate, and the audit says so.
func remotePages(client *enroll.Client) pages.Read {
	return func(ctx context.Context, cursor string) (out []audit.Recorded, next string, err error) {
		page, err := client.RecordPage(ctx, cursor)
		for _, row := range page.Certificates {
			one := audit.Recorded{
				Service: row.Service, Lineage: row.Lineage, Names: row.Names, NotBefore: row.NotBefore, NotAfter: row.NotAfter,
				Revoked: row.State == record.StateRevoked,
			}
			one.DER, one.Chain = leafAndChain(row.PEM)
			if row.Served != nil {
				one.Served = row.Served.Address
			}
			out = append(out, one)
		}
		return out, page.Next, err
	}
}

// leafAndChain returns the DER of the first certificate in a PEM text, and of all others one
// behind the other, as the record keeps a chain. It parses nothing: the audit does, and has a
// row for what cannot be parsed.
func leafAndChain(text string) (leaf, chain []byte) {
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return leaf, chain
		}
		if leaf == nil {
			leaf = block.Bytes
		} else {
			chain = append(chain, block.Bytes...)
		}
	}
}
