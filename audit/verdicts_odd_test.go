package audit_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"math/big"
	"strings"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
)

func withRSA(bits int) option { return func(r *certPlan) { r.key = rsaKeys[bits]() } }

func onCurve(c elliptic.Curve) option {
	return func(r *certPlan) {
		key, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			panic(err)
		}
		r.key = key
	}
}

func ed(r *certPlan) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	r.key = key
}

// keyInfo replaces the public key by a SubjectPublicKeyInfo in hexadecimal.
func keyInfo(text string) option {
	return edit(func(t *tbsCertificate) {
		der, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
		if err != nil {
			panic(err)
		}
		t.Key = asn1.RawValue{FullBytes: der}
	})
}

// withoutKeyFile is for keys that no program here could read.
func withoutKeyFile(m func(pki) *madeFiles) func(pki) *madeFiles {
	return func(p pki) *madeFiles {
		p.Helper()
		out := m(p)
		delete(out.files, keyFile)
		return out
	}
}

// rsa512 sets a key that a laptop can factor.
func rsa512(r *certPlan) {
	edit(func(t *tbsCertificate) {
		a, _ := rand.Prime(rand.Reader, 256)
		b, _ := rand.Prime(rand.Reader, 256)
		der, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: new(big.Int).Mul(a, b), E: 65537})
		if err != nil {
			panic(err)
		}
		t.Key = asn1.RawValue{FullBytes: der}
	})(r)
}

// rsaPSSKey changes the identifier of an RSA key to id-RSASSA-PSS (RFC 4055 §3.1).
func rsaPSSKey(r *certPlan) {
	edit(func(t *tbsCertificate) {
		var info struct {
			Algorithm pkix.AlgorithmIdentifier
			Key       asn1.BitString
		}
		if _, err := asn1.Unmarshal(t.Key.FullBytes, &info); err != nil {
			panic(err)
		}
		info.Algorithm = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}}
		der, err := asn1.Marshal(info)
		if err != nil {
			panic(err)
		}
		t.Key = asn1.RawValue{FullBytes: der}
	})(r)
}

func exponent3(r *certPlan) {
	edit(func(t *tbsCertificate) {
		der, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: rsaKeys[2048]().Public().(*rsa.PublicKey).N, E: 3})
		if err != nil {
			panic(err)
		}
		t.Key = asn1.RawValue{FullBytes: der}
	})(r)
}

