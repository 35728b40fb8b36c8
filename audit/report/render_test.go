package report_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/report"
)

// A wide table has more columns, shows findings of severity Info, and cuts nothing.
func TestWideTable(t *testing.T) {
	r := fixed(t)
	i := slices.IndexFunc(r.Rows, func(row audit.Row) bool { return strings.Contains(row.Place, "admin-module") })
	r.Rows[i].Findings = []audit.Finding{{Check: "key-exchange", Severity: audit.Info, Text: "it exchanges keys by X25519"}}
	var b, narrow bytes.Buffer
	certtest.Must(t, r.Render("wide", &b, 80))
	certtest.Must(t, r.WriteTable(&narrow, 0))
	text := b.String()
	for i := range r.Rows {
		if c := r.Rows[i].Cert; c != nil {
			text = strings.ReplaceAll(text, "0x"+c.X509().SerialNumber.Text(16), "SERIAL")
		}
	}
	got := strings.Fields(strings.SplitN(text, "\n", 2)[0])
	if want := []string{"STATE", "LEFT", "ENDS", "NAME", "NAMES", "ISSUER", "SERIAL", "KEY", "SIGNATURE", "PLACE"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	squeezed := strings.Join(strings.Fields(text), " ")
	for _, want := range []string{
		"OVERDUE 4h 2026-03-01 16:00 ingester ingester,localhost,127.0.0.1 Test Intermediate SERIAL ECDSA P-256 ECDSA-SHA256 /etc/artstore/ingester/tls.crt#2 renewal overdue",
		"ERROR - - - - - - - - storage:8010 no answer within 5s",
		"/etc/artstore/admin-module/tls.crt it exchanges keys by X25519",
		"Test Root - Test Root SERIAL ECDSA P-256 ECDSA-SHA256 /a/ca.crt and 1 more",
		" key-exchange: let the server take X25519MLKEM768",
	} {
		if !strings.Contains(squeezed, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(narrow.String(), "X25519") {
		t.Errorf("a table shows what is only worth knowing:\n%s", narrow.String())
	}
}

// Only the words of states are coloured. Without the escape sequences the table is the
// plain one.
func TestColours(t *testing.T) {
	r := fixed(t)
	var plain, coloured bytes.Buffer
	certtest.Must(t, r.WriteTable(&plain, 0))
	out, err := report.New("table", &coloured, report.Terminal{Colour: true})
	certtest.Must(t, err)
	for i := range r.Rows {
		certtest.Must(t, out.Row(&r.Rows[i]))
	}
	certtest.Must(t, out.End(r.Summary))
	for _, word := range []string{"\x1b[1;31mOVERDUE\x1b[0m  4h", "\x1b[35mERROR  \x1b[0m  -", "\x1b[33mWARN   \x1b[0m  25d", "\x1b[32mOK     \x1b[0m  23h"} {
		if !strings.Contains(coloured.String(), "\n"+word) {
			t.Errorf("no %q in %q", word, coloured.String())
		}
	}
	off := strings.NewReplacer("\x1b[0m", "", "\x1b[1;31m", "", "\x1b[31m", "", "\x1b[32m", "", "\x1b[33m", "", "\x1b[35m", "").Replace(coloured.String())
	if off != plain.String() {
		t.Errorf("%q", off)
	}
}

// The format pem is a chain that programs can read: each certificate once, a leaf before
// its chain, and no name with a line break.
func TestPEM(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t, called("a\n-----BEGIN CERTIFICATE-----\x1b"))
	r := audittest.Run(t, audittest.Static{
		{Kind: "endpoint", Place: "a:1", Cert: certtest.Seen(leaf.Cert), Chain: certtest.SeenAll([]*certtest.Pair{intermediate}), TLS: &tls.ConnectionState{}},
		{Kind: "file", Place: "b", Cert: certtest.Seen(leaf.Cert)}, {Kind: "file", Place: "c", Cert: certtest.Seen(root.Cert)},
		{Kind: "file", Place: "d", Err: errors.New("absent")},
	})
	var b bytes.Buffer
	certtest.Must(t, r.Render("pem", &b, 0))
	var got []*x509.Certificate
	for block, rest := pem.Decode(b.Bytes()); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		certtest.Must(t, err)
		got = append(got, c)
	}
	if len(got) != 3 || !got[0].Equal(leaf.Cert) || !got[1].Equal(intermediate.Cert) || !got[2].Equal(root.Cert) {
		t.Errorf("%d certificates in\n%s", len(got), b.String())
	}
	for line := range strings.Lines(b.String()) {
		if strings.HasPrefix(line, "#") && strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\x1b\n\r") {
			t.Errorf("%q", line)
		}
	}
	if !strings.Contains(b.String(), "# Test Intermediate, issued by Test Root, until ") {
		t.Error(b.String())
	}
}
