package audit_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"maps"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/source"
)

// crlOf is a list in DER: of an issuer, from and to some time from now, with these certificates.
func crlOf(t testing.TB, by *pair, from, to time.Duration, revoked ...*pair) []byte {
	t.Helper()
	issuer := *by.cert
	issuer.KeyUsage |= x509.KeyUsageCRLSign
	tpl := &x509.RevocationList{Number: big.NewInt(7), ThisUpdate: time.Now().Add(from), NextUpdate: time.Now().Add(to)}
	for _, p := range revoked {
		tpl.RevokedCertificateEntries = append(tpl.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: p.cert.SerialNumber, RevocationTime: time.Now().Add(-time.Hour)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, tpl, &issuer, by.key)
	must(t, err)
	return der
}

// versionOne drops the version and the extensions, as openssl ca -gencrl without
// a section of extensions does; nobody looks at its signature here.
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
	must(t, err)
	return der
}

// A list that is found is a row with its dates, whatever it lies in.
func TestListsThatAreFound(t *testing.T) {
	const hour = time.Hour
	root, other := newPair(t, nil, "Test Root", mayRevoke), newPair(t, nil, "Other Root", mayRevoke)
	impostor := newPair(t, nil, "Test Root", mayRevoke)
	list := func(by *pair, from, to time.Duration) []byte { return pemBlock("X509 CRL", crlOf(t, by, from, to)) }
	fresh := list(root, -hour, 9*hour)
	now := time.Now()
	dir := write(t, map[string][]byte{
		"sub/authority.crt": encode(root),
		"a.crl":             fresh, "der.crl": crlOf(t, root, -hour, 9*hour), "no-ending": fresh, "binary": crlOf(t, root, -9*hour, -hour),
		"stale.crl": list(root, -9*hour, -hour), "late.crl": list(root, -7*hour, 3*hour), "early.crl": list(root, hour, 9*hour),
		"foreign.crl": list(other, -hour, 9*hour), "forged.crl": list(impostor, -hour, 9*hour),
		"three.crl": append(append(bytes.Clone(fresh), list(root, -9*hour, -hour)...), list(other, -hour, 9*hour)...),
		"v1.crl":    pemBlock("X509 CRL", versionOne(t, now.Add(-hour), now.Add(hour))), "v1old.crl": versionOne(t, now.Add(-2*hour), now.Add(-hour)),
		"cut.crl": fresh[:len(fresh)/2], "garbled.crl": pemBlock("X509 CRL", []byte("no DER")), "endless.crl": pemBlock("X509 CRL", versionOne(t, now, now)[:20]),
		"secret.yaml": []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata:\n  ca.crl: " +
			base64.StdEncoding.EncodeToString(list(root, -9*hour, -hour)) + "\n  bin.crl: " + base64.StdEncoding.EncodeToString(crlOf(t, root, -9*hour, -hour)) + "\n"),
	})
	r := run(t, paths(dir))
	got := map[string]string{}
	for place, state := range states(t, r, dir) {
		got[place], _, _ = strings.Cut(state, " parsing the")
	}
	want(t, got, map[string]string{
		"sub/authority.crt": "OK", "a.crl": "OK", "der.crl": "OK", "no-ending": "OK", "binary": "EXPIRED crl-expired",
		"stale.crl": "EXPIRED crl-expired", "late.crl": "WARN crl-expiring", "early.crl": "NOT-YET not-yet-valid",
		"foreign.crl": "OK crl-no-issuer", "forged.crl": "CRIT bad-signature",
		"three.crl": "OK", "three.crl#2": "EXPIRED crl-expired", "three.crl#3": "OK crl-no-issuer",
		"v1.crl": "ERROR", "v1old.crl": "EXPIRED crl-expired", "cut.crl": "ERROR block 1 is damaged or cut off", "garbled.crl": "ERROR", "endless.crl": "ERROR",
		"secret.yaml#s:ca.crl": "EXPIRED crl-expired", "secret.yaml#s:bin.crl": "EXPIRED crl-expired",
	})
	for _, format := range []string{"table", "csv", "json", "prom"} {
		var b bytes.Buffer
		must(t, r.render(format, &b, 0))
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
		r := run(t, source.Targets{Names: []string{filepath.Join(dir, name)}, Bundle: bundleOf([]*pair{root})})
		want(t, states(t, r, dir), map[string]string{name: "EXPIRED crl-expired"})
	}
}

