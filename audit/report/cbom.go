package report

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/internal/printable"
)

// cbomRenderer writes a cryptographic bill of materials (CBOM of CycloneDX 1.6): each
// certificate once with the places where it was found, its key, the algorithms of both,
// and the protocol of each server. Its use is to find what a quantum computer will break;
// findings are in other formats. It holds all components until the end, because a
// certificate can be found again.
type cbomRenderer struct {
	out     io.Writer
	program string
	parts   []cdx.Component
	// at has the index in parts of each reference.
	at map[string]int
}

func newCBOM(out io.Writer, to Terminal) audit.Renderer {
	return &cbomRenderer{out: out, program: to.Program, at: map[string]int{}}
}

// once adds a component unless it is there, and returns its reference.
func (b *cbomRenderer) once(ref, name string, properties cdx.CryptoProperties) string {
	if _, known := b.at[ref]; !known {
		b.at[ref] = len(b.parts)
		b.parts = append(b.parts, cdx.Component{BOMRef: ref, Type: cdx.ComponentTypeCryptographicAsset, Name: name, CryptoProperties: &properties})
	}
	return ref
}

// maxOccurrences bounds the places that are listed for one certificate. One certificate
// of an authority can be in every file of an audit.
const maxOccurrences = 1000

// found notes a place of a component.
func (b *cbomRenderer) found(ref string, places ...string) {
	part := &b.parts[b.at[ref]]
	if part.Evidence == nil {
		part.Evidence = &cdx.Evidence{Occurrences: &[]cdx.EvidenceOccurrence{}}
	}
	for _, place := range places {
		if len(*part.Evidence.Occurrences) < maxOccurrences {
			*part.Evidence.Occurrences = append(*part.Evidence.Occurrences, cdx.EvidenceOccurrence{Location: printable.Cell(shortenPlace(place))})
		}
	}
}

// algorithm adds a component for an algorithm, and returns its reference, or "" for an
// empty name. A name is a family and, behind a blank, the curve.
func (b *cbomRenderer) algorithm(name string, primitive cdx.CryptoPrimitive) cdx.BOMReference {
	if name == "" {
		return ""
	}
	family, curve, _ := strings.Cut(name, " ")
	level := quantumLevel(name)
	if strings.Contains(family, "ML-KEM") {
		primitive = cdx.CryptoPrimitiveKEM
	}
	return cdx.BOMReference(b.once("algorithm:"+string(primitive)+":"+name, name, cdx.CryptoProperties{
		AssetType:           cdx.CryptoAssetTypeAlgorithm,
		AlgorithmProperties: &cdx.CryptoAlgorithmProperties{Primitive: primitive, Curve: curve, NistQuantumSecurityLevel: &level},
	}))
}

// quantumLevel returns the security category, 1 to 5, of an algorithm of FIPS 203, 204 or
// 205. It returns 0 for algorithms that a quantum computer breaks, and for unknown ones.
func quantumLevel(name string) int {
	for _, c := range []struct {
		part  string
		level int
	}{
		{"ML-DSA-44", 2}, {"ML-DSA-65", 3}, {"ML-DSA-87", 5}, {"-128", 1}, {"-192", 3}, {"-256", 5},
		{"ML-KEM-512", 1}, {"MLKEM768", 3}, {"ML-KEM-768", 3}, {"MLKEM1024", 5}, {"ML-KEM-1024", 5},
	} {
		if strings.Contains(name, c.part) && (strings.HasPrefix(name, "SLH-DSA") || strings.Contains(c.part, "ML")) {
			return c.level
		}
	}
	return 0
}

