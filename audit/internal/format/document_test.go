package format_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/source"
)

func request(t testing.TB, key crypto.Signer, tpl *x509.CertificateRequest) []byte {
	t.Helper()
	data, err := x509.CreateCertificateRequest(rand.Reader, tpl, key)
	certtest.Must(t, err)
	return data
}

// revocations returns a list of two serial numbers, signed by p.
func revocations(t testing.TB, p *certtest.Pair, from, until time.Time) []byte {
	t.Helper()
	issuer := *p.Cert
	issuer.KeyUsage |= x509.KeyUsageCRLSign // CreateRevocationList insists, others do not
	data, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(7), ThisUpdate: from, NextUpdate: until,
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(1), RevocationTime: from}, {SerialNumber: big.NewInt(2), RevocationTime: from}},
	}, &issuer, p.Key)
	certtest.Must(t, err)
	return data
}

// signs lets an authority sign revocation lists.
func signs(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }

func explained(t *testing.T, targets source.Targets) (text string, r *audittest.Report) {
	t.Helper()
	targets.Documents = true
	r = audittest.Run(t, targets)
	var b bytes.Buffer
	certtest.Must(t, r.Explain(&b))
	return b.String(), r
}

// one returns the explanation of one file.
func one(t *testing.T, data []byte) (text, state string) {
	t.Helper()
	dir := certtest.Write(t, map[string][]byte{"file": data})
	text, r := explained(t, source.Targets{Names: []string{filepath.Join(dir, "file")}})
	if len(r.Rows) != 1 {
		t.Fatalf("%d rows", len(r.Rows))
	}
	state = r.Rows[0].State
	for _, f := range r.Rows[0].Findings {
		state += " " + f.Check
	}
	if err := r.Rows[0].Err; err != nil {
		state += " " + err.Error()
	}
	return text, state
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in\n%s", part, text)
		}
	}
}

func TestRequest(t *testing.T) {
	key := certtest.New(t, nil, "x").Key
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	certtest.Must(t, err)
	curve, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	certtest.Must(t, err)
	good := request(t, key, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "svc"}, DNSNames: []string{"svc", "localhost"}, IPAddresses: []net.IP{{127, 0, 0, 1}}})
	text, state := one(t, certtest.Block("CERTIFICATE REQUEST", good))
	contains(t, text, "  kind         certificate request\n  name         svc\n  names        svc, localhost, 127.0.0.1\n  key          ECDSA P-256\n  signature    ECDSA-SHA256\n  findings     none\n")
	if state != "OK" {
		t.Error(state)
	}
	broken := bytes.Clone(good)
	broken[bytes.Index(broken, []byte("localhost"))] ^= 1
	isCA := pkix.Extension{Id: []int{2, 5, 29, 19}, Value: []byte{0x30, 3, 1, 1, 0xff}}
	for name, c := range map[string]struct {
		data  []byte
		state string
	}{
		"DER":      {good, "OK"},
		"old name": {certtest.Block("NEW CERTIFICATE REQUEST", good), "OK"},
		"broken":   {broken, "CRIT bad-signature"},
		"weak":     {request(t, weak, &x509.CertificateRequest{DNSNames: []string{"a"}}), "CRIT weak-key"},
		"curve":    {request(t, curve, &x509.CertificateRequest{DNSNames: []string{"a"}}), "CRIT weak-key"},
		"nameless": {request(t, key, &x509.CertificateRequest{}), "WARN no-san"},
		"CA":       {request(t, key, &x509.CertificateRequest{DNSNames: []string{"a"}, ExtraExtensions: []pkix.Extension{isCA}}), "OK"},
		"cut":      {certtest.Block("CERTIFICATE REQUEST", good[:50]), "ERROR parsing the certificate request: x509: malformed certificate request"},
	} {
		text, state := one(t, c.data)
		if state != c.state && (name != "cut" || !strings.HasPrefix(state, "ERROR parsing the certificate request: ")) {
			t.Errorf("%s: %s, want %s", name, state, c.state)
		}
		if asks := strings.Contains(text, "asks for     the certificate of an authority"); asks != (name == "CA") {
			t.Errorf("%s: %s", name, text)
		}
	}
	// An audit says nothing of them.
	dir := certtest.Write(t, map[string][]byte{"a.csr": certtest.Block("CERTIFICATE REQUEST", good), "t": audittest.JWT(`{}`, `{}`, ""), "x.crt": certtest.Encode(certtest.New(t, certtest.New(t, nil, "Test Root", certtest.Authority), "x"))})
	audittest.Want(t, audittest.States(t, audittest.Run(t, audittest.Paths(dir)), dir), map[string]string{"x.crt": "OK"})
}