// Certificates are compared with the lists beside them and above them, if an issuer at
// hand has signed those; with those of Config.Lists in any case.
func TestRevokedByFoundLists(t *testing.T) {
	root, impostor := newPair(t, nil, "Test Root", mayRevoke), newPair(t, nil, "Test Root", mayRevoke)
	bad, good := newPair(t, root, "bad"), newPair(t, root, "good")
	list := crlOf(t, root, -time.Hour, 9*time.Hour, bad)
	inPEM := pemBlock("X509 CRL", list)
	forged := pemBlock("X509 CRL", crlOf(t, impostor, -time.Hour, 9*time.Hour, bad))
	name := sha256.Sum256(root.cert.RawSubject)
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
		files := map[string][]byte{"ca.crt": encode(root), "a.crt": encode(bad), "below/b.crt": encode(bad), "good.crt": encode(good)}
		for name, data := range c.files {
			files[name] = data
		}
		dir := write(t, files)
		got := states(t, run(t, paths(dir)), dir)
		if got["a.crt"] != c.want || got["below/b.crt"] != c.want || got["good.crt"] != "OK" {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	// In one file, and in one object.
	both := base64.StdEncoding.EncodeToString
	dir := write(t, map[string][]byte{
		"ca.crt": encode(root), "all.pem": append(encode(bad), inPEM...),
		"s.yaml": []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata:\n  tls.crt: " + both(encode(bad)) + "\n  ca.crl: " + both(inPEM) + "\n"),
	})
	want(t, states(t, run(t, paths(dir)), dir), map[string]string{
		"ca.crt": "OK", "all.pem": "REVOKED revoked", "all.pem#2": "OK", "s.yaml#s:tls.crt": "REVOKED revoked", "s.yaml#s:ca.crl": "OK",
	})
	// A list that is given and found has one row.
	dir = write(t, map[string][]byte{"ca.crt": encode(root), "a.crt": encode(bad), "z.crl": inPEM})
	given, err := x509.ParseRevocationList(list)
	must(t, err)
	r, err := judged(t.Context(), audit.Config{Sources: []audit.Source{paths(dir)}, Lists: map[string]*x509.RevocationList{filepath.Join(dir, "z.crl"): given}})
	must(t, err)
	if len(r.Rows) != 3 {
		t.Errorf("%v", states(t, r, dir))
	}
}

// An entry of another issuer's certificate, and those behind it, revoke nothing of this one's.
func TestIndirectList(t *testing.T) {
	root := newPair(t, nil, "Test Root", mayRevoke)
	one, two := newPair(t, root, "one"), newPair(t, root, "two")
	l, err := x509.ParseRevocationList(crlOf(t, root, -time.Hour, time.Hour, one, two))
	must(t, err)
	l.RevokedCertificateEntries[1].Extensions = append(l.RevokedCertificateEntries[1].Extensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 29}})
	dir := write(t, map[string][]byte{"ca.crt": encode(root), "1.crt": encode(one), "2.crt": encode(two)})
	r, err := judged(t.Context(), audit.Config{Sources: []audit.Source{paths(dir)}, Lists: map[string]*x509.RevocationList{"l": l}})
	must(t, err)
	got := states(t, r, dir)
	if got["1.crt"] != "REVOKED revoked" || got["2.crt"] != "OK" {
		t.Error(got)
	}
}

// A list beside certificates is of their issuer, or of one above that; where lists are
// given, each leaf is on the account of one.
func TestListsThatCover(t *testing.T) {
	root, other := newPair(t, nil, "Test Root", mayRevoke), newPair(t, nil, "Other Root", mayRevoke)
	mid := newPair(t, root, "Test Intermediate", mayRevoke)
	leaf, foreign := newPair(t, mid, "leaf"), newPair(t, other, "foreign")
	list := func(by *pair) []byte { return pemBlock("X509 CRL", crlOf(t, by, -time.Hour, 9*time.Hour)) }
	files := map[string][]byte{"ca.crt": encode(root, other), "leaf.crt": encode(leaf, mid)}
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
		{"of somebody else, who has a leaf below", map[string][]byte{"o.crl": list(other), "below/f.crt": encode(foreign)}, map[string]string{"o.crl": "OK"}},
		{"of somebody else, who has a leaf elsewhere", map[string][]byte{"a/f.crt": encode(leaf, mid), "a/o.crl": list(other), "b/f.crt": encode(foreign)}, map[string]string{"a/o.crl": unused}},
		{"beside no leaf", map[string][]byte{"a/o.crl": list(other)}, map[string]string{"a/o.crl": "OK"}},
	} {
		all := maps.Clone(files)
		maps.Copy(all, c.files)
		dir := write(t, all)
		got := states(t, run(t, paths(dir)), dir)
		maps.DeleteFunc(got, func(place, _ string) bool { return !strings.Contains(place, ".crl") })
		if !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	given, err := x509.ParseRevocationList(crlOf(t, mid, -time.Hour, 9*time.Hour))
	must(t, err)
	files["foreign.crt"], files["beside/foreign.crt"], files["beside/o.crl"] = encode(foreign), encode(foreign), list(other)
	dir := write(t, files)
	r, err := judged(t.Context(), audit.Config{Sources: []audit.Source{paths(dir)}, Lists: map[string]*x509.RevocationList{"given": given}})
	must(t, err)
	got := states(t, r, dir)
	maps.DeleteFunc(got, func(_, state string) bool { return state == "OK" })
	want(t, got, map[string]string{"foreign.crt": "WARN crl-missing"})
}

// The issuer of a list that was given is looked for in the trust bundle too.
func TestIssuersOfListsInBundle(t *testing.T) {
	root, impostor := newPair(t, nil, "Test Root", mayRevoke), newPair(t, nil, "Test Root", mayRevoke)
	mayNot := newPair(t, nil, "Test Root", authority)
	for _, c := range []struct {
		name     string
		root, by *pair
		want     string
	}{
		{"genuine", root, root, "OK"}, {"forged", root, impostor, "CRIT bad-signature"}, {"by one that may not", mayNot, mayNot, "CRIT wrong-usage"},
	} {
		list, err := x509.ParseRevocationList(crlOf(t, c.by, -time.Hour, 9*time.Hour))
		must(t, err)
		dir := write(t, map[string][]byte{"tls.crt": encode(newPair(t, c.root, "svc"))})
		r, err := judged(t.Context(), audit.Config{
			Sources: []audit.Source{source.Targets{Names: []string{dir}, Bundle: bundleOf([]*pair{c.root})}}, Lists: map[string]*x509.RevocationList{"l": list},
		})
		must(t, err)
		if got := states(t, r, dir)["l"]; got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
