package cert_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
)

// TestMain fixes the time zone, because errors show local times.
func TestMain(m *testing.M) {
	time.Local = time.UTC
	m.Run()
}

func TestRefused(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	fine := certtest.New(t, root, "fine", certtest.OddSerial)
	over := certtest.New(t, root, "over", certtest.OddSerial, certtest.Lives(2*certtest.Day, certtest.Day))
	soon := certtest.New(t, root, "soon", certtest.OddSerial, certtest.Lives(340*certtest.Day, 365*certtest.Day))
	hour := certtest.New(t, root, "hour", certtest.OddSerial, certtest.Lives(50*time.Minute, time.Hour))
	dir := certtest.Write(t, map[string][]byte{
		"fine.crt": certtest.Block("CERTIFICATE", certtest.NegativeSerial(t, fine)), "over.crt": certtest.Block("CERTIFICATE", certtest.NegativeSerial(t, over)),
		"soon.der": certtest.NegativeSerial(t, soon), "hour.crt": certtest.Block("CERTIFICATE", certtest.NegativeSerial(t, hour)),
		"fine.key":     over.KeyPEM(t), // nothing but the dates is judged
		"trailing.crt": certtest.Block("CERTIFICATE", append(bytes.Clone(fine.Cert.Raw), "more"...)), "ca.crt": certtest.Encode(root),
	})
	r := audittest.Run(t, audittest.Paths(dir))
	const serial = " parsing the certificate: x509: negative serial number"
	audittest.Want(t, audittest.States(t, r, dir), map[string]string{
		"fine.crt": "ERROR" + serial, "over.crt": "EXPIRED expired" + serial, "soon.der": "ERROR expiring" + serial,
		"hour.crt": "OVERDUE renewal-overdue" + serial, "trailing.crt": "ERROR parsing the certificate: x509: trailing data", "ca.crt": "OK", "fine.key": "OK",
	})
	if crit, unchecked := r.Count(audit.Crit); crit != 2 || unchecked != 5 {
		t.Errorf("%d critical, %d unchecked", crit, unchecked)
	}
	if got := r.String(); got != "6 certificates: 1 fine, 0 to watch, 2 critical, 3 read in part; 1 private key" {
		t.Error(got)
	}
	var b bytes.Buffer
	certtest.Must(t, r.WriteTable(&b, 0))
	certtest.Must(t, r.Explain(&b))
	for _, part := range []string{"EXPIRED  -1d ", "  over  ", "OVERDUE  9m", "  name         soon\n  serial       0x-7efdfcfbfaf9f8f8\n  valid "} {
		if !strings.Contains(b.String(), part) {
			t.Errorf("no %q in\n%s", part, b.String())
		}
	}
	b.Reset()
	certtest.Must(t, r.WriteJSON(&b))
	var got struct {
		Rows []struct{ Error, Name, Issuer string }
	}
	certtest.Must(t, json.Unmarshal(b.Bytes(), &got))
	if first := got.Rows[0]; first.Name != "over" || first.Issuer != "Test Root" || !strings.Contains(first.Error, "negative") {
		t.Errorf("%+v", first)
	}
}

// Dates are read in forms too that RFC 5280 does not allow.
func TestRemainsDates(t *testing.T) {
	p := certtest.New(t, nil, "x", certtest.Authority, certtest.Dates(time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC), time.Date(2060, 2, 3, 4, 5, 6, 0, time.UTC)))
	for name, c := range map[string]struct{ old, new, want string }{
		"as it is":         {"\x17\x0d310203040506Z", "\x17\x0d310203040506Z", "2031-02-03T04:05:06Z 2060-02-03T04:05:06Z"},
		"the last century": {"\x17\x0d310203040506Z", "\x17\x0d680203040506Z", "1968-02-03T04:05:06Z 2060-02-03T04:05:06Z"},
		"the wrong type":   {"\x18\x0f20600203040506Z", "\x18\x0f20310203040506Z", "2031-02-03T04:05:06Z 2031-02-03T04:05:06Z"},
		"no seconds":       {"\x18\x0f20600203040506Z", "\x17\x0f3202030405+0100", "2031-02-03T04:05:06Z 2032-02-03T03:05:00Z"},
		"no time":          {"\x18\x0f20600203040506Z", "\x18\x0f2060-02-03 04:0", ""},
		"text":             {"\x18\x0f20600203040506Z", "\x0c\x0f20600203040506Z", ""},
	} {
		text := ""
		if got := remains(bytes.Replace(p.Cert.Raw, []byte(c.old), []byte(c.new), 1)); got != nil {
			text = got.NotBefore.Format(time.RFC3339) + " " + got.NotAfter.Format(time.RFC3339)
		}
		if text != c.want {
			t.Errorf("%s: %s, want %s", name, text, c.want)
		}
	}
}

// Contract: any input gives nil, or a certificate with serial number and dates whose raw bytes
// are the beginning of the input. If crypto/x509 accepts the input, the fields are equal.
func FuzzRemains(f *testing.F) {
	root, _, leaf := certtest.Hierarchy(f, certtest.OddSerial)
	f.Add(leaf.Cert.Raw)
	f.Add(root.Cert.Raw)
	f.Add(certtest.NegativeSerial(f, leaf))
	f.Add(leaf.Cert.Raw[:100])
	_, strange := made(f)
	for _, data := range strange {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got := remains(data)
		if got != nil && (got.SerialNumber == nil || !bytes.HasPrefix(data, got.Raw)) {
			t.Errorf("%+v", got)
		}
		c, err := x509.ParseCertificate(data)
		switch {
		case err != nil:
		case got == nil:
			t.Error("nothing of what crypto/x509 takes")
		case got.SerialNumber.Cmp(c.SerialNumber) != 0 || !got.NotBefore.Equal(c.NotBefore) || !got.NotAfter.Equal(c.NotAfter):
			t.Errorf("%v %v %v, want %v %v %v", got.SerialNumber, got.NotBefore, got.NotAfter, c.SerialNumber, c.NotBefore, c.NotAfter)
		}
	})
}

// partialFields are the fields of a certificate that crypto/x509 refuses.
type partialFields struct {
	Raw                 []byte
	SerialNumber        *big.Int
	NotBefore, NotAfter time.Time
}

// remains returns the fields of a certificate that crypto/x509 refuses, or nil without dates.
func remains(data []byte) *partialFields {
	c := cert.ParsePartial(data)
	if c == nil || c.NotBefore.IsZero() || c.NotAfter.IsZero() {
		return nil
	}
	n, _ := new(big.Int).SetString(strings.TrimPrefix(c.Serial, "0x"), 16)
	return &partialFields{c.Raw, n, c.NotBefore, c.NotAfter}
}
