package format_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"maps"
	"regexp"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/internal/dertest"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ssh"
	"software.sslmate.com/src/go-pkcs12"
)

// wrapping is one form in which a file holds a certificate.
type wrapping struct {
	data []byte
	want string // that the state of its row begins with
}

const (
	readIt = "EXPIRED expired"
	flawed = "EXPIRED expired odd-file"
)

func quoted(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	certtest.Must(t, err)
	return b
}

// texts returns wrappings of PEM.
func texts(t testing.TB, old *certtest.Pair) map[string]wrapping {
	plain := certtest.Encode(old)
	text := strings.TrimSpace(string(plain))
	flat := strings.ReplaceAll(text, "\n", `\n`)
	manifest := []byte(audittest.SecretYAML("tls", "tls.crt", b64(plain)))
	return map[string]wrapping{
		"pem/plain.pem":       {plain, readIt},
		"pem/windows.pem":     {bytes.ReplaceAll(plain, []byte("\n"), []byte("\r\n")), readIt},
		"pem/x509.pem":        {certtest.Block("X509 CERTIFICATE", old.Cert.Raw), flawed},
		"pem/trusted.crt":     {certtest.Block("TRUSTED CERTIFICATE", append(bytes.Clone(old.Cert.Raw), dertest.Sequence(dertest.Sequence(dertest.OID(1, 3, 6, 1, 5, 5, 7, 3, 1)))...)), flawed},
		"pem/bare.crt":        {certtest.Block("TRUSTED CERTIFICATE", old.Cert.Raw), flawed},
		"pem/pkcs7":           {certtest.Block("PKCS7", envelope(old.Cert.Raw)), readIt},
		"pem/cms":             {certtest.Block("CMS", envelope(old.Cert.Raw)), readIt},
		"pem/signed":          {certtest.Block("PKCS #7 SIGNED DATA", envelope(old.Cert.Raw)), readIt},
		"pem/attribute":       {certtest.Block("ATTRIBUTE CERTIFICATE", old.Cert.Raw), `ERROR "ATTRIBUTE CERTIFICATE" is not read; `},
		"pem/comment.pem":     {append([]byte("subject=CN = old\n"), plain...), readIt},
		"pem/indented.pem":    {[]byte("  " + strings.ReplaceAll(text, "\n", "\n  ") + "\n"), flawed},
		"pem/one-line.pem":    {[]byte(strings.ReplaceAll(text, "\n", " ")), flawed},
		"pem/joined.pem":      {[]byte(text + text), "EXPIRED expired chain-order odd-file"},
		"pem/cut.pem":         {plain[:100], "ERROR block 1 is damaged or cut off"},
		"pem/mark.pem":        {append([]byte("\xef\xbb\xbf"), plain...), flawed},
		"pem/second-mark.pem": {append([]byte("x\n\xef\xbb\xbf"), plain...), flawed},
		"pem/le":              {audittest.UTF16(binary.LittleEndian, true, plain), flawed},
		"pem/be":              {audittest.UTF16(binary.BigEndian, true, plain), flawed},
		"pem/le-bare":         {audittest.UTF16(binary.LittleEndian, false, plain), flawed},
		"pem/be-bare":         {audittest.UTF16(binary.BigEndian, false, plain), flawed},

		"text/app.json":       {quoted(t, map[string]string{"cert": string(plain)}), readIt},
		"text/twice.json":     {quoted(t, string(quoted(t, map[string]string{"cert": string(plain)}))), readIt},
		"text/json-mark":      {append([]byte("\xef\xbb\xbf"), quoted(t, map[string]string{"cert": string(plain)})...), readIt},
		"text/json-le":        {audittest.UTF16(binary.LittleEndian, true, quoted(t, map[string]string{"cert": string(plain)})), readIt},
		"text/.env":           {[]byte("TLS_CERT=" + flat + "\n"), readIt},
		"text/quoted.env":     {[]byte(`TLS_CERT="` + flat + "\\n\"\n"), readIt},
		"text/lines.env":      {[]byte("TLS_CERT=\"" + text + "\"\n"), readIt},
		"text/values.yaml":    {[]byte("ca: |\n" + indent(plain)), readIt},
		"text/client.ovpn":    {[]byte("client\n<cert>\n" + text + "\n</cert>\n"), readIt},
		"text/header.h":       {[]byte("char *c = \"" + strings.ReplaceAll(text, "\n", "\\n\"\n\"") + "\\n\";\n"), readIt},
		"text/config.toml":    {[]byte("cert = \"\"\"\n" + text + "\"\"\"\n"), readIt},
		"kube/secret.yaml":    {manifest, readIt},
		"kube/mark.yaml":      {append([]byte("\xef\xbb\xbf"), manifest...), readIt},
		"kube/le.yaml":        {audittest.UTF16(binary.LittleEndian, true, manifest), readIt},
		"kube/be.yaml":        {audittest.UTF16(binary.BigEndian, true, manifest), readIt},
		"kube/inner.yaml":     {[]byte(audittest.SecretYAML("tls", "tls.crt", b64(append([]byte("\xef\xbb\xbf"), plain...)))), readIt},
		"kube/request.yaml":   {[]byte(audittest.SecretYAML("tls", "tls.crt", b64(certtest.Block("CERTIFICATE REQUEST", old.Cert.Raw)))), "ERROR there is no certificate in it, but a certificate request"},
		"name/request.crt":    {certtest.Block("CERTIFICATE REQUEST", old.Cert.Raw), "ERROR there is no certificate in it, but a certificate request"},
		"name/key.crt":        {old.KeyPEM(t), "ERROR there is no certificate in it, but a private key"},
		"name/pgp.cer":        {[]byte("-----BEGIN PGP MESSAGE-----\n\n=abc\n-----END PGP MESSAGE-----\n"), "ERROR there is no certificate in it"},
		"name/empty.p12":      {dertest.PFX(dertest.Sequence()), "ERROR there is no certificate in it"},
		"name/text.der":       {[]byte("nothing"), "ERROR it is neither PEM nor a certificate in DER"},
		"name/dhparam.pem":    {certtest.Block("DH PARAMETERS", old.Cert.Raw), "OK"}, // is a row that says what it is
		"name/public-key.pem": {certtest.Block("PUBLIC KEY", old.Cert.Raw), "OK"},
	}
}

