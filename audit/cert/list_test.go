package cert_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/internal/dertest"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/testpki"
)

func listOf(t *testing.T, by *certtest.Pair, template *x509.RevocationList) *x509.RevocationList {
	t.Helper()
	return (&testpki.Pair{Cert: by.Cert, Key: by.Key}).List(t, template)
}

func signsLists(c *x509.Certificate) {
	certtest.Authority(c)
	c.KeyUsage |= x509.KeyUsageCRLSign
}

// A list says when a certificate of its issuer was revoked, and who has signed it.
func TestList(t *testing.T) {
	root, impostor := certtest.New(t, nil, "Test Root", signsLists), certtest.New(t, nil, "Test Root", signsLists)
	gone, back, fine := certtest.New(t, root, "gone"), certtest.New(t, root, "back"), certtest.New(t, root, "fine")
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	parsed := listOf(t, root, &x509.RevocationList{Number: big.NewInt(7), RevokedCertificateEntries: []x509.RevocationListEntry{
		{SerialNumber: gone.Cert.SerialNumber, RevocationTime: at},
		{SerialNumber: back.Cert.SerialNumber, RevocationTime: at, ReasonCode: 8}, // removeFromCRL, RFC 5280 §5.3.1
	}})
	list := cert.NewList("x.crl", parsed)
	for p, listed := range map[*certtest.Pair]bool{gone: true, back: false, fine: false} {
		when, got := list.RevokedAt(certs.Serial(p.Cert))
		if got != listed || listed && !when.Equal(at) {
			t.Errorf("%s: revoked %t at %s", p.Cert.Subject, got, when)
		}
	}
	for range 2 { // the second answer is remembered
		if !list.SignedBy(certtest.Seen(root.Cert)) || list.SignedBy(certtest.Seen(impostor.Cert)) {
			t.Error("the list is not signed by its issuer, or by another of that name")
		}
	}
	if list.Size() != len(parsed.Raw) || string(list.Signature()) != string(parsed.Signature) || !list.Whole {
		t.Errorf("%d bytes, whole: %t", list.Size(), list.Whole)
	}
	d := cert.ListDocument(parsed)
	if d.Name != "of Test Root" || d.Details[0] != (cert.Detail{Label: "revoked", Text: "2 certificates"}) || d.Details[1].Text != "7" {
		t.Errorf("%+v", d)
	}
	if bare := d.WithoutEntries(); len(bare.List.RevokedCertificateEntries) != 0 || len(d.List.RevokedCertificateEntries) != 2 || len(bare.Details) != len(d.Details) {
		t.Errorf("%+v", bare)
	}
}

// The extensions of a list decide whether it names each revoked leaf of its issuer (RFC 5280
// §5.2.4, §5.2.5). With an unknown critical extension that is not certain.
func TestWholeLists(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", signsLists)
	point := asn1.ObjectIdentifier{2, 5, 29, 28}
	flag := func(n uint8) []byte {
		return dertest.Sequence(dertest.Element(der.Tag(n).ContextSpecific(), []byte{0xff}))
	}
	for name, c := range map[string]struct {
		id       asn1.ObjectIdentifier
		value    []byte
		critical bool
		whole    bool
	}{
		"of leaves only":         {point, flag(1), true, true},
		"of authorities only":    {point, flag(2), true, false},
		"of others' too":         {point, flag(4), true, false},
		"of attributes":          {point, flag(5), true, false},
		"garbled":                {point, []byte{0x30, 9}, true, false},
		"changes of another one": {asn1.ObjectIdentifier{2, 5, 29, 27}, dertest.Number(1), true, false},
		"unknown":                {asn1.ObjectIdentifier{1, 2, 3}, dertest.Number(1), false, true},
		"unknown and critical":   {asn1.ObjectIdentifier{1, 2, 3}, dertest.Number(1), true, false},
	} {
		parsed := listOf(t, root, &x509.RevocationList{Number: big.NewInt(1), ExtraExtensions: []pkix.Extension{{Id: c.id, Critical: c.critical, Value: c.value}}})
		if got := cert.NewList(name, parsed).Whole; got != c.whole {
			t.Errorf("%s: whole: %t", name, got)
		}
		if delta := cert.ListDocument(parsed).Details[2].Label == "delta"; delta != (name == "changes of another one") {
			t.Errorf("%s: %+v", name, cert.ListDocument(parsed).Details)
		}
	}
}