// algorithmCases are keys and signatures, weak ones and odd ones.
func algorithmCases() []verdictCase {
	const noCurve = "crypto/x509 does not read keys on this curve, and TLS 1.3 has no signature scheme for it"
	return []verdictCase{
		{"RSA of 2048 bits throughout", below(withRSA(2048), withRSA(2048), withRSA(2048)), ""},
		{"a leaf with RSA of 1024 bits", below(withoutPath, withoutPath, withRSA(1024)), ""},
		{"an intermediate with RSA of 1024 bits", below(withoutPath, withRSA(1024), withoutPath), ""},
		{"a root with RSA of 1024 bits", below(withRSA(1024), withoutPath, withoutPath), ""},
		{"a leaf with RSA of 512 bits", withoutKeyFile(below(withoutPath, withoutPath, rsa512)), ""},
		{"a leaf on P-384", below(withoutPath, withoutPath, onCurve(elliptic.P384())), ""},
		{"a leaf on P-521", below(withoutPath, withoutPath, onCurve(elliptic.P521())), ""},
		{"a leaf on P-224", below(withoutPath, withoutPath, onCurve(elliptic.P224())), "TLS 1.3 has no signature scheme for P-224"},
		{"a leaf with Ed25519", below(withoutPath, withoutPath, ed), ""},
		{"a leaf on secp256k1", withoutKeyFile(below(withoutPath, withoutPath, keyInfo(`3056301006072a8648ce3d020106052b8104000a034200
			0479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8`))), noCurve},
		{"a leaf signed with SHA-1", below(withoutPath, withoutPath, verifyListSignature(withSHA1)), ""},
		{"an intermediate signed with SHA-1", below(withoutPath, verifyListSignature(withSHA1), withoutPath), ""},
		{"a root signed with SHA-1", below(verifyListSignature(withSHA1), withoutPath, withoutPath), ""},
		{"a leaf signed with SHA-1 and RSA", below(withoutPath, withRSA(2048), verifyListSignature(withSHA1)), ""},
		{"a leaf signed with MD5 and RSA", below(withoutPath, withRSA(2048), verifyListSignature(withMD5)), ""},
		{"a root signed with MD5 and RSA", below(both(withRSA(2048), verifyListSignature(withMD5)), withoutPath, withoutPath), ""},
		{"an intermediate of the bundle signed with SHA-1", func(p pki) *madeFiles {
			root := p.root("Root")
			mid := p.ca(root, "Intermediate", verifyListSignature(withSHA1))
			return p.chain(p.leaf(mid)).trust(mid, root)
		}, ""},
		{"signed with ECDSA and SHA-224", below(withoutPath, withoutPath, verifyListSignature(withSHA224)), "crypto/x509 knows no signatures with SHA-224: peers in Go refuse the chain"},
		{"signed with ECDSA and SHA-512", below(withoutPath, withoutPath, verifyListSignature(withSHA512)), ""},
		{"a leaf with a key for RSA-PSS only", withoutKeyFile(below(withoutPath, withoutPath, both(withRSA(2048), rsaPSSKey))), ""},
		{"a leaf with RSA of 2048 bits and the exponent 3", withoutKeyFile(below(withoutPath, withoutPath, exponent3)), ""},
		{"an algorithm inside that is not the one outside", below(withoutPath, withoutPath, edit(func(t *tbsCertificate) {
			der, _ := asn1.Marshal([]asn1.ObjectIdentifier{withSHA1.ecdsa})
			t.Algorithm = asn1.RawValue{FullBytes: der}
		})), ""},
		{"a signature algorithm that does not fit the issuer's key", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			from := p.der(withSHA256.ecdsa)
			to := bytes.Clone(from)
			to[len(to)-1] = 4 // ecdsa-with-SHA512
			wrong := *leaf
			wrong.der = bytes.ReplaceAll(leaf.der, from, to)
			return p.chain(&wrong, mid).trust(root)
		}, ""},
	}
}

// fieldCases are fields with odd values.
func fieldCases() []verdictCase {
	serial := func(b ...byte) option { return edit(func(t *tbsCertificate) { t.Serial = raw(asn1.TagInteger, b...) }) }
	const negative = "crypto/x509 does not read negative serial numbers, so that no peer in Go takes it"
	return []verdictCase{
		{"serial number 0", below(withoutPath, withoutPath, serial(0)), ""},
		{"a negative serial number at the leaf", below(withoutPath, withoutPath, serial(0xfb)), negative},
		{"a negative serial number at the intermediate", below(withoutPath, serial(0xfb), withoutPath), negative},
		{"a negative serial number at the root", below(serial(0xfb), withoutPath, withoutPath), negative},
		{"a serial number of 20 bytes", below(withoutPath, withoutPath, serial(bytes.Repeat([]byte{0x7f}, 20)...)), ""},
		{"a serial number of 64 bytes", below(withoutPath, withoutPath, serial(bytes.Repeat([]byte{0x7f}, 64)...)), ""},
		{"a serial number with a superfluous zero", below(withoutPath, withoutPath, serial(0, 1)), ""},
		{"version 1 without extensions", below(withoutPath, withoutPath, both(atVersion(1), noExtensions)), ""},
		{"version 1 with extensions", below(withoutPath, withoutPath, atVersion(1)), ""},
		{"version 4", below(withoutPath, withoutPath, atVersion(4)), "crypto/x509 reads versions up to 3"},
		{"no extensions", below(withoutPath, withoutPath, noExtensions), ""},
		{"an empty subject, and names that are not critical", below(withoutPath, withoutPath, emptySubject), ""},
		{"an empty subject, and critical names", below(withoutPath, withoutPath, both(emptySubject, extension(oidAltName, true, dnsNames("server.test")...))), ""},
		{"an empty subject, and no names", below(withoutPath, withoutPath, both(emptySubject, dns())), ""},
		{"an extension twice", below(withoutPath, withoutPath, edit(func(t *tbsCertificate) { t.Extensions = append(t.Extensions, t.Extensions[0]) })), ""},
		{"trailing bytes behind the certificate", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			long := *leaf
			long.der = append(bytes.Clone(leaf.der), 0, 0)
			return p.chain(&long, mid).trust(root)
		}, "bytes behind a certificate: crypto/x509 does not read it"},
		{"names of 20 000 letters", below(withoutPath, withoutPath, commonName(strings.Repeat("a", 20_000))), ""},
	}
}