// objects returns wrappings in manifests, and in Base64 elsewhere.
func objects(t testing.TB, old *certtest.Pair) map[string]wrapping {
	plain := certtest.Encode(old)
	bundle, raw := b64(plain), b64(old.Cert.Raw)
	hook := func(kind string) string {
		return "apiVersion: admissionregistration.k8s.io/v1\nkind: " + kind + "\nmetadata: {name: hooks}\nwebhooks:\n- name: a.example.com\n" +
			"  clientConfig:\n    caBundle: " + bundle + "\n    service: {name: x}\n"
	}
	type object = map[string]any
	service := object{"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": object{"name": "v1.y"}, "spec": object{"caBundle": bundle}}
	deployment := object{"apiVersion": "apps/v1", "kind": "Deployment", "webhooks": "none", "spec": []int{1}, "status": 7}
	crd := object{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": object{"name": "crd"},
		"spec": object{"conversion": object{"webhook": object{"clientConfig": object{"caBundle": bundle}}}}}
	csr := object{"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": object{"name": "csr"},
		"spec": object{"request": b64(certtest.Block("CERTIFICATE REQUEST", nil))}, "status": object{"certificate": bundle}}
	keys := object{"keys": []any{object{"kty": "EC", "use": "jwt-svid"}, object{"kty": "EC", "use": "x509-svid", "kid": "a", "x5c": []string{raw}}}, "spiffe_sequence": 1}
	lines := regexp.MustCompile(".{1,64}").ReplaceAllString(raw, "$0\r\n")
	return map[string]wrapping{
		"kube/validating.yaml": {[]byte(hook("ValidatingWebhookConfiguration")), readIt},
		"kube/mutating.yaml":   {[]byte(hook("MutatingWebhookConfiguration")), readIt},
		"kube/hooks.yaml":      {[]byte("apiVersion: v1\nkind: List\nitems:\n- " + strings.ReplaceAll(strings.TrimSpace(hook("MutatingWebhookConfiguration")), "\n", "\n  ")), readIt},
		"kube/bad.yaml":        {[]byte(strings.Replace(hook("MutatingWebhookConfiguration"), bundle, "'!'", 1)), "ERROR it is not in Base64"},
		"kube/nothing.yaml":    {[]byte(strings.Replace(hook("MutatingWebhookConfiguration"), bundle, b64([]byte("nothing")), 1)), "ERROR it is neither PEM nor a certificate in DER"},
		"kube/service.json":    {quoted(t, service), readIt},
		"kube/services.json":   {quoted(t, object{"apiVersion": "v1", "kind": "List", "items": []any{deployment, service}}), readIt},
		"kube/crd.json":        {quoted(t, crd), readIt},
		"kube/crd.yaml":        {[]byte("apiVersion: x\nkind: CustomResourceDefinition\nmetadata: {name: x}\nspec:\n  conversion:\n    webhook:\n      clientConfig: {caBundle: " + bundle + "}\n"), readIt},
		"kube/csr.json":        {quoted(t, csr), readIt},
		"kube/csr.yaml":        {[]byte("apiVersion: x\nkind: CertificateSigningRequest\nmetadata: {name: x}\nstatus: {certificate: " + bundle + "}\n"), readIt},
		"kube/trust.yaml":      {[]byte("apiVersion: x\nkind: ClusterTrustBundle\nmetadata: {name: x}\nspec:\n  trustBundle: |\n" + indent(plain)), readIt},
		"kube/operator.yaml":   {[]byte("apiVersion: x\nkind: Bundle\nspec:\n  inLine: |\n" + indent(plain)), readIt},
		"kube/operator.json":   {quoted(t, object{"apiVersion": "x", "kind": "Bundle", "pem": string(plain)}), readIt},
		"kube/issuer.yaml":     {[]byte("apiVersion: x\nkind: Issuer\nspec: {vault: {caBundle: " + bundle + "}}\n"), readIt},

		"base64/one-line.cer": {[]byte(raw), readIt},
		"base64/lines.crt":    {[]byte(lines), readIt},
		"base64/no-name":      {[]byte(raw + "\n"), readIt},
		"base64/le":           {audittest.UTF16(binary.LittleEndian, true, []byte(lines)), readIt},
		"base64/pkcs7":        {[]byte(b64(envelope(old.Cert.Raw))), readIt},
		"base64/cut.cer":      {[]byte(raw[:99]), "ERROR "},
		"base64/acme.json":    {quoted(t, object{"certificate": bundle}), readIt},
		"base64/app.env":      {[]byte("CERT_B64=" + bundle), readIt},
		"json/spiffe.json":    {quoted(t, keys), readIt},
		"json/domains.json":   {quoted(t, object{"trust_domains": object{"example.org": keys}}), readIt},
		"json/bad.json":       {quoted(t, object{"x5c": []any{"!", 7}}), "ERROR it is not in Base64"},
		"apple/profile.xml":   {[]byte("<dict><key>Picture</key><data>AAAA</data><key>PayloadContent</key>\n<data>\n" + lines + "</data></dict>"), readIt},
		"xml/metadata.xml":    {[]byte("<md:KeyDescriptor><ds:X509Certificate>\n" + lines + "</ds:X509Certificate></md:KeyDescriptor>"), readIt},
	}
}

