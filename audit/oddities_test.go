package audit_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
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
	"github.com/artstore/artstore-pki/audit/report"
)

// Elements of a TBSCertificate (RFC 5280 §4.1).
const (
	version = iota
	serial
	algorithm
	issuer
	validity
	parseSubject
	publicKey
	extensions
	elements
)

// tbs is a certificate in pieces, each with its tag and length.
type tbs [elements][]byte

func takenApart(t testing.TB, raw []byte) (out tbs) {
	t.Helper()
	body, one := cryptobyte.String(raw), cryptobyte.String(nil)
	if !body.ReadASN1(&body, der.SEQUENCE) {
		t.Fatal("no sequence")
	}
	for i := range out {
		if !body.ReadAnyASN1Element(&one, nil) {
			t.Fatalf("no element %d", i)
		}
		out[i] = one
	}
	return out
}

// sealed puts the pieces together and signs them, with an algorithm outside of them.
func (c tbs) sealed(t testing.TB, by *pair, algorithm []byte) []byte {
	t.Helper()
	body := sequence(c[:]...)
	sum := sha256.Sum256(body)
	signature, err := by.key.Sign(rand.Reader, sum[:], nil)
	must(t, err)
	return sequence(body, algorithm, element(der.BIT_STRING, []byte{0}, signature))
}

// extended are the extensions of a certificate with one more.
func (c *tbs) extended(oid, value []byte, critical bool) {
	all := cryptobyte.String(c[extensions])
	if !all.ReadASN1(&all, der.Tag(3).Constructed().ContextSpecific()) || !all.ReadASN1(&all, der.SEQUENCE) {
		panic("no extensions")
	}
	flag := []byte(nil)
	if critical {
		flag = element(der.BOOLEAN, []byte{0xff})
	}
	more := sequence(element(der.OBJECT_IDENTIFIER, oid), flag, octets(value))
	c[extensions] = element(der.Tag(3).Constructed().ContextSpecific(), sequence(all, more))
}

// lasting is a validity in whatever form.
func lasting(tag der.Tag, from, to string) []byte {
	return sequence(element(tag, []byte(from)), element(tag, []byte(to)))
}

// commonly is a Name with one common name in whatever type of string.
func commonly(tag der.Tag, text string) []byte {
	return sequence(element(der.SET, sequence(element(der.OBJECT_IDENTIFIER, []byte{0x55, 4, 3}), element(tag, []byte(text)))))
}

var (
	oidAlternativeName = []byte{0x55, 0x1d, 0x11}
	oidUnknown         = []byte{0x2a, 0x03, 0x04}
	oidHuge            = slices.Concat([]byte{0x2a}, bytes.Repeat([]byte{0xff}, 40), []byte{0x7f})
	oidPadded          = []byte{0x2a, 0x80, 0x03} // an arc that begins with nothing (X.690 §8.19.2)
)

// Oddity is something that issuers of this world have done, or that a test suite
// of others has, and what becomes of it.
type Oddity struct {
	edit  func(*tbs)
	state string // and checks
	cause string // that stands in the error; "" for none
	until string // RFC 3339; "" where no reader finds a date
}

// usual is the end of a certificate whose dates are sound.
const usual = "2026-03-02T12:00:00Z"

