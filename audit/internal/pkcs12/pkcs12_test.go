package pkcs12_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/internal/dertest"
	"github.com/artstore/artstore-pki/audit/internal/format"
	"github.com/artstore/artstore-pki/audit/source"
	"github.com/artstore/artstore-pki/secret"
)

func TestPKCS12(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	chain := []*x509.Certificate{intermediate.Cert, root.Cert}
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
			data, err := encoder.Encode(leaf.Key, leaf.Cert, chain, password)
			certtest.Must(t, err)
			parts := audittest.Parts(data, "wrong", password)
			const want = "ingester, Test Intermediate, Test Root, key"
			if got := audittest.Describe(parts); got != want || format.Sniff(data) != "PKCS #12" {
				t.Errorf("%s, password %q: %s", name, password, got)
				continue
			}
			if !leaf.Key.PublicKey.Equal(parts[3].Key) || parts[0].Locked != (password != "") {
				t.Errorf("%s: the key is another, or its lock", name)
			}
			store, err := encoder.EncodeTrustStore(chain, password)
			certtest.Must(t, err)
			if got := audittest.Describe(audittest.Parts(store, password)); got != "Test Intermediate, Test Root" {
				t.Errorf("%s, trust store, password %q: %s", name, password, got)
			}
		}
		data, err := encoder.Encode(leaf.Key, leaf.Cert, nil, "unknown")
		if name != "plain" {
			certtest.Must(t, err)
			const want = "error: neither the empty password nor one of the 2 that were given opens it"
			if got := audittest.Describe(audittest.Parts(data, "wrong", "too")); got != want {
				t.Errorf("%s: %s", name, got)
			}
		}
	}
}

// GnuTLS hashes a password 600 000 times for the MAC, for the certificates and for the key. The
// budget allows one wrong password before the right one.
func TestPKCS12OfGnuTLS(t *testing.T) {
	leaf := certtest.New(t, nil, "leaf")
	data, err := pkcs12.Modern2023.WithIterations(600_000).Encode(leaf.Key, leaf.Cert, nil, "secret")
	certtest.Must(t, err)
	if got := audittest.Describe(audittest.Parts(data, "wrong", "secret")); got != "leaf, key" {
		t.Error(got)
	}
}

// NSS writes a store with indefinite lengths, and with strings in pieces, also behind implicit
// tags. testdata/nss.store was written by pk12util -o, with the password "secret".
func TestPKCS12OfNSS(t *testing.T) {
	data, err := os.ReadFile("testdata/nss.store")
	certtest.Must(t, err)
	if got := audittest.Describe(audittest.Parts(data, "secret")); got != "key, a" {
		t.Error(got)
	}
}

// A key that is not encrypted is not locked, whatever password was tried before the empty one.
func TestPKCS12NotLocked(t *testing.T) {
	leaf := certtest.New(t, nil, "leaf")
	key, err := x509.MarshalPKCS8PrivateKey(leaf.Key)
	certtest.Must(t, err)
	certs, err := pkcs12.Passwordless.Encode(leaf.Key, leaf.Cert, nil, "")
	certtest.Must(t, err)
	for name, data := range map[string][]byte{"library": certs, "bare": dertest.PFX(dertest.Sequence(dertest.Sequence(idKeyBag, dertest.Explicit(key))))} {
		for _, p := range audittest.Parts(data, "given") {
			if p.Locked {
				t.Errorf("%s: %+v", name, p)
			}
		}
	}
}

// Stores that OpenSSL writes, with its defaults and with unusual options.
func TestPKCS12OfOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("no openssl to write stores with")
	}
	root, intermediate, leaf := certtest.Hierarchy(t)
	dir := certtest.Write(t, map[string][]byte{"all.pem": append(certtest.Encode(leaf, intermediate, root), leaf.KeyPEM(t)...), "password": []byte("secret\n")})
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
		certtest.Must(t, err)
		if got := audittest.Describe(audittest.Parts(data, "secret")); got != c.want {
			t.Errorf("%q: %s", c.options, got)
		}
	}
}