// javaStore returns a JKS as Java writes it, without a key and with a wrong seal.
func javaStore(magic uint32, aliases []string, certs ...[]byte) []byte {
	number := binary.BigEndian.AppendUint32
	out := number(number(number(nil, magic), 2), uint32(len(certs)))
	for i, cert := range certs {
		out = number(out, 2)
		for _, text := range []string{aliases[i], "\x00\x00\x00\x00\x00\x00\x00\x00", "X.509"} {
			if i := len(text); i != 8 {
				out = binary.BigEndian.AppendUint16(out, uint16(i))
			}
			out = append(out, text...)
		}
		out = append(number(out, uint32(len(cert))), cert...)
	}
	return append(out, make([]byte, 20)...)
}

// streamed converts DER to the BER of programs that do not know lengths beforehand: lengths are
// indefinite, and strings are in pieces.
func streamed(data cryptobyte.String) (out []byte) {
	for !data.Empty() {
		var one, content cryptobyte.String
		var tag der.Tag
		if !data.ReadAnyASN1Element(&one, &tag) {
			panic("no DER")
		}
		if value := one; !value.ReadAnyASN1(&content, nil) {
			panic("no DER")
		}
		switch implicit := der.Tag(0).ContextSpecific(); {
		case tag&0x20 != 0:
			out = append(append(append(out, uint8(tag), 0x80), streamed(content)...), 0, 0)
		case tag == der.OCTET_STRING, tag == implicit && len(content) > 20:
			half := len(content) / 2
			out = append(append(append(append(out, uint8(tag)|0x20, 0x80), dertest.Octets(content[:half])...), dertest.Octets(content[half:])...), 0, 0)
		default:
			out = append(out, one...)
		}
	}
	return out
}

