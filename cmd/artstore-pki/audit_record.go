package main

import (
	"context"
	"encoding/pem"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/credentials"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/hints"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/records"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

// The record as a source of an audit, which knows no database: that in a state
// directory, or that of a running authority over HTTP.

const flagRecord = "record"

// recordSource opens the record that --record names; release ends what was opened.
func recordSource(c *cli.Context, now time.Time) (source audit.Source, release func(), err error) {
	if name := c.String(flagRecord); !strings.Contains(name, "://") {
		return records.Local(c.Context, name, flagRecord, now)
	}
	return remoteRecord(c, now)
}

// remoteRecord asks a running authority, as one of its auditors.
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
	client, err := enroll.NewClient(address, roots, cert)
	if err != nil {
		return nil, nil, err
	}
	roots, issuers, err := client.RecordAuthorities(c.Context)
	if err != nil {
		client.Close()
		return nil, nil, hints.Refused(err, "auditors in pki.yaml of the authority lists who may read its record")
	}
	return audit.Record{Name: address, Now: now, List: records.All(remotePages(client)), Roots: roots, Issuers: issuers}, client.Close, nil
}

// remotePages reads the pages of a running authority, which gives what an auditor may see.
func remotePages(client *enroll.Client) records.Pages {
	return func(ctx context.Context, cursor string) (out []audit.Recorded, next string, err error) {
		page, err := client.RecordPage(ctx, cursor)
		for _, row := range page.Certificates {
			one := audit.Recorded{
				Service: row.Service, Lineage: row.Lineage, Names: row.Names, NotBefore: row.NotBefore, NotAfter: row.NotAfter,
				Revoked: row.State == record.StateRevoked,
			}
			one.DER, one.Chain = leafAndChain(row.PEM)
			out = append(out, one)
		}
		return out, page.Next, err
	}
}

// leafAndChain takes the DER out of PEM. The audit parses it, and tells if it cannot.
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