func emptySubject(r *certPlan) {
	edit(func(t *tbsCertificate) { t.Subject = raw(asn1.TagSequence) })(r)
}

// dnsNames is a subjectAltName with these names, whatever is in them.
func dnsNames(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(append(list, 0x82, byte(len(n))), n...)
	}
	return append([]byte{0x30, byte(len(list))}, list...)
}

// nameCases are about names in certificates; whether a server has the right one is in
// verdicts_servers_test.go.
func nameCases() []verdictCase {
	alt := func(der ...byte) func(pki) *madeFiles {
		return below(withoutPath, withoutPath, extension(oidAltName, false, der...))
	}
	return []verdictCase{
		{"no names", below(withoutPath, withoutPath, dns()), ""},
		{"an address alone", below(withoutPath, withoutPath, both(dns(), address("10.1.2.3"))), ""},
		{"a wildcard", below(withoutPath, withoutPath, dns("*.server.test")), ""},
		{"a name with an underscore", below(withoutPath, withoutPath, dns("storage_element.test")), ""},
		{"a name in capitals", below(withoutPath, withoutPath, dns("SERVER.TEST")), ""},
		{"an empty list of names", alt(0x30, 0), ""},
		{"an empty DNS name", alt(dnsNames("")...), ""},
		{"a DNS name with a zero byte", alt(dnsNames("server.test\x00.example")...), ""},
		{"a DNS name in UTF-8", alt(dnsNames("sërver.test")...), "a dNSName is an IA5String: crypto/x509 does not read the certificate"},
		{"an address of five bytes", alt(0x30, 7, 0x87, 5, 1, 2, 3, 4, 5), "an address has 4 or 16 bytes: crypto/x509 does not read the certificate"},
		{"names that are broken DER", alt(0x30, 0x7f), ""},
	}
}

// littleEndian returns a text in UTF-16, as Windows writes it.
func littleEndian(text string) string {
	return string(audittest.UTF16(binary.LittleEndian, true, []byte(text)))
}

// oddKey makes chains whose key lies in another text.
func oddKey(change func(string) string) func(pki) *madeFiles {
	return func(p pki) *madeFiles {
		p.Helper()
		root, mid, leaf := p.three()
		m := p.chain(leaf, mid).trust(root).file(keyFile, []byte(change(string(leaf.keyPEM(p)))))
		m.apart = true
		return m
	}
}

// keyCases are pairs that do not fit.
func keyCases() []verdictCase {
	return []verdictCase{
		{"the key of another certificate", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			return p.chain(leaf, mid).trust(root).file(keyFile, mid.keyPEM(p))
		}, ""},
		{"the key of another kind", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			other := p.leaf(mid, withRSA(2048))
			return p.chain(leaf, mid).trust(root).file(keyFile, other.keyPEM(p))
		}, ""},
		{"the key in the file of the chain", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			m := p.chain(leaf, mid).trust(root)
			delete(m.files, keyFile)
			return m.file(chainFile, append(leaf.keyPEM(p), m.files[chainFile]...))
		}, ""},
		{"the key in SEC 1", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			der, err := x509.MarshalECPrivateKey(leaf.key.(*ecdsa.PrivateKey))
			certtest.Must(p, err)
			return p.chain(leaf, mid).trust(root).file(keyFile, certtest.Block("EC PRIVATE KEY", der))
		}, ""},
		{"the key of the leaf second in the chain", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			return p.chain(p.leaf(mid), leaf, mid).trust(root).file(keyFile, leaf.keyPEM(p))
		}, ""},
		{"the key in UTF-16", oddKey(littleEndian), ""},
		{"a blank line in the key", oddKey(func(key string) string { return key[:80] + "\n\n" + key[80:] }), ""},
		{"the key with line breaks written as in JSON", oddKey(func(key string) string { return strings.ReplaceAll(key, "\n", `\n`) }), ""},
		{"text on the line of the key", oddKey(func(key string) string { return "key: " + key }), ""},
		{"the key behind a byte order mark", oddKey(func(key string) string { return "\xef\xbb\xbf" + key }), ""},
		{"text before the key", oddKey(func(key string) string { return "our key\n" + key }), ""},
		{"a damaged key", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			return p.chain(leaf, mid).trust(root).file(keyFile, leaf.keyPEM(p)[:100])
		}, ""},
	}
}

