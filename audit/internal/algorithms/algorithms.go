// Package algorithms has names for the algorithms of keys and signatures, by their object
// identifiers, also for algorithms that Go does not implement. It reads nothing but the
// identifiers.
package algorithms

import (
	"cmp"
	"encoding/asn1"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// names has the names by identifier in dotted decimal. Each group has its source.
var names = map[string]string{
	// RFC 8017 appendix C, RFC 4055, RFC 3279.
	"1.2.840.113549.1.1.1": "RSA", "1.2.840.113549.1.1.2": "MD2-RSA", "1.2.840.113549.1.1.4": "MD5-RSA", "1.2.840.113549.1.1.5": "SHA1-RSA",
	"1.2.840.113549.1.1.7": "RSAES-OAEP", "1.2.840.113549.1.1.10": "RSASSA-PSS", "1.2.840.113549.1.1.11": "SHA256-RSA",
	"1.2.840.113549.1.1.12": "SHA384-RSA", "1.2.840.113549.1.1.13": "SHA512-RSA", "1.2.840.113549.1.1.14": "SHA224-RSA",
	"1.2.840.10040.4.1": "DSA", "1.2.840.10040.4.3": "DSA-SHA1", "2.16.840.1.101.3.4.3.2": "DSA-SHA256",
	// RFC 5758, and RFC 9688 for SHA-3.
	"1.2.840.10045.2.1": "ECDSA", "1.2.840.10045.4.1": "ECDSA-SHA1", "1.2.840.10045.4.3.1": "ECDSA-SHA224", "1.2.840.10045.4.3.2": "ECDSA-SHA256",
	"1.2.840.10045.4.3.3": "ECDSA-SHA384", "1.2.840.10045.4.3.4": "ECDSA-SHA512",
	"2.16.840.1.101.3.4.3.9": "ECDSA-SHA3-224", "2.16.840.1.101.3.4.3.10": "ECDSA-SHA3-256", "2.16.840.1.101.3.4.3.11": "ECDSA-SHA3-384", "2.16.840.1.101.3.4.3.12": "ECDSA-SHA3-512",
	"2.16.840.1.101.3.4.3.13": "SHA3-224-RSA", "2.16.840.1.101.3.4.3.14": "SHA3-256-RSA", "2.16.840.1.101.3.4.3.15": "SHA3-384-RSA", "2.16.840.1.101.3.4.3.16": "SHA3-512-RSA",
	// Curves: RFC 5480 §2.1.1.1, RFC 5639, SEC 2, RFC 8998.
	"1.3.132.0.33": "P-224", "1.2.840.10045.3.1.7": "P-256", "1.3.132.0.34": "P-384", "1.3.132.0.35": "P-521", "1.2.840.10045.3.1.1": "P-192", "1.3.132.0.10": "secp256k1",
	"1.3.36.3.3.2.8.1.1.7": "brainpoolP256r1", "1.3.36.3.3.2.8.1.1.11": "brainpoolP384r1", "1.3.36.3.3.2.8.1.1.13": "brainpoolP512r1",
	"1.2.156.10197.1.301": "SM2", "1.2.156.10197.1.501": "SM2-SM3",
	// RFC 8410.
	"1.3.101.110": "X25519", "1.3.101.111": "X448", "1.3.101.112": "Ed25519", "1.3.101.113": "Ed448",
	// RFC 9881 and FIPS 204.
	"2.16.840.1.101.3.4.3.17": "ML-DSA-44", "2.16.840.1.101.3.4.3.18": "ML-DSA-65", "2.16.840.1.101.3.4.3.19": "ML-DSA-87",
	"2.16.840.1.101.3.4.3.32": "HashML-DSA-44", "2.16.840.1.101.3.4.3.33": "HashML-DSA-65", "2.16.840.1.101.3.4.3.34": "HashML-DSA-87",
	// RFC 9909 and FIPS 205.
	"2.16.840.1.101.3.4.3.20": "SLH-DSA-SHA2-128s", "2.16.840.1.101.3.4.3.21": "SLH-DSA-SHA2-128f", "2.16.840.1.101.3.4.3.22": "SLH-DSA-SHA2-192s",
	"2.16.840.1.101.3.4.3.23": "SLH-DSA-SHA2-192f", "2.16.840.1.101.3.4.3.24": "SLH-DSA-SHA2-256s", "2.16.840.1.101.3.4.3.25": "SLH-DSA-SHA2-256f",
	"2.16.840.1.101.3.4.3.26": "SLH-DSA-SHAKE-128s", "2.16.840.1.101.3.4.3.27": "SLH-DSA-SHAKE-128f", "2.16.840.1.101.3.4.3.28": "SLH-DSA-SHAKE-192s",
	"2.16.840.1.101.3.4.3.29": "SLH-DSA-SHAKE-192f", "2.16.840.1.101.3.4.3.30": "SLH-DSA-SHAKE-256s", "2.16.840.1.101.3.4.3.31": "SLH-DSA-SHAKE-256f",
	// RFC 9935 and FIPS 203.
	"2.16.840.1.101.3.4.4.1": "ML-KEM-512", "2.16.840.1.101.3.4.4.2": "ML-KEM-768", "2.16.840.1.101.3.4.4.3": "ML-KEM-1024",
	// RFC 9802.
	"1.2.840.113549.1.9.16.3.17": "HSS/LMS", "1.3.6.1.5.5.7.6.34": "XMSS", "1.3.6.1.5.5.7.6.35": "XMSSMT",
}

// name returns the name of the table, or the identifier in dotted decimal.
func name(id asn1.ObjectIdentifier) string {
	if len(id) > maxArcs {
		return "an unknown algorithm"
	}
	text := id.String()
	return cmp.Or(names[text], text)
}

// maxArcs bounds the numbers of an identifier that are shown. No assigned one is longer.
const maxArcs = 20

// Key returns the name of the algorithm of a SubjectPublicKeyInfo in DER. That of an elliptic
// curve has the curve behind it: "ECDSA brainpoolP256r1". It returns "" if info is none.
func Key(info []byte) string {
	in := cryptobyte.String(info)
	if !in.ReadASN1(&in, der.SEQUENCE) {
		return ""
	}
	return identifier(&in)
}

// identifier reads an AlgorithmIdentifier (RFC 5280 §4.1.1.2).
func identifier(in *cryptobyte.String) string {
	var algorithm cryptobyte.String
	var id, curve asn1.ObjectIdentifier
	if !in.ReadASN1(&algorithm, der.SEQUENCE) || !algorithm.ReadASN1ObjectIdentifier(&id) {
		return ""
	}
	out := name(id)
	if out == "ECDSA" && algorithm.ReadASN1ObjectIdentifier(&curve) {
		out += " " + name(curve)
	}
	return out
}

// Certificate returns the names of the algorithms of the key and of the signature of a
// certificate in DER. A name that cannot be read is "".
func Certificate(certificate []byte) (key, signature string) {
	var tbs cryptobyte.String
	in := cryptobyte.String(certificate)
	if !in.ReadASN1(&in, der.SEQUENCE) || !in.ReadASN1(&tbs, der.SEQUENCE) {
		return "", ""
	}
	signature = identifier(&in)
	var info cryptobyte.String
	ok := tbs.SkipOptionalASN1(der.Tag(0).Constructed().ContextSpecific()) && // the version
		tbs.SkipASN1(der.INTEGER) && // serial number
		tbs.SkipASN1(der.SEQUENCE) && // signature
		tbs.SkipASN1(der.SEQUENCE) && // issuer
		tbs.SkipASN1(der.SEQUENCE) && // validity
		tbs.SkipASN1(der.SEQUENCE) && // subject
		tbs.ReadASN1Element(&info, der.SEQUENCE)
	if ok {
		key = Key(info)
	}
	return key, signature
}