func TestRevocationList(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", certtest.Authority, signs)
	impostor := certtest.New(t, nil, "Test Root", certtest.Authority, signs)
	mute := certtest.New(t, nil, "Mute Root", certtest.Authority)
	now := time.Now().Truncate(time.Second)
	list := func(p *certtest.Pair, from, until time.Time) []byte {
		return certtest.Block("X509 CRL", revocations(t, p, from, until))
	}
	fresh := list(root, now.Add(-time.Hour), now.Add(48*time.Hour))
	dir := certtest.Write(t, map[string][]byte{
		"ca.crt": certtest.Encode(root), "fresh.crl": fresh, "stale.crl": list(root, now.Add(-48*time.Hour), now.Add(-24*time.Hour)),
		"early.crl": list(root, now.Add(time.Hour), now.Add(48*time.Hour)), "forged.crl": list(impostor, now.Add(-time.Hour), now.Add(48*time.Hour)),
		"foreign.crl": list(certtest.New(t, nil, "Other", certtest.Authority, signs), now.Add(-time.Hour), now.Add(48*time.Hour)),
		"both.crl":    append(list(mute, now.Add(-time.Hour), now.Add(48*time.Hour)), certtest.Encode(mute)...),
		"cut.crl":     certtest.Block("X509 CRL", []byte("0")),
	})
	text, r := explained(t, source.Targets{Names: []string{dir}})
	got := audittest.States(t, r, dir)
	if !strings.HasPrefix(got["cut.crl"], "ERROR parsing the revocation list: ") {
		t.Error(got["cut.crl"])
	}
	delete(got, "cut.crl")
	audittest.Want(t, got, map[string]string{
		"ca.crt": "OK", "fresh.crl": "OK", "stale.crl": "EXPIRED crl-expired", "early.crl": "NOT-YET not-yet-valid", "forged.crl": "CRIT bad-signature",
		"foreign.crl": "OK crl-no-issuer", "both.crl": "CRIT wrong-usage", "both.crl#2": "OK",
	})
	contains(t, text, "  kind         revocation list\n  name         of Test Root\n  valid        from ", ", over for 1d\n", " left\n",
		"  revoked      2 certificates\n  number       7\n", "  issuer       Test Root, whose signature is genuine\n",
		"  issuer       not here, so that the signature was not judged\n", "  finding      crl-expired: out of date for 1d; ")
	if _, state := one(t, revocations(t, root, now, now.Add(time.Hour))); state != "OK crl-no-issuer" {
		t.Error("in DER: ", state)
	}
	audittest.Within(t, "a large one", func() {
		if _, state := one(t, certtest.Block("X509 CRL", make([]byte, 3<<20))); state != "ERROR the revocation list is larger than 2 MiB" {
			t.Error(state)
		}
	})
	var b bytes.Buffer
	certtest.Must(t, r.WriteJSON(&b))
	var all struct {
		Rows []struct {
			What       string
			Name       string    `json:"document_name"`
			ValidUntil time.Time `json:"valid_until"`
			Details    map[string]string
		}
	}
	certtest.Must(t, json.Unmarshal(b.Bytes(), &all))
	found := false
	for _, row := range all.Rows {
		found = found || row.What == "revocation list" && row.Name == "of Test Root" && row.ValidUntil.Equal(now.Add(48*time.Hour)) && row.Details["revoked"] == "2 certificates"
	}
	if !found {
		t.Error(b.String())
	}
}