// trusted is OpenSSL's form of a root with usages that it is trusted for (0x30) or
// not trusted for (0xa0), as openssl x509 -addtrust and -addreject write it.
func trusted(p pki, root *certified, how byte, use x509.ExtKeyUsage) []byte {
	p.Helper()
	id := map[x509.ExtKeyUsage]byte{x509.ExtKeyUsageServerAuth: 1, x509.ExtKeyUsageClientAuth: 2}[use]
	oid := []byte{6, 8, 0x2b, 6, 1, 5, 5, 7, 3, id}
	list := append([]byte{how, byte(len(oid))}, oid...)
	return certtest.Block("TRUSTED CERTIFICATE", append(bytes.Clone(root.der), append([]byte{0x30, byte(len(list))}, list...)...))
}

// bundleCases are trust bundles, as files.
func bundleCases() []verdictCase {
	from := func(change func(p pki, root, mid *certified) []byte) func(pki) *madeFiles {
		return func(p pki) *madeFiles {
			p.Helper()
			root, mid, leaf := p.three()
			return p.chain(leaf, mid).trust().file(bundleFile, change(p, root, mid))
		}
	}
	return []verdictCase{
		{"empty", from(func(pki, *certified, *certified) []byte { return nil }), ""},
		{"text without a certificate", from(func(pki, *certified, *certified) []byte { return []byte("see the wiki\n") }), ""},
		{"the intermediate alone", from(func(_ pki, _, mid *certified) []byte { return pemRenderer(mid) }), ""},
		{"the intermediate under an expired root", func(p pki) *madeFiles {
			root := p.root("Root", expiredOnce())
			mid := p.ca(root, "Intermediate")
			return p.chain(p.leaf(mid)).trust(mid, root)
		}, ""},
		{"the intermediate under a root that may not sign", func(p pki) *madeFiles {
			root := p.root("Root", keyUses(x509.KeyUsageCRLSign))
			mid := p.ca(root, "Intermediate")
			return p.chain(p.leaf(mid)).trust(mid, root)
		}, ""},
		{"the intermediate under a root that excludes the name", func(p pki) *madeFiles {
			root := p.root("Root", excludes("test"))
			mid := p.ca(root, "Intermediate")
			return p.chain(p.leaf(mid)).trust(mid, root)
		}, ""},
		{"the root behind text", from(func(_ pki, root, _ *certified) []byte { return append([]byte("Our root:\n"), pemRenderer(root)...) }), ""},
		{"the root with CRLF", from(func(_ pki, root, _ *certified) []byte {
			return bytes.ReplaceAll(pemRenderer(root), []byte("\n"), []byte("\r\n"))
		}), ""},
		{"the root as X509 CERTIFICATE", from(func(_ pki, root, _ *certified) []byte { return certtest.Block("X509 CERTIFICATE", root.der) }),
			"peers in Go read blocks of the type CERTIFICATE only, and --ca-cert is read as they do"},
		{"the root without its last line", from(func(_ pki, root, _ *certified) []byte {
			return bytes.TrimSuffix(pemRenderer(root), []byte("-----END CERTIFICATE-----\n"))
		}), ""},
		{"a damaged block behind the root", from(func(_ pki, root, _ *certified) []byte {
			return append(pemRenderer(root), "-----BEGIN CERTIFICATE-----\nMIIB!\n-----END CERTIFICATE-----\n"...)
		}), ""},
		{"a damaged block before the root", from(func(_ pki, root, _ *certified) []byte {
			return append([]byte("-----BEGIN CERTIFICATE-----\nMIIB!\n-----END CERTIFICATE-----\n"), pemRenderer(root)...)
		}), ""},
		{"a key in the bundle", from(func(p pki, root, _ *certified) []byte { return append(p.root("x").keyPEM(p), pemRenderer(root)...) }),
			"every service gets the bundle: a private key has no place in it"},
		{"100 strangers and the root", from(func(p pki, root, _ *certified) []byte {
			var all []*certified
			for range 100 {
				all = append(all, p.root("Stranger"))
			}
			return pemRenderer(append(all, root)...)
		}), ""},
		{"the root as TRUSTED CERTIFICATE, for servers", from(func(p pki, root, _ *certified) []byte { return trusted(p, root, 0x30, x509.ExtKeyUsageServerAuth) }), ""},
		{"the root as TRUSTED CERTIFICATE, not for servers", from(func(p pki, root, _ *certified) []byte { return trusted(p, root, 0xa0, x509.ExtKeyUsageServerAuth) }), ""},
		{"the leaf and the root", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			return p.chain(leaf, mid).trust(leaf, root)
		}, ""},
		{"an intermediate that was renewed, in the chain it has expired", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			return p.chain(leaf, p.again(mid, root, "Intermediate", expiredOnce())).trust(root, mid)
		}, "an expired certificate is sent along, and clients that do not have the new one in their bundle refuse it"},
		{"the leaf alone", func(p pki) *madeFiles {
			_, mid, leaf := p.three()
			return p.chain(leaf, mid).trust(leaf)
		}, ""},
	}
}

