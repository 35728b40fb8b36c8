package audit_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/source"
)

// versionOne returns a list without version and extensions, as openssl ca -gencrl without
// a section of extensions writes it. Its signature is not genuine.
func versionOne(t testing.TB, from, to time.Time) []byte {
	t.Helper()
	type algorithm struct{ ID asn1.ObjectIdentifier }
	type list struct {
		Signature algorithm
		Issuer    asn1.RawValue
		From, To  time.Time
	}
	one := list{algorithm{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}, asn1.RawValue{FullBytes: []byte{0x30, 0}}, from.UTC(), to.UTC()}
	der, err := asn1.Marshal(struct {
		TBS       list
		Algorithm algorithm
		Signature asn1.BitString
	}{one, one.Signature, asn1.BitString{Bytes: make([]byte, 72), BitLength: 576}})
	certtest.Must(t, err)
	return der
}

// A list that is found is a row with its dates, in each form of file.
func TestListsThatAreFound(t *testing.T) {
	const hour = time.Hour
	root, other := certtest.New(t, nil, "Test Root", mayRevoke), certtest.New(t, nil, "Other Root", mayRevoke)
	impostor := certtest.New(t, nil, "Test Root", mayRevoke)
	list := func(by *certtest.Pair, from, to time.Duration) []byte {
		return certtest.Block("X509 CRL", audittest.CRL(t, by, from, to))
	}
	fresh := list(root, -hour, 9*hour)
	now := time.Now()
	dir := certtest.Write(t, map[string][]byte{
		"sub/authority.crt": certtest.Encode(root),
		"a.crl":             fresh, "der.crl": audittest.CRL(t, root, -hour, 9*hour), "no-ending": fresh, "binary": audittest.CRL(t, root, -9*hour, -hour),
		"stale.crl": list(root, -9*hour, -hour), "late.crl": list(root, -7*hour, 3*hour), "early.crl": list(root, hour, 9*hour),
		"foreign.crl": list(other, -hour, 9*hour), "forged.crl": list(impostor, -hour, 9*hour),
		"three.crl": append(append(bytes.Clone(fresh), list(root, -9*hour, -hour)...), list(other, -hour, 9*hour)...),
		"v1.crl":    certtest.Block("X509 CRL", versionOne(t, now.Add(-hour), now.Add(hour))), "v1old.crl": versionOne(t, now.Add(-2*hour), now.Add(-hour)),
		"cut.crl": fresh[:len(fresh)/2], "garbled.crl": certtest.Block("X509 CRL", []byte("no DER")), "endless.crl": certtest.Block("X509 CRL", versionOne(t, now, now)[:20]),
		"secret.yaml": []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata:\n  ca.crl: " +
			base64.StdEncoding.EncodeToString(list(root, -9*hour, -hour)) + "\n  bin.crl: " + base64.StdEncoding.EncodeToString(audittest.CRL(t, root, -9*hour, -hour)) + "\n"),
	})
	r := audittest.Run(t, audittest.Paths(dir))
	got := map[string]string{}
	for place, state := range audittest.States(t, r, dir) {
		got[place], _, _ = strings.Cut(state, " parsing the")
	}
	audittest.Want(t, got, map[string]string{
		"sub/authority.crt": "OK", "a.crl": "OK", "der.crl": "OK", "no-ending": "OK", "binary": "EXPIRED crl-expired",
		"stale.crl": "EXPIRED crl-expired", "late.crl": "WARN crl-expiring", "early.crl": "NOT-YET not-yet-valid",
		"foreign.crl": "OK crl-no-issuer", "forged.crl": "CRIT bad-signature",
		"three.crl": "OK", "three.crl#2": "EXPIRED crl-expired", "three.crl#3": "OK crl-no-issuer",
		"v1.crl": "ERROR", "v1old.crl": "EXPIRED crl-expired", "cut.crl": "ERROR block 1 is damaged or cut off", "garbled.crl": "ERROR", "endless.crl": "ERROR",
		"secret.yaml#s:ca.crl": "EXPIRED crl-expired", "secret.yaml#s:bin.crl": "EXPIRED crl-expired",
	})
	for _, format := range []string{"table", "csv", "json", "prom"} {
		var b bytes.Buffer
		certtest.Must(t, r.Render(format, &b, 0))
		end := time.Now().Add(9 * hour)
		marks := map[string]string{
			"table": "-1h", "csv": end.UTC().Format("2006-01-02T15"), "json": `"valid_until":"` + end.UTC().Format("2006-01-02T15"),
			"prom": fmt.Sprintf(`crl_next_update_timestamp_seconds{place="%s",block="0",name="of Test Root"} `, filepath.Join(dir, "a.crl")),
		}
		if !strings.Contains(b.String(), marks[format]) {
			t.Errorf("%s: no %q in\n%s", format, marks[format], b.String())
		}
	}
	// Each is a row when it is named, too.
	for _, name := range []string{"stale.crl", "binary"} {
		r := audittest.Run(t, source.Targets{Names: []string{filepath.Join(dir, name)}, Bundle: certtest.Bundle([]*certtest.Pair{root})})
		audittest.Want(t, audittest.States(t, r, dir), map[string]string{name: "EXPIRED crl-expired"})
	}
}