func TestToken(t *testing.T) {
	const secretPart = "this is the signature"
	now := time.Now().Unix()
	times := func(nbf, exp int64) string {
		b, _ := json.Marshal(map[string]any{"nbf": now + nbf, "iat": now, "exp": now + exp, "sub": "svc", "sans": []string{"svc", "localhost"},
			"aud": "https://ca/sign", "iss": "enrol", "sha": "abc", "jti": "hidden id", "evil\x1b[2J": 1})
		return string(b)
	}
	token := audittest.JWT(`{"alg":"ES256","typ":"JWT","kid":"k"}`, times(-60, 300), secretPart)
	text, state := one(t, token)
	if state != "OK" {
		t.Error(state)
	}
	contains(t, text, "  kind         token\n  name         svc\n  valid        from ", "  names        svc, localhost\n  issuer       enrol\n  audience     https://ca/sign\n",
		"  root         abc\n  signature    ES256, not judged\n  also has     evil\\u001b[2J, jti\n")
	for _, part := range append(strings.Split(strings.TrimSpace(string(token)), "."), secretPart, "hidden id", "\x1b") {
		if strings.Contains(text, part) {
			t.Errorf("%q is shown in\n%s", part, text)
		}
	}
	for name, c := range map[string]struct {
		data  []byte
		state string
	}{
		"over":       {audittest.JWT(`{"alg":"ES256"}`, times(-600, -300), "s"), "EXPIRED expired"},
		"early":      {audittest.JWT(`{"alg":"ES256"}`, times(60, 300), "s"), "NOT-YET not-yet-valid"},
		"unsigned":   {audittest.JWT(`{"alg":"none"}`, times(-60, 300), ""), "CRIT bad-signature"},
		"no claims":  {audittest.JWT(`{"alg":"HS256"}`, `{"aud":["a","b"],"exp":17e8}`, "s"), "EXPIRED expired"},
		"endless":    {audittest.JWT(`{"alg":"HS256"}`, `{"a":1}`, "s"), "OK"},
		"no end":     {audittest.JWT(`{"alg":"HS256"}`, `{"nbf":1}`, "s"), "OK"},
		"bad date":   {audittest.JWT(`{"alg":"HS256"}`, `{"exp":1e300}`, "s"), "ERROR the token is damaged"},
		"bad claims": {audittest.JWT(`{"alg":"HS256"}`, `{"sub":7}`, "s"), "ERROR the token is damaged"},
		"bad list":   {audittest.JWT(`{"alg":"HS256"}`, `{"aud":7}`, "s"), "ERROR the token is damaged"},
		"bad JSON":   {[]byte("eyJh.eyJh.x"), "ERROR the token is damaged"},
		"four parts": {append(bytes.TrimSpace(audittest.JWT(`{"alg":"x"}`, `{"a":1}`, "s")), ".x"...), "ERROR the token is damaged"},
		"not Base64": {append(bytes.TrimSpace(audittest.JWT(`{"alg":"x"}`, `{"a":1}`, "s"))[:20], "!.eyJh.x"...), "ERROR the token is damaged"},
		"large":      {audittest.JWT(`{"alg":"x"}`, `{"a":"`+strings.Repeat("x", 70<<10)+`"}`, "s"), "ERROR the token is damaged"},
		"large tail": {audittest.JWT(`{"alg":"x"}`, `{"a":1}`, strings.Repeat("x", 70<<10)), "ERROR the token is damaged"},
	} {
		if _, state := one(t, c.data); state != c.state {
			t.Errorf("%s: %s, want %s", name, state, c.state)
		}
	}
	dir := certtest.Write(t, map[string][]byte{"token": token})
	certtest.Must(t, os.Chmod(filepath.Join(dir, "token"), 0o600))
	r := audittest.Run(t, audittest.Paths(filepath.Join(dir, "token")))
	if got := audittest.States(t, r, dir)["token"]; got != "ERROR there is no certificate in it" {
		t.Errorf("an audit: %s", got)
	}
}

// Contract: any input is an error or a document, and both only for a damaged list whose dates
// can be read.
func fuzzDocument(f *testing.F, block string) {
	f.Fuzz(func(t *testing.T, data []byte) {
		if block != "" {
			data = certtest.Block(block, data)
		}
		for _, p := range audittest.Parts(data) {
			if p.Twofold {
				t.Errorf("%+v", p)
			}
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add(request(f, certtest.New(f, nil, "x").Key, &x509.CertificateRequest{DNSNames: []string{"a"}}))
	fuzzDocument(f, "CERTIFICATE REQUEST")
}

func FuzzRevocationList(f *testing.F) {
	until := time.Now().Add(time.Hour).UTC()
	list := revocations(f, certtest.New(f, nil, "x", certtest.Authority, signs), time.Now(), until)
	f.Add(list)
	f.Add(bytes.Replace(list, []byte(until.Format("060102150405Z")), []byte("991399999999Z"), 1)) // there is no such month
	fuzzDocument(f, "X509 CRL")
}

func FuzzToken(f *testing.F) {
	f.Add(audittest.JWT(`{"alg":"ES256"}`, `{"sub":"a","exp":1,"aud":["b"]}`, "s"))
	f.Add([]byte("eyJh.eyJh."))
	fuzzDocument(f, "")
}