// textCases are chain files that differ in their text only.
func textCases() []verdictCase {
	wears := func(change func(string) string) func(pki) *madeFiles {
		return func(p pki) *madeFiles {
			p.Helper()
			m := below(withoutPath, withoutPath, withoutPath)(p)
			return m.file(chainFile, []byte(change(string(m.files[chainFile]))))
		}
	}
	replace := func(from, to string) func(pki) *madeFiles {
		return wears(func(text string) string { return strings.ReplaceAll(text, from, to) })
	}
	const begin, end = "-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n"
	return []verdictCase{
		{"CRLF", replace("\n", "\r\n"), ""},
		{"CR alone", replace("\n", "\r"), ""},
		{"no line break at the end", wears(func(text string) string { return strings.TrimSuffix(text, "\n") }), ""},
		{"no line breaks between blocks", replace(end+begin, strings.TrimSuffix(end, "\n")+begin), ""},
		{"blank lines between blocks", replace(end, end+"\n\n"), ""},
		{"a blank line within a block", wears(func(text string) string { return strings.Replace(text, begin, begin+"\n", 1) }), ""},
		{"a blank line in the middle of a block", wears(func(text string) string { return text[:200] + strings.Replace(text[200:], "\n", "\n\n", 1) }), ""},
		{"spaces before each line", replace("\n", "\n  "), ""},
		{"spaces behind each line", replace("\n", "  \n"), ""},
		{"one line of base64", wears(func(text string) string {
			body := strings.NewReplacer(begin, "<", end, ">", "\n", "").Replace(text)
			return strings.NewReplacer("<", begin, ">", "\n"+end).Replace(body)
		}), ""},
		{"lines of 76 letters", wears(func(text string) string {
			body := strings.NewReplacer(begin, "<", end, ">", "\n", "").Replace(text)
			var out strings.Builder
			n := 0
			for _, c := range []byte(body) {
				switch c {
				case '<':
					out.WriteString(begin)
					n = 0
				case '>':
					out.WriteString("\n" + end)
				default:
					if n++; n > 76 {
						out.WriteString("\n")
						n = 1
					}
					out.WriteByte(c)
				}
			}
			return out.String()
		}), ""},
		{"text before each block", replace(begin, "subject=leaf\nissuer=Intermediate\n"+begin), ""},
		{"text on the line of the first block", wears(func(text string) string { return "cert: " + text }), ""},
		{"a byte order mark", wears(func(text string) string { return "\xef\xbb\xbf" + text }), ""},
		{"UTF-16", wears(littleEndian), ""},
		{"line breaks written as in JSON", replace("\n", `\n`), ""},
		{"four dashes at the end of the second block", wears(func(text string) string { return strings.TrimSuffix(text, "-\n") + "\n" }), ""},
		{"the second block without its end", wears(func(text string) string { return strings.TrimSuffix(text, end) }), ""},
		{"the first block without its end", wears(func(text string) string { return strings.Replace(text, end, "", 1) }), ""},
		{"a letter that is not base64 in the second block", wears(func(text string) string { return text[:len(text)-60] + "!" + text[len(text)-59:] }), ""},
		{"headers in the first block", wears(func(text string) string { return strings.Replace(text, begin, begin+"Comment: mine\n\n", 1) }), ""},
		{"base64 without armour", wears(func(text string) string { return strings.NewReplacer(begin, "", end, "").Replace(text) }), ""},
		{"X509 CERTIFICATE", replace("CERTIFICATE", "X509 CERTIFICATE"), ""},
		{"X.509 CERTIFICATE", replace("CERTIFICATE", "X.509 CERTIFICATE"), ""},
		{"a space before the first marker", wears(func(text string) string { return " " + text }), ""},
		{"a space before each marker", replace("-----BEGIN", " -----BEGIN"), ""},
		{"blank lines before the ends", replace("-----END", "\n-----END"), ""},
		{"two blank lines behind the markers", replace(begin, begin+"\n\n"), ""},
		{"text behind the ends", replace(end, strings.TrimSuffix(end, "\n")+" of mine\n"), ""},
		{"text behind the markers", replace(begin, strings.TrimSuffix(begin, "\n")+" of mine\n"), ""},
		{"zero bytes before the first block", wears(func(text string) string { return "\x00\x00\x00\n" + text }), ""},
		{"zero bytes behind the last block", wears(func(text string) string { return text + "\x00\x00\x00" }), ""},
		{"a byte order mark on a line of its own", wears(func(text string) string { return "\xef\xbb\xbf\n" + text }), ""},
		{"a byte order mark before each block", replace("-----BEGIN", "\xef\xbb\xbf-----BEGIN"), ""},
		{"headers in the second block", wears(func(text string) string {
			return text[:100] + strings.Replace(text[100:], begin, begin+"Comment: mine\n\n", 1)
		}), ""},
		{"a blank line in the second block", wears(func(text string) string { return text[:len(text)-60] + "\n\n" + text[len(text)-60:] }), ""},
		{"certificate in small letters", replace("CERTIFICATE", "certificate"), ""},
		{"DER", func(p pki) *madeFiles {
			root := p.root("Root")
			leaf := p.leaf(root)
			return p.chain(leaf).trust(root).file(chainFile, leaf.der)
		}, ""},
		{"a bundle with a byte order mark", func(p pki) *madeFiles {
			m := below(withoutPath, withoutPath, withoutPath)(p)
			return m.file(bundleFile, append([]byte("\xef\xbb\xbf"), m.files[bundleFile]...))
		}, "peers in Go find no certificate behind a byte order mark, and --ca-cert is read as they do"},
		{"a bundle in UTF-16", func(p pki) *madeFiles {
			m := below(withoutPath, withoutPath, withoutPath)(p)
			return m.file(bundleFile, audittest.UTF16(binary.LittleEndian, true, m.files[bundleFile]))
		}, ""},
		{"a bundle in DER", func(p pki) *madeFiles {
			root, mid, leaf := p.three()
			return p.chain(leaf, mid).trust().file(bundleFile, root.der)
		}, ""},
		{"a bundle with line breaks written as in JSON", func(p pki) *madeFiles {
			m := below(withoutPath, withoutPath, withoutPath)(p)
			return m.file(bundleFile, bytes.ReplaceAll(m.files[bundleFile], []byte("\n"), []byte(`\n`)))
		}, ""},
	}
}
