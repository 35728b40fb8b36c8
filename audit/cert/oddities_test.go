package cert_test

import (
	"bytes"
	"encoding/json"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/internal/dertest"
	"github.com/artstore/artstore-pki/audit/report"
)

// lasting returns a validity with times in any form.
func lasting(tag der.Tag, from, to string) []byte {
	return dertest.Sequence(dertest.Element(tag, []byte(from)), dertest.Element(tag, []byte(to)))
}

// commonly returns a Name with one common name in any type of string.
func commonly(tag der.Tag, text string) []byte {
	return dertest.Sequence(dertest.Element(der.SET, dertest.Sequence(dertest.Element(der.OBJECT_IDENTIFIER, []byte{0x55, 4, 3}), dertest.Element(tag, []byte(text)))))
}

var (
	oidAlternativeName = []byte{0x55, 0x1d, 0x11}
	oidUnknown         = []byte{0x2a, 0x03, 0x04}
	oidHuge            = slices.Concat([]byte{0x2a}, bytes.Repeat([]byte{0xff}, 40), []byte{0x7f})
	oidPadded          = []byte{0x2a, 0x80, 0x03} // an arc that begins with nothing (X.690 §8.19.2)
)

// Oddity is a fault that issuers have made, or that a test suite of others has, with its result.
type Oddity struct {
	edit  func(*dertest.Pieces)
	state string // and checks
	cause string // that stands in the error; "" for none
	until string // RFC 3339; "" where no reader finds a date
}

// usual is the end of a certificate whose dates are sound.
const usual = "2026-03-02T12:00:00Z"