// stores returns wrappings that are no text, and forms that are named and not read.
func stores(t testing.TB, old *certtest.Pair) map[string]wrapping {
	named := func(what string) string { return "ERROR it is " + what + ", which is not read; " }
	jks := javaStore(0xfeedfeed, []string{"own"}, old.Cert.Raw)
	bks := append([]byte("\x00\x00\x00\x02\x00\x00\x00\x14"), make([]byte, 100)...)
	p12, err := pkcs12.Modern2023.Encode(old.Key, old.Cert, nil, "")
	certtest.Must(t, err)
	other, err := pkcs12.Modern2023.Encode(old.Key, old.Cert, nil, "secret")
	certtest.Must(t, err)
	tar := append(make([]byte, 257), "ustar\x00"...)
	return map[string]wrapping{
		"der/plain.der":         {old.Cert.Raw, readIt},
		"der/plain":             {old.Cert.Raw, readIt},
		"der/store.p12":         {p12, readIt},
		"der/other.p12":         {other, "ERROR the empty password does not open it, and no other was given: --password-file"},
		"der/pkcs12.pem":        {certtest.Block("PKCS12", p12), readIt},
		"ber/pkcs7.p7b":         {streamed(envelope(old.Cert.Raw)), readIt},
		"ber/cms.pem":           {certtest.Block("CMS", streamed(envelope(old.Cert.Raw))), readIt},
		"ber/store.p12":         {streamed(p12), readIt},
		"ber/cut.p7b":           {streamed(envelope(old.Cert.Raw))[:99], "ERROR reading its BER: it is no BER"},
		"kube/ber.yaml":         {[]byte(audittest.SecretYAML("x", "store.pfx", b64(streamed(p12)))), readIt},
		"ssh/host-cert.pub":     {sshCertificate(t, old, func(c *ssh.Certificate) { c.ValidBefore = c.ValidAfter + 1 }), readIt},
		"der/pkcs7.p7b":         {envelope(old.Cert.Raw), readIt},
		"java/store.jks":        {jks, readIt},
		"java/cacerts":          {javaStore(0xcececece, []string{"own"}, old.Cert.Raw), readIt},
		"java/cut.jks":          {jks[:100], "ERROR the key store of Java is damaged"},
		"java/secret.yaml":      {[]byte(audittest.SecretYAML("kafka", "keystore.jks", b64(jks))), readIt},
		"java/bouncy.bks":       {bks, named("a key store of Bouncy Castle (BKS or UBER)")},
		"java/unnamed":          {bks, named("a key store of Bouncy Castle (BKS or UBER)")},
		"java/secret-bks.yaml":  {[]byte(audittest.SecretYAML("kafka", "store.bks", b64(bks))), named("a key store of Bouncy Castle (BKS or UBER)")},
		"windows/store.sst":     {[]byte("\x00\x00\x00\x00CERT\x00\x00"), named("a certificate store of Windows")},
		"mac/login.keychain":    {[]byte("kych\x00\x01\x00\x00"), named("a key chain of macOS")},
		"gpg/pubring.kbx":       {[]byte("\x00\x00\x00\x20\x01\x01\x00\x02KBXf"), named("a key box of GnuPG")},
		"nss/cert9.db":          {[]byte("SQLite format 3\x00\x10\x00"), named("a certificate database of NSS")},
		"nss/cert8.db":          {[]byte("\x00\x06\x15\x61\x00\x00\x00\x02"), named("a certificate database of NSS")},
		"archive/certs.zip":     {[]byte("PK\x03\x04\x14\x00"), named("an archive")},
		"archive/ca-bundle.tar": {tar, named("an archive")},
		"archive/tls.tar.gz":    {[]byte("\x1f\x8b\x08\x00"), named("compressed")},
		"archive/pki.zst":       {[]byte("\x28\xb5\x2f\xfd\x04"), named("compressed")},
		"archive/ca.xz":         {[]byte("\xfd7zXZ\x00\x00"), named("compressed")},
		"archive/server.crt":    {[]byte("\x1f\x8b\x08\x00"), named("compressed")},
	}
}

