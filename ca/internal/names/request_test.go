package names_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/names"
)

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// signed is the template as a request that was sent.
func signed(t testing.TB, template *x509.CertificateRequest) *x509.CertificateRequest {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return parsed(t, der)
}

func parsed(t testing.TB, der []byte) *x509.CertificateRequest {
	t.Helper()
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// marshal is DER of a value.
func marshal(t testing.TB, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

type attribute struct {
	ID     asn1.ObjectIdentifier
	Values []asn1.RawValue `asn1:"set"`
}

// withAttributes makes a request with these attributes, each in DER. Its signature
// is not that of its key, which is not looked at here.
func withAttributes(t testing.TB, attributes ...[]byte) []byte {
	t.Helper()
	return replaceAttributes(t, signed(t, &x509.CertificateRequest{}), attributes...)
}

func replaceAttributes(t testing.TB, whole *x509.CertificateRequest, attributes ...[]byte) []byte {
	t.Helper()
	var outer struct{ TBS, Algorithm, Signature asn1.RawValue }
	if _, err := asn1.Unmarshal(whole.Raw, &outer); err != nil {
		t.Fatal(err)
	}
	outer.TBS = asn1.RawValue{FullBytes: marshal(t, struct {
		Version            int
		Subject, PublicKey asn1.RawValue
		Attributes         asn1.RawValue
	}{0, asn1.RawValue{FullBytes: whole.RawSubject}, asn1.RawValue{FullBytes: whole.RawSubjectPublicKeyInfo},
		asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: bytes.Join(attributes, nil)}})}
	return marshal(t, outer)
}

var (
	oidExtensionRequest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}
	oidMicrosoftRequest = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 14}
	oidSAN              = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// extensionRequest is the attribute that asks for extensions, one list in each value.
func extensionRequest(t testing.TB, lists ...[]pkix.Extension) []byte {
	t.Helper()
	a := attribute{ID: oidExtensionRequest}
	for _, l := range lists {
		a.Values = append(a.Values, asn1.RawValue{FullBytes: marshal(t, l)})
	}
	return marshal(t, a)
}

// name is a GeneralName, the content of which may be made up.
func name(tag int, content string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(content), IsCompound: tag == 0 || tag == 3 || tag == 4 || tag == 5}
}

func san(t testing.TB, list ...asn1.RawValue) pkix.Extension {
	t.Helper()
	return pkix.Extension{Id: oidSAN, Value: marshal(t, list)}
}

var goodName = name(2, "web.example")