// Certificates are compared with the lists in their directory and above it, if a known
// issuer has signed these. They are compared with the lists of Config.Lists in any case.
func TestRevokedByFoundLists(t *testing.T) {
	root, impostor := certtest.New(t, nil, "Test Root", mayRevoke), certtest.New(t, nil, "Test Root", mayRevoke)
	bad, good := certtest.New(t, root, "bad"), certtest.New(t, root, "good")
	list := audittest.CRL(t, root, -time.Hour, 9*time.Hour, bad)
	inPEM := certtest.Block("X509 CRL", list)
	forged := certtest.Block("X509 CRL", audittest.CRL(t, impostor, -time.Hour, 9*time.Hour, bad))
	name := sha256.Sum256(root.Cert.RawSubject)
	hash := fmt.Sprintf("%x.r0", name[:4])
	for _, c := range []struct {
		name  string
		files map[string][]byte
		want  string // of a.crt and below/b.crt
	}{
		{"beside", map[string][]byte{"z.crl": inPEM}, "REVOKED revoked"},
		{"in DER", map[string][]byte{"crl.der": list}, "REVOKED revoked"},
		{"of c_rehash", map[string][]byte{hash: inPEM}, "REVOKED revoked"},
		{"forged", map[string][]byte{"z.crl": forged}, "OK"},
		{"elsewhere", map[string][]byte{"other/z.crl": inPEM}, "OK"},
	} {
		files := map[string][]byte{"ca.crt": certtest.Encode(root), "a.crt": certtest.Encode(bad), "below/b.crt": certtest.Encode(bad), "good.crt": certtest.Encode(good)}
		for name, data := range c.files {
			files[name] = data
		}
		dir := certtest.Write(t, files)
		got := audittest.States(t, audittest.Run(t, audittest.Paths(dir)), dir)
		if got["a.crt"] != c.want || got["below/b.crt"] != c.want || got["good.crt"] != "OK" {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	// In one file, and in one object.
	both := base64.StdEncoding.EncodeToString
	dir := certtest.Write(t, map[string][]byte{
		"ca.crt": certtest.Encode(root), "all.pem": append(certtest.Encode(bad), inPEM...),
		"s.yaml": []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata:\n  tls.crt: " + both(certtest.Encode(bad)) + "\n  ca.crl: " + both(inPEM) + "\n"),
	})
	audittest.Want(t, audittest.States(t, audittest.Run(t, audittest.Paths(dir)), dir), map[string]string{
		"ca.crt": "OK", "all.pem": "REVOKED revoked", "all.pem#2": "OK", "s.yaml#s:tls.crt": "REVOKED revoked", "s.yaml#s:ca.crl": "OK",
	})
	// A list that is given and found has one row.
	dir = certtest.Write(t, map[string][]byte{"ca.crt": certtest.Encode(root), "a.crt": certtest.Encode(bad), "z.crl": inPEM})
	given, err := x509.ParseRevocationList(list)
	certtest.Must(t, err)
	r, err := audittest.Judge(t.Context(), audit.Config{Sources: []audit.Source{audittest.Paths(dir)}, Lists: map[string]*x509.RevocationList{filepath.Join(dir, "z.crl"): given}})
	certtest.Must(t, err)
	if len(r.Rows) != 3 {
		t.Errorf("%v", audittest.States(t, r, dir))
	}
}

// An entry for the certificate of another issuer, and the entries behind it, revoke no
// certificate of the issuer of the list.
func TestIndirectList(t *testing.T) {
	root := certtest.New(t, nil, "Test Root", mayRevoke)
	one, two := certtest.New(t, root, "one"), certtest.New(t, root, "two")
	l, err := x509.ParseRevocationList(audittest.CRL(t, root, -time.Hour, time.Hour, one, two))
	certtest.Must(t, err)
	l.RevokedCertificateEntries[1].Extensions = append(l.RevokedCertificateEntries[1].Extensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 29}})
	dir := certtest.Write(t, map[string][]byte{"ca.crt": certtest.Encode(root), "1.crt": certtest.Encode(one), "2.crt": certtest.Encode(two)})
	r, err := audittest.Judge(t.Context(), audit.Config{Sources: []audit.Source{audittest.Paths(dir)}, Lists: map[string]*x509.RevocationList{"l": l}})
	certtest.Must(t, err)
	got := audittest.States(t, r, dir)
	if got["1.crt"] != "REVOKED revoked" || got["2.crt"] != "OK" {
		t.Error(got)
	}
}

