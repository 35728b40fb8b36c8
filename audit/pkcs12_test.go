package audit_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/artstore/artstore-pki/audit/internal/format"
	"github.com/artstore/artstore-pki/audit/source"
	"github.com/artstore/artstore-pki/secret"
)

// prompt is what a hostile input may take: a row within two seconds, and many
// times that under the race detector on a busy machine. What it asks for would
// take hours.
const prompt = time.Minute

func Location(t *testing.T, what string, act func()) {
	t.Helper()
	start := time.Now()
	act()
	if d := time.Since(start); d > prompt {
		t.Errorf("%s took %v", what, d)
	}
}

// decodeObject is what is in a file, as text: names of certificates, "key" and errors.
func decodeObject(parts []readPart) string {
	var out []string
	for _, p := range parts {
		text := strings.TrimSuffix(p.Place+" ", " ")
		switch {
		case p.Cert != nil && p.Err != nil:
			text += " refused"
		case p.Err != nil:
			text += " error: " + p.Err.Error()
		case p.Cert != nil:
			text += " " + p.Cert.X509().Subject.CommonName
		case p.Key != nil:
			text += " key"
		case p.Doc:
			text += " document"
		default:
			text += " something"
		}
		out = append(out, strings.TrimSpace(text))
	}
	return strings.Join(out, ", ")
}

func TestPKCS12(t *testing.T) {
	root, intermediate, leaf := hierarchy(t)
	chain := []*x509.Certificate{intermediate.cert, root.cert}
	const long = "pässwört €\U0001f511 that is longer than a block of any hash there is, so that the block is filled more than once"
	for name, encoder := range map[string]*pkcs12.Encoder{
		"RC2": pkcs12.LegacyRC2, "3DES": pkcs12.LegacyDES, "PBES2": pkcs12.Modern2023, "PBMAC1": pkcs12.Modern2026, "plain": pkcs12.Passwordless,
	} {
		passwords := []string{"", "secret", long}
		switch name {
		case "plain":
			passwords = passwords[:1]
		case "RC2", "3DES":
			passwords[2] = strings.ReplaceAll(long, "\U0001f511", "") // the library takes no surrogates there
		case "PBES2", "PBMAC1":
			passwords[2] = passwords[2][:len(passwords[2])-1]
			passwords[2] = strings.ReplaceAll(passwords[2], "\U0001f511", "")
		}
		for _, password := range passwords {
			data, err := encoder.Encode(leaf.key, leaf.cert, chain, password)
			must(t, err)
			parts := readParts(data, "wrong", password)
			const want = "ingester, Test Intermediate, Test Root, key"
			if got := decodeObject(parts); got != want || format.Sniff(data) != "PKCS #12" {
				t.Errorf("%s, password %q: %s", name, password, got)
				continue
			}
			if !leaf.key.PublicKey.Equal(parts[3].Key) || parts[0].Locked != (password != "") {
				t.Errorf("%s: the key is another, or its lock", name)
			}
			store, err := encoder.EncodeTrustStore(chain, password)
			must(t, err)
			if got := decodeObject(readParts(store, password)); got != "Test Intermediate, Test Root" {
				t.Errorf("%s, trust store, password %q: %s", name, password, got)
			}
		}
		data, err := encoder.Encode(leaf.key, leaf.cert, nil, "unknown")
		if name != "plain" {
			must(t, err)
			const want = "error: neither the empty password nor one of the 2 that were given opens it"
			if got := decodeObject(readParts(data, "wrong", "too")); got != want {
				t.Errorf("%s: %s", name, got)
			}
		}
	}
}

// GnuTLS hashes a password 600 000 times for the seal, for the certificates and for
// the key. The right one is found behind a wrong one, and its key is compared.
func TestPKCS12OfGnuTLS(t *testing.T) {
	leaf := newPair(t, nil, "leaf")
	data, err := pkcs12.Modern2023.WithIterations(600_000).Encode(leaf.key, leaf.cert, nil, "secret")
	must(t, err)
	if got := decodeObject(readParts(data, "wrong", "secret")); got != "leaf, key" {
		t.Error(got)
	}
}