// With one wrong password in 256 the padding is right. Without a MAC, only the content then
// shows that the password is wrong.
func TestPKCS12PaddedByChance(t *testing.T) {
	key, err := x509.MarshalPKCS8PrivateKey(certtest.New(t, nil, "x").Key)
	certtest.Must(t, err)
	cipherOf := func(password string) cipher.Block {
		derived, err := pbkdf2.Key(sha256.New, password, []byte("salt"), 1, 32)
		certtest.Must(t, err)
		block, err := aes.NewCipher(derived)
		certtest.Must(t, err)
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
		kdf := dertest.Sequence(idPBKDF2, dertest.Sequence(dertest.Octets([]byte("salt")), dertest.Number(1), dertest.Sequence(idHMAC)))
		how := dertest.Sequence(idPBES2, dertest.Sequence(kdf, dertest.Sequence(idAES, dertest.Octets(iv))))
		data := dertest.PFX(dertest.Sequence(dertest.Sequence(idShrouded, dertest.Explicit(dertest.Sequence(how, dertest.Octets(text))))))
		if got := audittest.Describe(audittest.Parts(data, "secret")); got != "key" {
			t.Errorf("after %d tries: %s", n, got)
		}
		if parts := audittest.Parts(data, "secret"); len(parts) != 1 || parts[0].Key == nil {
			t.Errorf("the right password does not open the key: %+v", parts)
		}
		return
	}
}