// An expired certificate in each form is read, or has a row that says why not. A good
// certificate is beside them, and no file is passed over.
func TestWrappings(t *testing.T) {
	old, good := certtest.New(t, certtest.New(t, nil, "Old Root", certtest.Authority), "old", certtest.Lives(2*certtest.Day, certtest.Day)), certtest.New(t, certtest.New(t, nil, "Test Root", certtest.Authority), "good")
	all := texts(t, old)
	maps.Copy(all, stores(t, old))
	maps.Copy(all, objects(t, old))
	files := map[string][]byte{"good.pem": certtest.Encode(good)}
	for name, w := range all {
		files[name] = w.data
	}
	dir := certtest.Write(t, files)
	rows := map[string][]string{}
	for _, row := range audittest.Run(t, audittest.Paths(dir)).Rows {
		file, _, _ := strings.Cut(strings.TrimPrefix(row.Place, dir+"/"), "#")
		file, _, _ = strings.Cut(file, ":")
		text := row.State
		for _, f := range row.Findings {
			text += " " + f.Check
		}
		if row.Err != nil {
			text += " " + row.Err.Error()
		}
		rows[file] = append(rows[file], text)
	}
	for name, w := range all {
		if len(rows[name]) == 0 || !strings.HasPrefix(rows[name][0], w.want) {
			t.Errorf("%s: %q, want %q", name, rows[name], w.want)
		}
	}
	if len(all) < 90 || len(rows) != len(all)+1 {
		t.Errorf("%d files have rows, and there are %d and a good one", len(rows), len(all))
	}
	if len(rows["good.pem"]) != 1 || !strings.HasPrefix(rows["good.pem"][0], "OK") {
		t.Errorf("good.pem: %q", rows["good.pem"])
	}
}

// Each entry of a store of Java is judged separately. Its place has its alias.
func TestJavaStore(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority)
	old, good := certtest.New(t, root, "old", certtest.Lives(2*certtest.Day, certtest.Day)), certtest.New(t, root, "good")
	store := javaStore(0xfeedfeed, []string{"good", "old", "old", "\x1b[2J", ""}, good.Cert.Raw, old.Cert.Raw, good.Cert.Raw, good.Cert.Raw, []byte("none"))
	dir := certtest.Write(t, map[string][]byte{"store.jks": store, "secret.yaml": []byte(audittest.SecretYAML("kafka", "store.jks", b64(javaStore(0xfeedfeed, []string{"old"}, old.Cert.Raw))))})
	got := audittest.States(t, audittest.Run(t, audittest.Paths(dir)), dir)
	if text := got["store.jks#unnamed"]; !strings.HasPrefix(text, "ERROR parsing the certificate: ") {
		t.Errorf("%q", text)
	}
	delete(got, "store.jks#unnamed")
	audittest.Want(t, got, map[string]string{
		"store.jks#good": "OK", "store.jks#old": "EXPIRED expired", "store.jks#old (2)": "OK", "store.jks#\x1b[2J": "OK",
		"secret.yaml#prod/kafka:store.jks#old": "EXPIRED expired",
	})
}

// Contract: any text gives parts with a certificate, a key, an error or a document, in bounded time.
func FuzzTexts(f *testing.F) {
	old := certtest.New(f, nil, "old")
	for _, some := range []map[string]wrapping{texts(f, old), objects(f, old)} {
		for _, w := range some {
			f.Add(w.data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, p := range audittest.Parts(data) {
			if p.Twofold {
				t.Errorf("%+v", p)
			}
		}
	})
}