// NSS streams all of a store: lengths are not stated, strings come in pieces, also
// behind implicit tags. testdata/nss.store is what pk12util -o writes, with the password "secret".
func TestPKCS12OfNSS(t *testing.T) {
	data, err := os.ReadFile("testdata/nss.store")
	must(t, err)
	if got := decodeObject(readParts(data, "secret")); got != "key, a" {
		t.Error(got)
	}
}

// A key that is not encrypted is not locked, whatever password was tried before the empty one.
func TestPKCS12NotLocked(t *testing.T) {
	leaf := newPair(t, nil, "leaf")
	key, err := x509.MarshalPKCS8PrivateKey(leaf.key)
	must(t, err)
	certs, err := pkcs12.Passwordless.Encode(leaf.key, leaf.cert, nil, "")
	must(t, err)
	for name, data := range map[string][]byte{"library": certs, "bare": pfx(sequence(sequence(idKeyBag, explicit(key))))} {
		for _, p := range readParts(data, "given") {
			if p.Locked {
				t.Errorf("%s: %+v", name, p)
			}
		}
	}
}

// What OpenSSL writes by itself and when asked for something odd.
func TestPKCS12OfOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("no openssl to write stores with")
	}
	root, intermediate, leaf := hierarchy(t)
	dir := write(t, map[string][]byte{"all.pem": append(encode(leaf, intermediate, root), leaf.keyPEM(t)...), "password": []byte("secret\n")})
	for _, c := range []struct{ options, want string }{
		{"", "ingester, Test Intermediate, Test Root, key"},
		{"-nokeys", "ingester, Test Intermediate, Test Root"},
		{"-nocerts", "key"},
		{"-nomac", "ingester, Test Intermediate, Test Root, key"},
		{"-macalg sha384 -certpbe AES-128-CBC -keypbe AES-192-CBC -iter 5000", "ingester, Test Intermediate, Test Root, key"},
		{"-macalg sha224 -certpbe NONE -keypbe NONE -nomaciter", "ingester, Test Intermediate, Test Root, key"},
		{"-certpbe DES-EDE3-CBC -keypbe PBE-SHA1-3DES -macalg sha512", "ingester, Test Intermediate, Test Root, key"},
		{"-certpbe PBE-SHA1-3DES -keypbe CAMELLIA-128-CBC", "ingester, Test Intermediate, Test Root, error: the algorithm 1.2.392.200011.61.1.1.1.2 is not supported"},
	} {
		out := filepath.Join(dir, "out.p12")
		args := append([]string{"pkcs12", "-export", "-in", filepath.Join(dir, "all.pem"), "-out", out, "-passout", "file:" + filepath.Join(dir, "password")},
			strings.Fields(c.options)...)
		if said, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", c.options, err, said)
		}
		data, err := os.ReadFile(out)
		must(t, err)
		if got := decodeObject(readParts(data, "secret")); got != c.want {
			t.Errorf("%q: %s", c.options, got)
		}
	}
}

// One wrong password in 256 decrypts to something whose padding is right. Without a
// MAC, that is all there is to tell that it is wrong.
func TestPKCS12PaddedByChance(t *testing.T) {
	key, err := x509.MarshalPKCS8PrivateKey(newPair(t, nil, "x").key)
	must(t, err)
	cipherOf := func(password string) cipher.Block {
		derived, err := pbkdf2.Key(sha256.New, password, []byte("salt"), 1, 32)
		must(t, err)
		block, err := aes.NewCipher(derived)
		must(t, err)
		return block
	}
	right, empty := cipherOf("secret"), cipherOf("")
	padding := 16 - len(key)%16
	plain := append(bytes.Clone(key), bytes.Repeat([]byte{byte(padding)}, padding)...)
	iv := make([]byte, 16)
	for n := uint32(0); ; n++ {
		binary.BigEndian.PutUint32(iv, n)
		text := make([]byte, len(plain))
		cipher.NewCBCEncrypter(right, iv).CryptBlocks(text, plain)
		byChance := make([]byte, len(text))
		cipher.NewCBCDecrypter(empty, iv).CryptBlocks(byChance, text)
		if byChance[len(byChance)-1] != 1 {
			continue
		}
		kdf := sequence(idPBKDF2, sequence(octets([]byte("salt")), number(1), sequence(idHMAC)))
		how := sequence(idPBES2, sequence(kdf, sequence(idAES, octets(iv))))
		data := pfx(sequence(sequence(idShrouded, explicit(sequence(how, octets(text))))))
		if got := decodeObject(readParts(data, "secret")); got != "key" {
			t.Errorf("after %d tries: %s", n, got)
		}
		if parts := readParts(data, "secret"); len(parts) != 1 || parts[0].Key == nil {
			t.Errorf("the right password does not open the key: %+v", parts)
		}
		return
	}
}

