package names

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// crypto/x509 parses the parts of a request for which it has fields, and ignores the others:
// names of other kinds, attributes that do not parse, extensions in a second value of an
// attribute. So this file reads the signed bytes of the request again.
//
// What a request asks for is issued, refused, or ignored on purpose:
//
//   - Names are issued or refused: all of subjectAltName, whatever its kind.
//   - A certificate of an authority (basicConstraints, cA) is refused, and so is the TLS
//     feature extension (RFC 7633), since without OCSP nobody could use that certificate.
//   - Any other critical extension is refused: its sender relies on it.
//   - Key usages, other extensions that are not critical, other attributes such as a
//     challenge password (RFC 2985 §5.4.1), and the subject besides its common name are
//     ignored, because tools add them by themselves and the profile decides.

var (
	oidExtensionRequest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}     // RFC 2985 §5.4.2
	oidMicrosoftRequest = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 14} // the same under another name
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}                    // RFC 5280 §4.2.1.6
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}                    // RFC 5280 §4.2.1.9
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}                    // RFC 5280 §4.2.1.3
	oidExtendedKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}                    // RFC 5280 §4.2.1.12
	oidTLSFeature       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}      // RFC 7633 §6
	oidCommonName       = asn1.ObjectIdentifier{2, 5, 4, 3}                      // RFC 5280 appendix A.1
	errAttribute        = errors.New("the request has an attribute that does not parse (RFC 2986 §4.1)")
	errSubjectAltName   = errors.New("the subjectAltName of the request does not parse (RFC 5280 §4.2.1.6)")
)

// OfRequest returns all names of a request, which [x509.ParseCertificateRequest] has
// parsed. It is an error if the request asks for something that the certificate would
// silently lack.
func OfRequest(csr *x509.CertificateRequest) ([]string, error) {
	extensions, err := requested(csr)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range extensions {
		if err := judge(e); err != nil {
			return nil, err
		}
		if e.Id.Equal(oidSubjectAltName) { // there is one at most
			if list, err = generalNames(e.Value); err != nil {
				return nil, err
			}
		}
	}
	return CanonicalAll(list)
}

// requested returns the extensions in the attributes of a request (RFC 2986 §4.1).
func requested(csr *x509.CertificateRequest) (found []pkix.Extension, err error) {
	der := cryptobyte.String(csr.RawTBSCertificateRequest)
	var info, attributes cryptobyte.String
	if !der.ReadASN1(&info, cbasn1.SEQUENCE) || !der.Empty() ||
		!info.SkipASN1(cbasn1.INTEGER) || !info.SkipASN1(cbasn1.SEQUENCE) || !info.SkipASN1(cbasn1.SEQUENCE) ||
		!info.ReadASN1(&attributes, cbasn1.Tag(0).ContextSpecific().Constructed()) || !info.Empty() {
		return nil, errAttribute
	}
	asked := false
	for !attributes.Empty() {
		var id asn1.ObjectIdentifier
		var attribute, values, list cryptobyte.String
		if !attributes.ReadASN1(&attribute, cbasn1.SEQUENCE) || !attribute.ReadASN1ObjectIdentifier(&id) ||
			!attribute.ReadASN1(&values, cbasn1.SET) || !attribute.Empty() || !elements(values) {
			return nil, errAttribute
		}
		switch {
		case id.Equal(oidMicrosoftRequest):
			return nil, fmt.Errorf("the request has extensions in the attribute %s: put them into extensionRequest (RFC 2985 §5.4.2)", id)
		case !id.Equal(oidExtensionRequest):
			continue
		case !values.ReadASN1(&list, cbasn1.SEQUENCE):
			return nil, errAttribute
		case asked || !values.Empty():
			return nil, errors.New("the request has more than one list of extensions (RFC 2985 §5.4.2)")
		}
		asked = true
		if found, err = extensions(list); err != nil {
			return nil, err
		}
	}
	for i, e := range found {
		for _, other := range found[:i] {
			if e.Id.Equal(other.Id) {
				return nil, fmt.Errorf("the request has the extension %s twice (RFC 5280 §4.2)", e.Id)
			}
		}
	}
	return found, nil
}

// elements reports whether a SET has at least one element, and all elements are complete.
func elements(set cryptobyte.String) bool {
	some := !set.Empty()
	for !set.Empty() {
		var element cryptobyte.String
		if !set.ReadAnyASN1(&element, new(cbasn1.Tag)) {
			return false
		}
	}
	return some
}