// Row implements [audit.Renderer].
func (b *cbomRenderer) Row(r *audit.Row) error {
	if r.Cert == nil {
		return nil
	}
	c := r.Cert
	key := ""
	if len(c.PublicKeyInfo) > 0 {
		sum := sha256.Sum256(c.PublicKeyInfo)
		properties := &cdx.RelatedCryptoMaterialProperties{
			Type: cdx.RelatedCryptoMaterialTypePublicKey, ID: hex.EncodeToString(sum[:]), AlgorithmRef: b.algorithm(c.Key.Algorithm, cdx.CryptoPrimitiveSignature),
		}
		if c.Key.Bits > 0 {
			properties.Size = &c.Key.Bits
		}
		key = b.once("key:"+properties.ID, c.Key.String(), cdx.CryptoProperties{AssetType: cdx.CryptoAssetTypeRelatedCryptoMaterial, RelatedCryptoMaterialProperties: properties})
	}
	ref := b.once("certificate:"+c.HexFingerprint(), printable.Cell(printable.Shorten(c.Name, maxName)), cdx.CryptoProperties{
		AssetType: cdx.CryptoAssetTypeCertificate,
		CertificateProperties: &cdx.CertificateProperties{
			SubjectName: printable.Cell(printable.Shorten(c.Name, maxName)), IssuerName: printable.Cell(printable.Shorten(c.IssuerName, maxName)), CertificateFormat: "X.509",
			NotValidBefore: jsonTime(c.NotBefore).Format(time.RFC3339), NotValidAfter: jsonTime(c.NotAfter).Format(time.RFC3339),
			SignatureAlgorithmRef: b.algorithm(c.SignatureName, cdx.CryptoPrimitiveSignature), SubjectPublicKeyRef: cdx.BOMReference(key),
		},
	})
	b.parts[b.at[ref]].Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: c.HexFingerprint()}}
	b.found(ref, append([]string{r.Place}, r.Also...)...)
	if r.TLS != nil && r.TLS.Version != 0 {
		b.protocol(r, ref)
	}
	return nil
}

// protocol adds the protocol of a server, which refers to its certificate and to the
// key exchange. The certificate has the place as well.
func (b *cbomRenderer) protocol(r *audit.Row, certificate string) {
	place := printable.Cell(shortenPlace(r.Place))
	refs := []cdx.BOMReference{cdx.BOMReference(certificate)}
	if exchange := b.algorithm(r.KeyExchange(), cdx.CryptoPrimitiveKeyAgree); exchange != "" {
		refs = append(refs, exchange)
	}
	ref := b.once("protocol:"+place, "TLS of "+place, cdx.CryptoProperties{
		AssetType: cdx.CryptoAssetTypeProtocol,
		ProtocolProperties: &cdx.CryptoProtocolProperties{
			Type: cdx.CryptoProtocolTypeTLS, Version: strings.TrimPrefix(r.Protocol(), "TLS "), CryptoRefArray: &refs,
		},
	})
	b.found(ref, r.Place)
}

// End implements [audit.Renderer].
func (b *cbomRenderer) End(s *audit.Summary) error {
	name, version := nameAndVersion(b.program)
	bom := cdx.NewBOM()
	bom.Components = &b.parts
	properties := []cdx.Property{{Name: "artstore:judged_at", Value: jsonTime(s.Now).Format(time.RFC3339)}, {Name: "artstore:summary", Value: printable.Cell(s.String())}}
	for _, p := range []cdx.Property{
		{Name: "artstore:forecast", Value: map[bool]string{true: "true"}[s.Forecast()]}, {Name: "artstore:interrupted", Value: map[bool]string{false: "true"}[s.Complete]},
		{Name: "artstore:host", Value: s.About.Host}, {Name: "artstore:command", Value: printable.Cell(strings.Join(s.About.Command, " "))},
	} {
		if p.Value != "" {
			properties = append(properties, p)
		}
	}
	bom.Metadata = &cdx.Metadata{
		Timestamp:  s.ReportTime().UTC().Format(time.RFC3339),
		Tools:      &cdx.ToolsChoice{Components: &[]cdx.Component{{Type: cdx.ComponentTypeApplication, Name: name, Version: version}}},
		Properties: &properties,
	}
	return cdx.NewBOMEncoder(b.out, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cdx.SpecVersion1_6)
}