// A key store of Java has many keys, and certificates of others.
func TestPKCS12OfJava(t *testing.T) {
	if _, err := exec.LookPath("keytool"); err != nil || testing.Short() {
		t.Skip("no keytool to write stores with, or no time for it")
	}
	other := newPair(t, nil, "somebody else")
	dir := write(t, map[string][]byte{"other.pem": encode(other), "password": []byte("changeit\n")})
	keytool := func(args ...string) {
		t.Helper()
		args = append(args, "-storetype", "PKCS12", "-keystore", filepath.Join(dir, "store.p12"), "-storepass:file", filepath.Join(dir, "password"))
		if said, err := exec.CommandContext(t.Context(), "keytool", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, said)
		}
	}
	for _, name := range []string{"one", "two"} {
		keytool("-genkeypair", "-alias", name, "-dname", "CN="+name, "-keyalg", "EC", "-validity", "300")
	}
	keytool("-importcert", "-noprompt", "-alias", "other", "-file", filepath.Join(dir, "other.pem"))
	r := run(t, source.Targets{Names: []string{filepath.Join(dir, "store.p12")}, Passwords: []secret.String{secret.New("changeit")}})
	if len(r.Rows) != 3 || r.Partial+r.Unread != 0 {
		t.Fatalf("%+v", r.Rows)
	}
	for _, row := range r.Rows {
		name := row.Cert.X509().Subject.CommonName
		if own := name != "somebody else"; own != (row.Key != nil) || own && (!row.Key.Fits || !row.Key.Locked) {
			t.Errorf("%s: %+v", name, row.Key)
		}
		for _, f := range row.Findings {
			if f.Check == "key-mismatch" || f.Check == "key-readable" || f.Check == "chain-order" {
				t.Errorf("%s: %s", name, f.Text)
			}
		}
	}
}

// A certificate that crypto/x509 refuses costs itself; keys are judged by the lock.
func TestStoreRows(t *testing.T) {
	root, intermediate, leaf := hierarchy(t)
	odd := newPair(t, root, "odd", odd)
	store := func(password string, c *x509.Certificate, key any) []byte {
		data, err := pkcs12.Modern2023.Encode(key, c, []*x509.Certificate{intermediate.cert}, password)
		must(t, err)
		return data
	}
	dir := write(t, map[string][]byte{
		"ca.crt": encode(root), "open.p12": store("", leaf.cert, leaf.key), "shut.pfx": store("secret", leaf.cert, leaf.key),
		"unknown.p12": store("what", leaf.cert, leaf.key), "wrong.p12": store("", leaf.cert, odd.key),
		"odd.p12": store("", &x509.Certificate{Raw: negative(t, odd)}, odd.key), "empty.p12": nil, "text.p12": []byte("no store"),
	})
	for _, name := range []string{"open.p12", "shut.pfx"} {
		must(t, os.Chmod(filepath.Join(dir, name), 0o644))
	}
	r := run(t, source.Targets{Names: []string{dir}, Passwords: []secret.String{secret.New("secret")}})
	got := states(t, r, dir)
	if row := got["odd.p12"]; !strings.HasPrefix(row, "ERROR parsing the certificate: x509: negative serial") {
		t.Errorf("odd.p12: %s", row)
	}
	delete(got, "odd.p12")
	want(t, got, map[string]string{
		"ca.crt": "OK", "open.p12": "WARN key-readable", "shut.pfx": "OK", "wrong.p12": "CRIT key-mismatch", "odd.p12#2": "OK",
		"unknown.p12": "ERROR neither the empty password nor the one that was given opens it",
		"empty.p12":   "ERROR the file is empty", "text.p12": "ERROR it is neither PEM nor a certificate in DER",
	})
	if strings.Contains(fmt.Sprintf("%+v", r.Rows), "secret") {
		t.Error("a password is in the rows")
	}
}