// Whatever crypto/x509 drops without a word is an error here.
func TestNothingFallsAway(t *testing.T) {
	ask := func(e ...pkix.Extension) []byte { return withAttributes(t, extensionRequest(t, e)) }
	other := func(id ...int) pkix.Extension { return pkix.Extension{Id: id, Value: []byte{5, 0}} }
	critical := other(1, 2, 3, 4)
	critical.Critical = true
	upn := append(marshal(t, asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}), marshal(t, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: marshal(t, "abc")})...)
	for _, tc := range []struct {
		name string
		der  []byte
		says string // empty: web.example and nothing else
	}{
		{"one name", ask(san(t, goodName)), ""},
		{"otherName", ask(san(t, goodName, name(0, string(upn)))), "an otherName"},
		{"e-mail", ask(san(t, goodName, name(1, "a@b.example"))), "an e-mail address"},
		{"x400Address", ask(san(t, goodName, name(3, ""))), "an x400Address"},
		{"directoryName", ask(san(t, goodName, name(4, "0\x00"))), "a directoryName"},
		{"ediPartyName", ask(san(t, goodName, name(5, ""))), "an ediPartyName"},
		{"registeredID", ask(san(t, goodName, name(8, "\x2a\x03"))), "a registeredID"},
		{"a tag that there is not", ask(san(t, goodName, name(9, "x"))), "does not parse"},
		{"an address as a DNS name", ask(san(t, goodName, name(2, "10.0.0.1"))), "as a DNS name"},
		{"a URI as a DNS name", ask(san(t, goodName, name(2, "spiffe://a/b"))), "as a DNS name"},
		{"a URN", ask(san(t, goodName, name(6, "urn:x:y"))), "as a URI"},
		{"two lists of names", withAttributes(t, extensionRequest(t, []pkix.Extension{san(t, goodName)}, []pkix.Extension{san(t, name(2, "db.example"))})), "more than one list"},
		{"two attributes", withAttributes(t, extensionRequest(t, []pkix.Extension{san(t, goodName)}), extensionRequest(t, []pkix.Extension{other(1, 2, 3)})), "more than one list"},
		{"Microsoft's attribute", withAttributes(t, extensionRequest(t, []pkix.Extension{san(t, goodName)}),
			marshal(t, attribute{oidMicrosoftRequest, []asn1.RawValue{{FullBytes: marshal(t, []pkix.Extension{san(t, name(2, "db.example"))})}}})), "put them into extensionRequest"},
		{"something behind the list", withAttributes(t, marshal(t, attribute{oidExtensionRequest, []asn1.RawValue{{FullBytes: marshal(t, []pkix.Extension{san(t, goodName)})}, {FullBytes: []byte{0x31, 0}}}})), "more than one list"},
		{"an attribute that is none", withAttributes(t, extensionRequest(t, []pkix.Extension{san(t, goodName)}), []byte{5, 0}), "does not parse"},
		{"an attribute without a value", withAttributes(t, extensionRequest(t, []pkix.Extension{san(t, goodName)}), marshal(t, attribute{ID: asn1.ObjectIdentifier{1, 2, 3}})), "does not parse"},
		{"an authority", ask(san(t, goodName), pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x30, 3, 1, 1, 0xff}}), "the certificate of an authority"},
		{"no authority", ask(san(t, goodName), pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{0x30, 0}}), ""},
		{"must-staple", ask(san(t, goodName), other(1, 3, 6, 1, 5, 5, 7, 1, 24)), "must-staple"},
		{"critical and unknown", ask(san(t, goodName), critical), "the critical extension 1.2.3.4"},
		{"unknown", ask(san(t, goodName), other(1, 2, 3, 4), other(2, 5, 29, 15), other(2, 5, 29, 37)), ""},
		{"a challenge password", withAttributes(t, marshal(t, attribute{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}, []asn1.RawValue{{FullBytes: marshal(t, "secret")}}}), extensionRequest(t, []pkix.Extension{san(t, goodName)})), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := names.OfRequest(parsed(t, tc.der))
			switch {
			case tc.says == "" && (err != nil || !slices.Equal(got, []string{"web.example"})):
				t.Errorf("%q, %v", got, err)
			case tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)):
				t.Errorf("%q, %v; want %q", got, err, tc.says)
			}
		})
	}
	// crypto/x509 refuses the same extension twice by itself.
	for _, der := range [][]byte{
		ask(san(t, goodName), san(t, goodName)),
		withAttributes(t, extensionRequest(t, []pkix.Extension{san(t, goodName)}), extensionRequest(t, []pkix.Extension{san(t, goodName)})),
	} {
		if _, err := x509.ParseCertificateRequest(der); err == nil {
			t.Error("a request with two subjectAltName extensions parses")
		}
	}
}

// What stands behind the last field of a structure is asked for, too; encoding/asn1
// and crypto/x509 pass over it.
func TestNothingBehindTheLastField(t *testing.T) {
	hidden := extensionRequest(t, []pkix.Extension{san(t, name(0, "x"))})
	behind := func(der []byte) []byte { // the last element of a SEQUENCE
		var sequence asn1.RawValue
		if _, err := asn1.Unmarshal(der, &sequence); err != nil {
			t.Fatal(err)
		}
		return marshal(t, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: slices.Concat(sequence.Bytes, hidden)})
	}
	good := san(t, goodName)
	var outer struct{ TBS, Algorithm, Signature asn1.RawValue }
	if _, err := asn1.Unmarshal(withAttributes(t, extensionRequest(t, []pkix.Extension{good})), &outer); err != nil {
		t.Fatal(err)
	}
	outer.TBS = asn1.RawValue{FullBytes: behind(outer.TBS.FullBytes)}
	list := marshal(t, []asn1.RawValue{{FullBytes: behind(marshal(t, good))}})
	for what, der := range map[string][]byte{
		"the request": marshal(t, outer),
		"attribute":   withAttributes(t, behind(extensionRequest(t, []pkix.Extension{good}))),
		"extension":   withAttributes(t, marshal(t, attribute{ID: oidExtensionRequest, Values: []asn1.RawValue{{FullBytes: list}}})),
	} {
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil {
			t.Errorf("%s: crypto/x509 sees it by itself: %v", what, err)
			continue
		}
		if got, err := names.OfRequest(csr); err == nil {
			t.Errorf("%s: %q", what, got)
		}
	}
}