// A key store of Java has several keys, and certificates of other services.
func TestPKCS12OfJava(t *testing.T) {
	if _, err := exec.LookPath("keytool"); err != nil || testing.Short() {
		t.Skip("no keytool to write stores with, or no time for it")
	}
	other := certtest.New(t, nil, "somebody else")
	dir := certtest.Write(t, map[string][]byte{"other.pem": certtest.Encode(other), "password": []byte("changeit\n")})
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
	r := audittest.Run(t, source.Targets{Names: []string{filepath.Join(dir, "store.p12")}, Passwords: []secret.String{secret.New("changeit")}})
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

// A certificate that crypto/x509 refuses does not hide the others. The permissions of a store
// matter only if it is not encrypted.
func TestStoreRows(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	odd := certtest.New(t, root, "odd", certtest.OddSerial)
	store := func(password string, c *x509.Certificate, key any) []byte {
		data, err := pkcs12.Modern2023.Encode(key, c, []*x509.Certificate{intermediate.Cert}, password)
		certtest.Must(t, err)
		return data
	}
	dir := certtest.Write(t, map[string][]byte{
		"ca.crt": certtest.Encode(root), "open.p12": store("", leaf.Cert, leaf.Key), "shut.pfx": store("secret", leaf.Cert, leaf.Key),
		"unknown.p12": store("what", leaf.Cert, leaf.Key), "wrong.p12": store("", leaf.Cert, odd.Key),
		"odd.p12": store("", &x509.Certificate{Raw: certtest.NegativeSerial(t, odd)}, odd.Key), "empty.p12": nil, "text.p12": []byte("no store"),
	})
	for _, name := range []string{"open.p12", "shut.pfx"} {
		certtest.Must(t, os.Chmod(filepath.Join(dir, name), 0o644))
	}
	r := audittest.Run(t, source.Targets{Names: []string{dir}, Passwords: []secret.String{secret.New("secret")}})
	got := audittest.States(t, r, dir)
	if row := got["odd.p12"]; !strings.HasPrefix(row, "ERROR parsing the certificate: x509: negative serial") {
		t.Errorf("odd.p12: %s", row)
	}
	delete(got, "odd.p12")
	audittest.Want(t, got, map[string]string{
		"ca.crt": "OK", "open.p12": "WARN key-readable", "shut.pfx": "OK", "wrong.p12": "CRIT key-mismatch", "odd.p12#2": "OK",
		"unknown.p12": "ERROR neither the empty password nor the one that was given opens it",
		"empty.p12":   "ERROR the file is empty", "text.p12": "ERROR it is neither PEM nor a certificate in DER",
	})
	if strings.Contains(fmt.Sprintf("%+v", r.Rows), "secret") {
		t.Error("a password is in the rows")
	}
}

var (
	idShrouded = dertest.OID(1, 2, 840, 113549, 1, 12, 10, 1, 2)
	idKeyBag   = dertest.OID(1, 2, 840, 113549, 1, 12, 10, 1, 1)
	idSafeBag  = dertest.OID(1, 2, 840, 113549, 1, 12, 10, 1, 6)
	idPBE3DES  = dertest.OID(1, 2, 840, 113549, 1, 12, 1, 3)
	idPBES2    = dertest.OID(1, 2, 840, 113549, 1, 5, 13)
	idPBKDF2   = dertest.OID(1, 2, 840, 113549, 1, 5, 12)
	idPBMAC1   = dertest.OID(1, 2, 840, 113549, 1, 5, 14)
	idSHA1     = dertest.OID(1, 3, 14, 3, 2, 26)
	idHMAC     = dertest.OID(1, 2, 840, 113549, 2, 9)
	idAES      = dertest.OID(2, 16, 840, 1, 101, 3, 4, 1, 42)
)

func macOf(how []byte, iterations int64) []byte {
	return dertest.Sequence(dertest.Sequence(how, dertest.Octets(make([]byte, 20))), dertest.Octets([]byte("salt")), dertest.Number(iterations))
}

func shrouded(how []byte) []byte {
	return dertest.Sequence(idShrouded, dertest.Explicit(dertest.Sequence(how, dertest.Octets(make([]byte, 64)))))
}

func pbes2(iterations int64) []byte {
	kdf := dertest.Sequence(idPBKDF2, dertest.Sequence(dertest.Octets([]byte("salt")), dertest.Number(iterations)))
	return dertest.Sequence(idPBES2, dertest.Sequence(kdf, dertest.Sequence(idAES, dertest.Octets(make([]byte, 16)))))
}

// A hostile store gives a result in bounded time.
func TestHostileStores(t *testing.T) {
	const endless = 1<<31 - 1
	tooOften := "error: a password is hashed 2147483647 times over: more than 4000000 times for one file is not done"
	pbe := func(n int64) []byte {
		return dertest.Sequence(idPBE3DES, dertest.Sequence(dertest.Octets([]byte("salt")), dertest.Number(n)))
	}
	deep := shrouded(pbes2(endless))
	for range 3 {
		deep = dertest.Sequence(idSafeBag, dertest.Explicit(dertest.Sequence(deep)))
	}
	abyss := deep
	for range 500 {
		abyss = dertest.Sequence(idSafeBag, dertest.Explicit(dertest.Sequence(abyss)))
	}
	key, err := x509.MarshalPKCS8PrivateKey(certtest.New(t, nil, "x").Key)
	certtest.Must(t, err)
	keys := bytes.Repeat(dertest.Sequence(idKeyBag, dertest.Explicit(key)), 20_000)
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"MAC":                 {dertest.PFX(nil, macOf(dertest.Sequence(idSHA1), endless)), tooOften},
		"PBMAC1":              {dertest.PFX(nil, macOf(dertest.Sequence(idPBMAC1, dertest.Sequence(dertest.Sequence(idPBKDF2, dertest.Sequence(dertest.Octets(nil), dertest.Number(endless), dertest.Number(32))), dertest.Sequence(idHMAC))), 1)), tooOften},
		"PBMAC1, length":      {dertest.PFX(nil, macOf(dertest.Sequence(idPBMAC1, dertest.Sequence(dertest.Sequence(idPBKDF2, dertest.Sequence(dertest.Octets(nil), dertest.Number(1), dertest.Number(1<<30))), dertest.Sequence(idHMAC))), 1)), "error: the PKCS #12 store is damaged"},
		"key, old":            {dertest.PFX(dertest.Sequence(shrouded(pbe(endless)))), tooOften},
		"key, new":            {dertest.PFX(dertest.Sequence(shrouded(pbes2(endless)))), tooOften},
		"key, no times":       {dertest.PFX(dertest.Sequence(shrouded(pbes2(0)))), "error: the PKCS #12 store is damaged"},
		"bag in bags":         {dertest.PFX(dertest.Sequence(deep)), tooOften},
		"bags without an end": {dertest.PFX(dertest.Sequence(abyss)), ""},
		"many derivations":    {dertest.PFX(dertest.Sequence(bytes.Repeat(shrouded(pbes2(300_000)), 50))), "something, something, something, something, something, something, error: a password is hashed 300000 times over: more than 4000000 times for one file is not done"},
		"many keys":           {dertest.PFX(dertest.Sequence(keys)), strings.Repeat("key, ", 100) + "error: it has more than 100 private keys"},
		"bad key":             {dertest.PFX(dertest.Sequence(dertest.Sequence(idKeyBag, dertest.Explicit(dertest.Sequence(dertest.Number(0)))), dertest.Sequence(idShrouded, dertest.Explicit(dertest.Number(0))), dertest.Sequence(idShrouded, dertest.Explicit(dertest.Sequence(dertest.Number(0)))))), "error: the private key is damaged or of an unsupported kind, error: the private key is damaged or of an unsupported kind, error: the private key is damaged or of an unsupported kind"},
		"indefinite":          {append(append([]byte{0x30, 0x80}, dertest.PFX(dertest.Sequence())[2:]...), 0, 0), ""},
		"no end":              {append([]byte{0x30, 0x80}, dertest.PFX(nil)[2:]...), "error: reading its BER: it is no BER"},
		"cut":                 {dertest.PFX(dertest.Sequence(keys))[:5000], "error: the PKCS #12 store is damaged"},
		"no MAC":              {dertest.PFX(nil, dertest.Sequence(dertest.Number(1))), "error: the PKCS #12 store is damaged"},
		"unknown MAC":         {dertest.PFX(nil, macOf(dertest.Sequence(dertest.IDData), 1)), "error: the algorithm 1.2.840.113549.1.7.1 is not supported"},
		"large":               {append(dertest.PFX(nil), make([]byte, 8<<20)...), "error: it is larger than 8 MiB, too much for a PKCS #12 store"},
		"nothing in it":       {dertest.PFX(dertest.Sequence()), ""},
		"no bags":             {dertest.PFX(dertest.Number(1)), "error: the empty password does not open it, and no other was given: --password-file"},
		"no certificate":      {dertest.PFX(dertest.Sequence(dertest.Sequence(dertest.OID(1, 2, 840, 113549, 1, 12, 10, 1, 3), dertest.Explicit(dertest.Number(1))))), "error: it is neither PEM nor a certificate in DER"},
	} {
		audittest.Within(t, name, func() {
			got := audittest.Describe(audittest.Parts(c.data))
			if got != c.want && (c.want == "" || !strings.HasPrefix(got, c.want)) {
				t.Errorf("%s: %.300s\nwant %.300s", name, got, c.want)
			}
		})
	}
	// The work of all passwords is on one account.
	sealed := dertest.PFX(dertest.Sequence(), macOf(dertest.Sequence(idSHA1), 900_000))
	audittest.Within(t, "many passwords", func() {
		if got := audittest.Describe(audittest.Parts(sealed, strings.Split("a b c d e f g h", " ")...)); !strings.HasPrefix(got, "error: a password is hashed 900000 times over") {
			t.Error(got)
		}
	})
}