// sequence and its kin build stores that no library would write.
func sequence(parts ...[]byte) []byte { return element(der.SEQUENCE, parts...) }

func element(tag der.Tag, parts ...[]byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(bytes.Join(parts, nil)) })
	return b.BytesOrPanic()
}

func number(n int64) []byte {
	var b cryptobyte.Builder
	b.AddASN1Int64(n)
	return b.BytesOrPanic()
}

func octets(content []byte) []byte { return element(der.OCTET_STRING, content) }

func explicit(content []byte) []byte {
	return element(der.Tag(0).Constructed().ContextSpecific(), content)
}

func oid(numbers ...int) []byte {
	var b cryptobyte.Builder
	b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier(numbers))
	return b.BytesOrPanic()
}

var (
	idData     = oid(1, 2, 840, 113549, 1, 7, 1)
	idShrouded = oid(1, 2, 840, 113549, 1, 12, 10, 1, 2)
	idKeyBag   = oid(1, 2, 840, 113549, 1, 12, 10, 1, 1)
	idSafeBag  = oid(1, 2, 840, 113549, 1, 12, 10, 1, 6)
	idPBE3DES  = oid(1, 2, 840, 113549, 1, 12, 1, 3)
	idPBES2    = oid(1, 2, 840, 113549, 1, 5, 13)
	idPBKDF2   = oid(1, 2, 840, 113549, 1, 5, 12)
	idPBMAC1   = oid(1, 2, 840, 113549, 1, 5, 14)
	idSHA1     = oid(1, 3, 14, 3, 2, 26)
	idHMAC     = oid(1, 2, 840, 113549, 2, 9)
	idAES      = oid(2, 16, 840, 1, 101, 3, 4, 1, 42)
)

// pfx is a store with one safe that is not encrypted, and whatever else is given.
func pfx(bags []byte, mac ...[]byte) []byte {
	safes := sequence(sequence(idData, explicit(octets(bags))))
	return sequence(append([][]byte{number(3), sequence(idData, explicit(octets(safes)))}, mac...)...)
}

func macOf(how []byte, iterations int64) []byte {
	return sequence(sequence(how, octets(make([]byte, 20))), octets([]byte("salt")), number(iterations))
}

func shrouded(how []byte) []byte {
	return sequence(idShrouded, explicit(sequence(how, octets(make([]byte, 64)))))
}

func pbes2(iterations int64) []byte {
	kdf := sequence(idPBKDF2, sequence(octets([]byte("salt")), number(iterations)))
	return sequence(idPBES2, sequence(kdf, sequence(idAES, octets(make([]byte, 16)))))
}