var oddities = map[string]Oddity{
	"sound":           {func(*dertest.Pieces) {}, "OK", "", usual},
	"serial negative": {func(c *dertest.Pieces) { c[dertest.Serial] = dertest.Element(der.INTEGER, []byte{0x80, 1}) }, "ERROR", "negative serial number", usual},
	"serial padded":   {func(c *dertest.Pieces) { c[dertest.Serial] = dertest.Element(der.INTEGER, []byte{0, 0, 1}) }, "ERROR", "malformed serial number", usual},
	"serial empty":    {func(c *dertest.Pieces) { c[dertest.Serial] = dertest.Element(der.INTEGER) }, "ERROR", "malformed serial number", usual},
	"serial zero":     {func(c *dertest.Pieces) { c[dertest.Serial] = dertest.Element(der.INTEGER, []byte{0}) }, "OK", "", usual},
	"serial huge": {func(c *dertest.Pieces) {
		c[dertest.Serial] = dertest.Element(der.INTEGER, bytes.Repeat([]byte{0x7f}, 300))
	}, "OK", "", usual},
	"version unknown": {func(c *dertest.Pieces) {
		c[dertest.Version] = dertest.Element(der.Tag(0).Constructed().ContextSpecific(), dertest.Element(der.INTEGER, []byte{7}))
	}, "ERROR", "invalid version", usual},
	"version absent": {func(c *dertest.Pieces) { c[dertest.Version] = nil }, "WARN no-san", "", usual}, // and with it its extensions
	"algorithm inside": {func(c *dertest.Pieces) {
		c[dertest.Algorithm] = dertest.Sequence(dertest.Element(der.OBJECT_IDENTIFIER, oidUnknown))
	}, "ERROR", "inner and outer signature algorithm", usual},
	"issuer empty":     {func(c *dertest.Pieces) { c[dertest.Issuer] = dertest.Sequence() }, "CRIT chain-incomplete", "", usual},
	"subject empty":    {func(c *dertest.Pieces) { c[dertest.Subject] = dertest.Sequence() }, "OK", "", usual},
	"name in bad UTF8": {func(c *dertest.Pieces) { c[dertest.Subject] = commonly(der.UTF8String, "a\xff\x1b[2J") }, "ERROR", "invalid UTF-8", usual},
	"name unprintable": {func(c *dertest.Pieces) { c[dertest.Subject] = commonly(der.PrintableString, "a_b@\x01") }, "ERROR", "PrintableString", usual},
	"name in T61":      {func(c *dertest.Pieces) { c[dertest.Subject] = commonly(der.T61String, "caf\xe9") }, "OK", "", usual},
	"name of no type":  {func(c *dertest.Pieces) { c[dertest.Subject] = commonly(der.Tag(29), "a") }, "ERROR", "", usual},
	"key garbled":      {func(c *dertest.Pieces) { c[dertest.PublicKey] = dertest.Sequence([]byte{1, 2, 3}) }, "ERROR", "", usual},
	"names twice":      {func(c *dertest.Pieces) { c.Extend(oidAlternativeName, dertest.Sequence(), false) }, "ERROR", "duplicate extension", usual},
	"names garbled":    {func(c *dertest.Pieces) { c.Only(oidAlternativeName, []byte{0x30, 9, 0x82, 1}) }, "ERROR", "invalid subject alternative names", usual},
	"names not ASCII":  {func(c *dertest.Pieces) { c.Only(oidAlternativeName, dertest.Sequence([]byte{0x82, 2, 0xc3, 0xa9})) }, "ERROR", "SAN dNSName is malformed", usual},
	"address of five":  {func(c *dertest.Pieces) { c.Only(oidAlternativeName, dertest.Sequence([]byte{0x87, 5, 1, 2, 3, 4, 5})) }, "ERROR", "IP address of length 5", usual},
	"names empty":      {func(c *dertest.Pieces) { c.Only(oidAlternativeName, dertest.Sequence()) }, "OK", "", usual},
	"unknown critical": {func(c *dertest.Pieces) { c.Extend(oidUnknown, []byte{5, 0}, true) }, "CRIT chain-invalid", "", usual},
	"identifier huge":  {func(c *dertest.Pieces) { c.Extend(oidHuge, nil, false) }, "ERROR", "malformed extension OID", usual},
	"identifier odd":   {func(c *dertest.Pieces) { c.Extend(oidPadded, nil, false) }, "ERROR", "malformed extension OID", usual},
	"extensions torn":  {func(c *dertest.Pieces) { c[dertest.Extensions] = c[dertest.Extensions][:40] }, "ERROR", "malformed", usual},

	"UTC without seconds": {func(c *dertest.Pieces) { c[dertest.Validity] = lasting(der.UTCTime, "2602281200Z", "2603021200Z") }, "CRIT not-interoperable", "", usual},
	"UTC with an offset": {func(c *dertest.Pieces) {
		c[dertest.Validity] = lasting(der.UTCTime, "260228120000+0200", "260302140000+0200")
	}, "CRIT not-interoperable", "", usual},
	"UTC without a zone": {func(c *dertest.Pieces) { c[dertest.Validity] = lasting(der.UTCTime, "260228120000", "260302120000") }, "ERROR", "malformed UTCTime", usual},
	"UTC of 1950":        {func(c *dertest.Pieces) { c[dertest.Validity] = lasting(der.UTCTime, "500101000000Z", "510101000000Z") }, "EXPIRED expired", "", "1951-01-01T00:00:00Z"},
	"general before 2050": {func(c *dertest.Pieces) {
		c[dertest.Validity] = lasting(der.GeneralizedTime, "20260228120000Z", "20260302120000Z")
	}, "OK", "", usual},
	"general, fractions": {func(c *dertest.Pieces) {
		c[dertest.Validity] = lasting(der.GeneralizedTime, "20260228120000.5Z", "20260302120000.5Z")
	}, "ERROR", "malformed GeneralizedTime", "2026-03-02T12:00:00.5Z"},
	"the last of times": {func(c *dertest.Pieces) {
		c[dertest.Validity] = lasting(der.GeneralizedTime, "20260228120000Z", "99991231235959Z")
	}, "WARN chain-ends long-lived", "", "9999-12-31T23:59:59Z"},
	"the end first": {func(c *dertest.Pieces) { c[dertest.Validity] = lasting(der.UTCTime, "260302120000Z", "260228120000Z") }, "CRIT never-valid", "", "2026-02-28T12:00:00Z"},
	"no date":       {func(c *dertest.Pieces) { c[dertest.Validity] = lasting(der.UTCTime, "", "tomorrow") }, "ERROR", `; it is "svc" of "Test Root", serial number 0x`, ""},
	"30 February":   {func(c *dertest.Pieces) { c[dertest.Validity] = lasting(der.UTCTime, "260228120000Z", "260230120000Z") }, "ERROR", ", it begins 2026-02-28 12:00:00", ""},
	"no validity":   {func(c *dertest.Pieces) { c[dertest.Validity] = dertest.Sequence() }, "ERROR", "", ""},
}