// Contract: any input gives parts or none, in bounded time. Each part has a certificate, a key
// or an error, unless it is an encrypted key.
func FuzzPKCS12(f *testing.F) {
	_, intermediate, leaf := certtest.Hierarchy(f)
	for _, encoder := range []*pkcs12.Encoder{pkcs12.LegacyRC2, pkcs12.LegacyDES, pkcs12.Modern2023, pkcs12.Modern2026, pkcs12.Passwordless} {
		data, err := encoder.WithIterations(1).Encode(leaf.Key, leaf.Cert, []*x509.Certificate{intermediate.Cert}, "")
		certtest.Must(f, err)
		f.Add(data)
	}
	f.Add(dertest.PFX(dertest.Sequence(shrouded(pbes2(1))), macOf(dertest.Sequence(idSHA1), 1)))
	f.Add(dertest.PFX(dertest.Sequence(dertest.Sequence(idSafeBag, dertest.Explicit(dertest.Sequence(shrouded(pbes2(1))))))))
	f.Fuzz(func(t *testing.T, data []byte) {
		if format.Sniff(data) != "PKCS #12" {
			return
		}
		for _, p := range audittest.Parts(data, "secret") {
			if p.Twofold || p.Doc || p.Place != "" {
				t.Errorf("%+v", p)
			}
		}
	})
}