var oddities = map[string]Oddity{
	"sound":           {func(*tbs) {}, "OK", "", usual},
	"serial negative": {func(c *tbs) { c[serial] = element(der.INTEGER, []byte{0x80, 1}) }, "ERROR", "negative serial number", usual},
	"serial padded":   {func(c *tbs) { c[serial] = element(der.INTEGER, []byte{0, 0, 1}) }, "ERROR", "malformed serial number", usual},
	"serial empty":    {func(c *tbs) { c[serial] = element(der.INTEGER) }, "ERROR", "malformed serial number", usual},
	"serial zero":     {func(c *tbs) { c[serial] = element(der.INTEGER, []byte{0}) }, "OK", "", usual},
	"serial huge":     {func(c *tbs) { c[serial] = element(der.INTEGER, bytes.Repeat([]byte{0x7f}, 300)) }, "OK", "", usual},
	"version unknown": {func(c *tbs) {
		c[version] = element(der.Tag(0).Constructed().ContextSpecific(), element(der.INTEGER, []byte{7}))
	}, "ERROR", "invalid version", usual},
	"version absent":   {func(c *tbs) { c[version] = nil }, "WARN no-san", "", usual}, // and with it its extensions
	"algorithm inside": {func(c *tbs) { c[algorithm] = sequence(element(der.OBJECT_IDENTIFIER, oidUnknown)) }, "ERROR", "inner and outer signature algorithm", usual},
	"issuer empty":     {func(c *tbs) { c[issuer] = sequence() }, "CRIT chain-incomplete", "", usual},
	"subject empty":    {func(c *tbs) { c[parseSubject] = sequence() }, "OK", "", usual},
	"name in bad UTF8": {func(c *tbs) { c[parseSubject] = commonly(der.UTF8String, "a\xff\x1b[2J") }, "ERROR", "invalid UTF-8", usual},
	"name unprintable": {func(c *tbs) { c[parseSubject] = commonly(der.PrintableString, "a_b@\x01") }, "ERROR", "PrintableString", usual},
	"name in T61":      {func(c *tbs) { c[parseSubject] = commonly(der.T61String, "caf\xe9") }, "OK", "", usual},
	"name of no type":  {func(c *tbs) { c[parseSubject] = commonly(der.Tag(29), "a") }, "ERROR", "", usual},
	"key garbled":      {func(c *tbs) { c[publicKey] = sequence([]byte{1, 2, 3}) }, "ERROR", "", usual},
	"names twice":      {func(c *tbs) { c.extended(oidAlternativeName, sequence(), false) }, "ERROR", "duplicate extension", usual},
	"names garbled":    {func(c *tbs) { c.only(oidAlternativeName, []byte{0x30, 9, 0x82, 1}) }, "ERROR", "invalid subject alternative names", usual},
	"names not ASCII":  {func(c *tbs) { c.only(oidAlternativeName, sequence([]byte{0x82, 2, 0xc3, 0xa9})) }, "ERROR", "SAN dNSName is malformed", usual},
	"address of five":  {func(c *tbs) { c.only(oidAlternativeName, sequence([]byte{0x87, 5, 1, 2, 3, 4, 5})) }, "ERROR", "IP address of length 5", usual},
	"names empty":      {func(c *tbs) { c.only(oidAlternativeName, sequence()) }, "OK", "", usual},
	"unknown critical": {func(c *tbs) { c.extended(oidUnknown, []byte{5, 0}, true) }, "CRIT chain-invalid", "", usual},
	"identifier huge":  {func(c *tbs) { c.extended(oidHuge, nil, false) }, "ERROR", "malformed extension OID", usual},
	"identifier odd":   {func(c *tbs) { c.extended(oidPadded, nil, false) }, "ERROR", "malformed extension OID", usual},
	"extensions torn":  {func(c *tbs) { c[extensions] = c[extensions][:40] }, "ERROR", "malformed", usual},

	"UTC without seconds": {func(c *tbs) { c[validity] = lasting(der.UTCTime, "2602281200Z", "2603021200Z") }, "CRIT not-interoperable", "", usual},
	"UTC with an offset":  {func(c *tbs) { c[validity] = lasting(der.UTCTime, "260228120000+0200", "260302140000+0200") }, "CRIT not-interoperable", "", usual},
	"UTC without a zone":  {func(c *tbs) { c[validity] = lasting(der.UTCTime, "260228120000", "260302120000") }, "ERROR", "malformed UTCTime", usual},
	"UTC of 1950":         {func(c *tbs) { c[validity] = lasting(der.UTCTime, "500101000000Z", "510101000000Z") }, "EXPIRED expired", "", "1951-01-01T00:00:00Z"},
	"general before 2050": {func(c *tbs) { c[validity] = lasting(der.GeneralizedTime, "20260228120000Z", "20260302120000Z") }, "OK", "", usual},
	"general, fractions":  {func(c *tbs) { c[validity] = lasting(der.GeneralizedTime, "20260228120000.5Z", "20260302120000.5Z") }, "ERROR", "malformed GeneralizedTime", "2026-03-02T12:00:00.5Z"},
	"the last of times":   {func(c *tbs) { c[validity] = lasting(der.GeneralizedTime, "20260228120000Z", "99991231235959Z") }, "WARN chain-ends long-lived", "", "9999-12-31T23:59:59Z"},
	"the end first":       {func(c *tbs) { c[validity] = lasting(der.UTCTime, "260302120000Z", "260228120000Z") }, "CRIT never-valid", "", "2026-02-28T12:00:00Z"},
	"no date":             {func(c *tbs) { c[validity] = lasting(der.UTCTime, "", "tomorrow") }, "ERROR", `; it is "svc" of "Test Root", serial number 0x`, ""},
	"30 February":         {func(c *tbs) { c[validity] = lasting(der.UTCTime, "260228120000Z", "260230120000Z") }, "ERROR", ", it begins 2026-02-28 12:00:00", ""},
	"no validity":         {func(c *tbs) { c[validity] = sequence() }, "ERROR", "", ""},
}