// Whatever a store asks for, there is a row, and soon.
func TestHostileStores(t *testing.T) {
	const endless = 1<<31 - 1
	tooOften := "error: a password is hashed 2147483647 times over: more than 4000000 times for one file is not done"
	pbe := func(n int64) []byte { return sequence(idPBE3DES, sequence(octets([]byte("salt")), number(n))) }
	deep := shrouded(pbes2(endless))
	for range 3 {
		deep = sequence(idSafeBag, explicit(sequence(deep)))
	}
	abyss := deep
	for range 500 {
		abyss = sequence(idSafeBag, explicit(sequence(abyss)))
	}
	key, err := x509.MarshalPKCS8PrivateKey(newPair(t, nil, "x").key)
	must(t, err)
	keys := bytes.Repeat(sequence(idKeyBag, explicit(key)), 20_000)
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"MAC":                 {pfx(nil, macOf(sequence(idSHA1), endless)), tooOften},
		"PBMAC1":              {pfx(nil, macOf(sequence(idPBMAC1, sequence(sequence(idPBKDF2, sequence(octets(nil), number(endless), number(32))), sequence(idHMAC))), 1)), tooOften},
		"PBMAC1, length":      {pfx(nil, macOf(sequence(idPBMAC1, sequence(sequence(idPBKDF2, sequence(octets(nil), number(1), number(1<<30))), sequence(idHMAC))), 1)), "error: the PKCS #12 store is damaged"},
		"key, old":            {pfx(sequence(shrouded(pbe(endless)))), tooOften},
		"key, new":            {pfx(sequence(shrouded(pbes2(endless)))), tooOften},
		"key, no times":       {pfx(sequence(shrouded(pbes2(0)))), "error: the PKCS #12 store is damaged"},
		"bag in bags":         {pfx(sequence(deep)), tooOften},
		"bags without an end": {pfx(sequence(abyss)), ""},
		"many derivations":    {pfx(sequence(bytes.Repeat(shrouded(pbes2(300_000)), 50))), "something, something, something, something, something, something, error: a password is hashed 300000 times over: more than 4000000 times for one file is not done"},
		"many keys":           {pfx(sequence(keys)), strings.Repeat("key, ", 100) + "error: it has more than 100 private keys"},
		"bad key":             {pfx(sequence(sequence(idKeyBag, explicit(sequence(number(0)))), sequence(idShrouded, explicit(number(0))), sequence(idShrouded, explicit(sequence(number(0)))))), "error: the private key is damaged or of an unsupported kind, error: the private key is damaged or of an unsupported kind, error: the private key is damaged or of an unsupported kind"},
		"indefinite":          {append(append([]byte{0x30, 0x80}, pfx(sequence())[2:]...), 0, 0), ""},
		"no end":              {append([]byte{0x30, 0x80}, pfx(nil)[2:]...), "error: reading its BER: it is no BER"},
		"cut":                 {pfx(sequence(keys))[:5000], "error: the PKCS #12 store is damaged"},
		"no MAC":              {pfx(nil, sequence(number(1))), "error: the PKCS #12 store is damaged"},
		"unknown MAC":         {pfx(nil, macOf(sequence(idData), 1)), "error: the algorithm 1.2.840.113549.1.7.1 is not supported"},
		"large":               {append(pfx(nil), make([]byte, 8<<20)...), "error: it is larger than 8 MiB, too much for a PKCS #12 store"},
		"nothing in it":       {pfx(sequence()), ""},
		"no bags":             {pfx(number(1)), "error: the empty password does not open it, and no other was given: --password-file"},
		"no certificate":      {pfx(sequence(sequence(oid(1, 2, 840, 113549, 1, 12, 10, 1, 3), explicit(number(1))))), "error: it is neither PEM nor a certificate in DER"},
	} {
		Location(t, name, func() {
			got := decodeObject(readParts(c.data))
			if got != c.want && (c.want == "" || !strings.HasPrefix(got, c.want)) {
				t.Errorf("%s: %.300s\nwant %.300s", name, got, c.want)
			}
		})
	}
	// The work of all passwords is on one account.
	sealed := pfx(sequence(), macOf(sequence(idSHA1), 900_000))
	Location(t, "many passwords", func() {
		if got := decodeObject(readParts(sealed, strings.Split("a b c d e f g h", " ")...)); !strings.HasPrefix(got, "error: a password is hashed 900000 times over") {
			t.Error(got)
		}
	})
}

// Contract: anything gives parts or none, in bounded time, and no part without a
// certificate, a key or a reason but encrypted keys.
func FuzzPKCS12(f *testing.F) {
	_, intermediate, leaf := hierarchy(f)
	for _, encoder := range []*pkcs12.Encoder{pkcs12.LegacyRC2, pkcs12.LegacyDES, pkcs12.Modern2023, pkcs12.Modern2026, pkcs12.Passwordless} {
		data, err := encoder.WithIterations(1).Encode(leaf.key, leaf.cert, []*x509.Certificate{intermediate.cert}, "")
		must(f, err)
		f.Add(data)
	}
	f.Add(pfx(sequence(shrouded(pbes2(1))), macOf(sequence(idSHA1), 1)))
	f.Add(pfx(sequence(sequence(idSafeBag, explicit(sequence(shrouded(pbes2(1))))))))
	f.Fuzz(func(t *testing.T, data []byte) {
		if format.Sniff(data) != "PKCS #12" {
			return
		}
		for _, p := range readParts(data, "secret") {
			if p.Twofold || p.Doc || p.Place != "" {
				t.Errorf("%+v", p)
			}
		}
	})
}