// A list beside certificates should be of their issuer or of an authority above it. If
// lists are given, each leaf should have one of its issuer.
func TestListsThatCover(t *testing.T) {
	root, other := certtest.New(t, nil, "Test Root", mayRevoke), certtest.New(t, nil, "Other Root", mayRevoke)
	mid := certtest.New(t, root, "Test Intermediate", mayRevoke)
	leaf, foreign := certtest.New(t, mid, "leaf"), certtest.New(t, other, "foreign")
	list := func(by *certtest.Pair) []byte {
		return certtest.Block("X509 CRL", audittest.CRL(t, by, -time.Hour, 9*time.Hour))
	}
	files := map[string][]byte{"ca.crt": certtest.Encode(root, other), "leaf.crt": certtest.Encode(leaf, mid)}
	unused := "WARN crl-unused"
	for _, c := range []struct {
		name  string
		files map[string][]byte
		want  map[string]string // of lists
	}{
		{"of the issuer", map[string][]byte{"m.crl": list(mid)}, map[string]string{"m.crl": "OK"}},
		{"and of the root", map[string][]byte{"m.crl": list(mid), "r.crl": list(root)}, map[string]string{"m.crl": "OK", "r.crl": "OK"}},
		{"of the root alone", map[string][]byte{"r.crl": list(root)}, map[string]string{"r.crl": unused}},
		{"of somebody else", map[string][]byte{"o.crl": list(other)}, map[string]string{"o.crl": unused}},
		{"of all", map[string][]byte{"all.crl": append(list(mid), list(other)...)}, map[string]string{"all.crl": "OK", "all.crl#2": "OK"}},
		{"of somebody else, who has a leaf below", map[string][]byte{"o.crl": list(other), "below/f.crt": certtest.Encode(foreign)}, map[string]string{"o.crl": "OK"}},
		{"of somebody else, who has a leaf elsewhere", map[string][]byte{"a/f.crt": certtest.Encode(leaf, mid), "a/o.crl": list(other), "b/f.crt": certtest.Encode(foreign)}, map[string]string{"a/o.crl": unused}},
		{"beside no leaf", map[string][]byte{"a/o.crl": list(other)}, map[string]string{"a/o.crl": "OK"}},
	} {
		all := maps.Clone(files)
		maps.Copy(all, c.files)
		dir := certtest.Write(t, all)
		got := audittest.States(t, audittest.Run(t, audittest.Paths(dir)), dir)
		maps.DeleteFunc(got, func(place, _ string) bool { return !strings.Contains(place, ".crl") })
		if !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	given, err := x509.ParseRevocationList(audittest.CRL(t, mid, -time.Hour, 9*time.Hour))
	certtest.Must(t, err)
	files["foreign.crt"], files["beside/foreign.crt"], files["beside/o.crl"] = certtest.Encode(foreign), certtest.Encode(foreign), list(other)
	dir := certtest.Write(t, files)
	r, err := audittest.Judge(t.Context(), audit.Config{Sources: []audit.Source{audittest.Paths(dir)}, Lists: map[string]*x509.RevocationList{"given": given}})
	certtest.Must(t, err)
	got := audittest.States(t, r, dir)
	maps.DeleteFunc(got, func(_, state string) bool { return state == "OK" })
	audittest.Want(t, got, map[string]string{"foreign.crt": "WARN crl-missing"})
}

// The trust bundle may have the issuer of a list that was given.
func TestIssuersOfListsInBundle(t *testing.T) {
	root, impostor := certtest.New(t, nil, "Test Root", mayRevoke), certtest.New(t, nil, "Test Root", mayRevoke)
	mayNot := certtest.New(t, nil, "Test Root", certtest.Authority)
	for _, c := range []struct {
		name     string
		root, by *certtest.Pair
		want     string
	}{
		{"genuine", root, root, "OK"}, {"forged", root, impostor, "CRIT bad-signature"}, {"by one that may not", mayNot, mayNot, "CRIT wrong-usage"},
	} {
		list, err := x509.ParseRevocationList(audittest.CRL(t, c.by, -time.Hour, 9*time.Hour))
		certtest.Must(t, err)
		dir := certtest.Write(t, map[string][]byte{"tls.crt": certtest.Encode(certtest.New(t, c.root, "svc"))})
		r, err := audittest.Judge(t.Context(), audit.Config{
			Sources: []audit.Source{source.Targets{Names: []string{dir}, Bundle: certtest.Bundle([]*certtest.Pair{c.root})}}, Lists: map[string]*x509.RevocationList{"l": list},
		})
		certtest.Must(t, err)
		if got := audittest.States(t, r, dir)["l"]; got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