// All common names count, not the last one alone.
func TestCommonNames(t *testing.T) {
	cn := func(values ...any) *x509.CertificateRequest {
		var s pkix.RDNSequence
		for _, v := range values {
			s = append(s, pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: v}})
		}
		return signed(t, &x509.CertificateRequest{RawSubject: marshal(t, s)})
	}
	if got, err := names.CommonNames(cn("evil", "web")); err != nil || !slices.Equal(got, []string{"evil", "web"}) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := names.CommonNames(cn(7, "web")); err == nil {
		t.Error("a number is a common name")
	}
}

// FuzzOfRequest: of any request that parses, either all names are in the certificate
// that [names.Set] makes, each of its kind, or there is an error. The input is the
// attributes of the request. The names are read in another way here: each
// subjectAltName that encoding/asn1 finds anywhere in an attribute for extensions counts.
func FuzzOfRequest(f *testing.F) {
	good := []pkix.Extension{san(f, goodName, name(2, "*.a.example"), name(6, "spiffe://A/b"), name(7, "\x0a\x00\x00\x01"))}
	f.Add([]byte{})
	f.Add(extensionRequest(f, good))
	f.Add(extensionRequest(f, []pkix.Extension{san(f, goodName, name(0, "x"), name(2, "10.0.0.1"))}))
	f.Add(extensionRequest(f, good, []pkix.Extension{san(f, name(2, "b"))}))
	f.Add(append(extensionRequest(f, good), 0x30, 0))
	f.Add(marshal(f, attribute{oidMicrosoftRequest, []asn1.RawValue{{FullBytes: marshal(f, good)}}}))
	key, whole := newKey(f), signed(f, &x509.CertificateRequest{})
	f.Fuzz(func(t *testing.T, attributes []byte) {
		csr, err := x509.ParseCertificateRequest(replaceAttributes(t, whole, attributes))
		if err != nil {
			return
		}
		list, err := names.OfRequest(csr)
		if err != nil {
			return
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now()}
		if err := names.Set(template, list); err != nil {
			t.Fatalf("%q: %v", list, err)
		}
		issued, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatalf("%q: %v", list, err)
		}
		cert, err := x509.ParseCertificate(issued)
		if err != nil {
			t.Fatalf("%q: %v", list, err)
		}
		for _, n := range askedNames(csr.RawTBSCertificateRequest, false) {
			if !has(cert, n) {
				t.Fatalf("name %d %q was asked for; issued were %q", n.Tag, n.Bytes, list)
			}
		}
	})
}

// askedNames finds every GeneralName behind the identifier of subjectAltName, wherever
// it stands inside of an attribute for extensions.
func askedNames(der []byte, inside bool) (found []asn1.RawValue) {
	var elements []asn1.RawValue
	for rest := der; len(rest) > 0; {
		var e asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &e); err != nil {
			return found
		}
		elements = append(elements, e)
	}
	if len(elements) == 0 {
		return nil
	}
	var id asn1.ObjectIdentifier
	_, _ = asn1.Unmarshal(elements[0].FullBytes, &id)
	inside = inside || id.Equal(oidExtensionRequest) || id.Equal(oidMicrosoftRequest)
	last := elements[len(elements)-1]
	if inside && id.Equal(oidSAN) && last.Tag == asn1.TagOctetString && last.Class == asn1.ClassUniversal {
		var list []asn1.RawValue
		if _, err := asn1.Unmarshal(last.Bytes, &list); err == nil {
			found = append(found, list...)
		}
	}
	for _, e := range elements {
		if e.IsCompound {
			found = append(found, askedNames(e.Bytes, inside)...)
		}
	}
	return found
}

func has(c *x509.Certificate, n asn1.RawValue) bool {
	text := strings.ToLower(string(n.Bytes))
	switch n.Tag {
	case 2:
		return slices.Contains(c.DNSNames, text)
	case 6:
		return slices.ContainsFunc(c.URIs, func(u *url.URL) bool {
			asked, err := url.Parse(string(n.Bytes))
			return err == nil && strings.EqualFold(asked.Host, u.Host) && asked.Path == u.Path && asked.Scheme == u.Scheme
		})
	case 7:
		asked, _ := netip.AddrFromSlice(n.Bytes)
		for _, ip := range c.IPAddresses {
			if addr, _ := netip.AddrFromSlice(ip); addr.Unmap() == asked.Unmap() {
				return true
			}
		}
	}
	return false
}