// made returns the oddities in DER, by name, and their issuer.
func made(t testing.TB) (root *certtest.Pair, out map[string][]byte) {
	t.Helper()
	root = certtest.New(t, nil, "Test Root", certtest.Authority, certtest.Dates(certtest.Doomsday().Add(-100*certtest.Day), certtest.Doomsday().Add(3650*certtest.Day)))
	sound := certtest.New(t, root, "svc", certtest.Dates(certtest.Doomsday().Add(-certtest.Day), certtest.Doomsday().Add(certtest.Day)))
	out = map[string][]byte{}
	for name, o := range oddities {
		c := dertest.TakeApart(t, sound.Cert.RawTBSCertificate)
		outer := c[dertest.Algorithm]
		o.edit(&c)
		out[name] = c.Seal(t, root, outer)
	}
	return root, out
}

// Each oddity is a row with its dates, in PEM and in DER, and each format can be written.
func TestOddities(t *testing.T) {
	root, all := made(t)
	files := map[string][]byte{"ca.crt": certtest.Encode(root)}
	for name, data := range all {
		files[name+".pem"], files[name+".der"] = certtest.Block("CERTIFICATE", data), data
	}
	dir := certtest.Write(t, files)
	r, err := audittest.Judge(t.Context(), audit.Config{Now: certtest.Doomsday, Disable: []string{"same-key", "same-serial"}, Sources: []audit.Source{audittest.Paths(dir)}})
	certtest.Must(t, err)
	ends := until(t, r, dir)
	got := audittest.States(t, r, dir)
	for name, o := range oddities {
		for _, place := range []string{name + ".pem", name + ".der"} {
			state := got[place]
			if o.state == "ERROR" && strings.Contains(state, o.cause) {
				state, _, _ = strings.Cut(state, " ")
			}
			if state != o.state || ends[place] != o.until {
				t.Errorf("%s: %q until %q, want %q because of %q until %q", place, got[place], ends[place], o.state, o.cause, o.until)
			}
		}
	}
	for _, format := range report.Formats() {
		certtest.Must(t, r.Render(format, io.Discard, 80))
	}
}

// until returns the end of each place in the JSON report.
func until(t *testing.T, r *audittest.Report, dir string) map[string]string {
	t.Helper()
	var b bytes.Buffer
	certtest.Must(t, r.WriteJSON(&b))
	var all struct {
		Rows []struct {
			Place    string
			NotAfter string `json:"not_after"`
		}
	}
	certtest.Must(t, json.Unmarshal(b.Bytes(), &all))
	out := map[string]string{}
	for _, row := range all.Rows {
		place, err := filepath.Rel(dir, row.Place)
		certtest.Must(t, err)
		if row.NotAfter != "" {
			_, err = time.Parse(time.RFC3339, row.NotAfter)
			certtest.Must(t, err)
		}
		out[place] = row.NotAfter
	}
	return out
}

// Certificates that are not DER are rows too: BER of indefinite length, with a tail, cut off.
func TestNotDER(t *testing.T) {
	root, all := made(t)
	sound := all["sound"]
	inner := cryptobyte.String(sound)
	if !inner.ReadASN1(&inner, der.SEQUENCE) {
		t.Fatal("no sequence")
	}
	dir := certtest.Write(t, map[string][]byte{
		"ca.crt":       certtest.Encode(root),
		"endless.pem":  certtest.Block("CERTIFICATE", slices.Concat([]byte{0x30, 0x80}, inner, []byte{0, 0})),
		"tail.pem":     certtest.Block("CERTIFICATE", append(bytes.Clone(sound), 0, 0)),
		"cut.pem":      certtest.Block("CERTIFICATE", sound[:len(sound)/2]),
		"long.pem":     certtest.Block("CERTIFICATE", slices.Concat([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff}, inner)),
		"nothing.pem":  certtest.Block("CERTIFICATE", nil),
		"endless.der":  slices.Concat([]byte{0x30, 0x80}, inner, []byte{0, 0}),
		"tail.der":     append(bytes.Clone(sound), "\r\n"...),
		"wordless.cer": []byte("MIIB"),
	})
	r, err := audittest.Judge(t.Context(), audit.Config{Now: certtest.Doomsday, Sources: []audit.Source{audittest.Paths(dir)}})
	certtest.Must(t, err)
	ends := until(t, r, dir)
	got := audittest.States(t, r, dir)
	delete(got, "ca.crt")
	if len(got) != 8 {
		t.Errorf("%d rows: %v", len(got), got)
	}
	for place, state := range got {
		if !strings.HasPrefix(state, "ERROR ") {
			t.Errorf("%s: %s", place, state)
		}
		if dated := strings.HasPrefix(place, "tail") || strings.HasPrefix(place, "endless"); dated != (ends[place] == usual) {
			t.Errorf("%s: until %q", place, ends[place])
		}
	}
}