// only replaces all extensions.
func (c *tbs) only(oid, value []byte) {
	one := sequence(element(der.OBJECT_IDENTIFIER, oid), octets(value))
	c[extensions] = element(der.Tag(3).Constructed().ContextSpecific(), sequence(one))
}

// made are the oddities in DER, by name, and who has issued them.
func made(t testing.TB) (root *pair, out map[string][]byte) {
	t.Helper()
	root = newPair(t, nil, "Test Root", authority, dates(doomsday().Add(-100*Day), doomsday().Add(3650*Day)))
	sound := newPair(t, root, "svc", dates(doomsday().Add(-Day), doomsday().Add(Day)))
	out = map[string][]byte{}
	for name, o := range oddities {
		c := takenApart(t, sound.cert.RawTBSCertificate)
		outer := c[algorithm]
		o.edit(&c)
		out[name] = c.sealed(t, root, outer)
	}
	return root, out
}

// Each is a row with its dates, in PEM and in DER, and none stops a format.
func TestOddities(t *testing.T) {
	root, all := made(t)
	files := map[string][]byte{"ca.crt": encode(root)}
	for name, data := range all {
		files[name+".pem"], files[name+".der"] = pemBlock("CERTIFICATE", data), data
	}
	dir := write(t, files)
	r, err := judged(t.Context(), audit.Config{Now: doomsday, Disable: []string{"same-key", "same-serial"}, Sources: []audit.Source{paths(dir)}})
	must(t, err)
	ends := until(t, r, dir)
	got := states(t, r, dir)
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
		must(t, r.render(format, io.Discard, 80))
	}
}

// until maps places to the ends that a report has for programs.
func until(t *testing.T, r *keptReport, dir string) map[string]string {
	t.Helper()
	var b bytes.Buffer
	must(t, r.WriteJSON(&b))
	var all struct {
		Rows []struct {
			Place    string
			NotAfter string `json:"not_after"`
		}
	}
	must(t, json.Unmarshal(b.Bytes(), &all))
	out := map[string]string{}
	for _, row := range all.Rows {
		place, err := filepath.Rel(dir, row.Place)
		must(t, err)
		if row.NotAfter != "" {
			_, err = time.Parse(time.RFC3339, row.NotAfter)
			must(t, err)
		}
		out[place] = row.NotAfter
	}
	return out
}

// What is no DER at all is a row too: BER of indefinite length, a tail, a cut.
func TestNotDER(t *testing.T) {
	root, all := made(t)
	sound := all["sound"]
	inner := cryptobyte.String(sound)
	if !inner.ReadASN1(&inner, der.SEQUENCE) {
		t.Fatal("no sequence")
	}
	dir := write(t, map[string][]byte{
		"ca.crt":       encode(root),
		"endless.pem":  pemBlock("CERTIFICATE", slices.Concat([]byte{0x30, 0x80}, inner, []byte{0, 0})),
		"tail.pem":     pemBlock("CERTIFICATE", append(bytes.Clone(sound), 0, 0)),
		"cut.pem":      pemBlock("CERTIFICATE", sound[:len(sound)/2]),
		"long.pem":     pemBlock("CERTIFICATE", slices.Concat([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff}, inner)),
		"nothing.pem":  pemBlock("CERTIFICATE", nil),
		"endless.der":  slices.Concat([]byte{0x30, 0x80}, inner, []byte{0, 0}),
		"tail.der":     append(bytes.Clone(sound), "\r\n"...),
		"wordless.cer": []byte("MIIB"),
	})
	r, err := judged(t.Context(), audit.Config{Now: doomsday, Sources: []audit.Source{paths(dir)}})
	must(t, err)
	ends := until(t, r, dir)
	got := states(t, r, dir)
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