// extensions parses the content of a SEQUENCE OF Extension (RFC 5280 §4.1).
func extensions(list cryptobyte.String) (found []pkix.Extension, err error) {
	for !list.Empty() {
		var e pkix.Extension
		var text, value cryptobyte.String
		if !list.ReadASN1(&text, cbasn1.SEQUENCE) || !text.ReadASN1ObjectIdentifier(&e.Id) ||
			text.PeekASN1Tag(cbasn1.BOOLEAN) && !text.ReadASN1Boolean(&e.Critical) ||
			!text.ReadASN1(&value, cbasn1.OCTET_STRING) || !text.Empty() {
			return nil, errAttribute
		}
		e.Value = value
		found = append(found, e)
	}
	return found, nil
}

func judge(e pkix.Extension) error {
	switch {
	case e.Id.Equal(oidBasicConstraints):
		var constraints struct {
			CA      bool `asn1:"optional"`
			MaxPath int  `asn1:"optional,default:-1"`
		}
		if rest, err := asn1.Unmarshal(e.Value, &constraints); err != nil || len(rest) > 0 {
			return errors.New("the basicConstraints of the request do not parse (RFC 5280 §4.2.1.9)")
		}
		if constraints.CA {
			return errors.New("the request is for the certificate of an authority (basicConstraints, cA)")
		}
	case e.Id.Equal(oidTLSFeature):
		return errors.New("the request has the TLS feature extension (must-staple, RFC 7633); there is no OCSP here")
	case e.Id.Equal(oidSubjectAltName), e.Id.Equal(oidKeyUsage), e.Id.Equal(oidExtendedKeyUsage):
	case e.Critical:
		return fmt.Errorf("the request has the critical extension %s, which is not issued", e.Id)
	}
	return nil
}

// Tags of GeneralName (RFC 5280 §4.2.1.6).
const (
	tagDNS = 2
	tagURI = 6
	tagIP  = 7
)

var otherKinds = map[int]string{0: "an otherName", 1: "an e-mail address", 3: "an x400Address", 4: "a directoryName", 5: "an ediPartyName", 8: "a registeredID"}

func generalNames(value []byte) ([]string, error) {
	var list []asn1.RawValue
	if rest, err := asn1.Unmarshal(value, &list); err != nil || len(rest) > 0 || len(list) == 0 {
		return nil, errSubjectAltName
	}
	out := make([]string, 0, len(list))
	for _, n := range list {
		if kind, known := otherKinds[n.Tag]; known && n.Class == asn1.ClassContextSpecific {
			return nil, fmt.Errorf("the request has %s; services have DNS names, IP addresses and URIs", kind)
		}
		text, err := generalName(n)
		if err != nil {
			return nil, err
		}
		out = append(out, text)
	}
	return out, nil
}

// generalName returns the text of one name. It refuses a text that has the form of another
// kind, because Set derives the kind from the text: a dNSName 10.0.0.1 would become an
// iPAddress in the certificate.
func generalName(n asn1.RawValue) (string, error) {
	if n.Class != asn1.ClassContextSpecific || n.IsCompound {
		return "", errSubjectAltName
	}
	text := string(n.Bytes)
	_, notIP := netip.ParseAddr(text)
	isURI := strings.Contains(text, "://")
	switch n.Tag {
	case tagIP:
		addr, ok := netip.AddrFromSlice(n.Bytes)
		if !ok {
			return "", fmt.Errorf("the request has an IP address of %d bytes", len(n.Bytes))
		}
		return addr.String(), nil
	case tagDNS:
		if notIP == nil || isURI {
			return "", fmt.Errorf("the request has %.80q as a DNS name", text)
		}
		return text, nil
	case tagURI:
		if !isURI {
			return "", fmt.Errorf("the request has %.80q as a URI", text)
		}
		return text, nil
	}
	return "", errSubjectAltName
}

// CommonNames returns all common names in the subject of a request. The field of crypto/x509
// has only the last one.
func CommonNames(csr *x509.CertificateRequest) (list []string, err error) {
	for _, a := range csr.Subject.Names {
		if !a.Type.Equal(oidCommonName) {
			continue
		}
		text, ok := a.Value.(string)
		if !ok {
			return nil, errors.New("a common name of the request is not a text")
		}
		list = append(list, text)
	}
	return list, nil
}
