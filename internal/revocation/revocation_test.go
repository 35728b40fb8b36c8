package revocation_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/internal/revocation"
	"github.com/artstore/artstore-pki/internal/testpki"
)

// issuer is an authority that signs lists only.
type issuer struct{ *testpki.Pair }

func newIssuer(t testing.TB) issuer {
	t.Helper()
	return issuer{testpki.Root(t, "issuer", func(c *x509.Certificate) {
		c.KeyUsage, c.NotAfter = x509.KeyUsageCRLSign, time.Now().Add(1000*time.Hour)
	})}
}

// list names these serials; with ends, it says when their certificates end.
func (i issuer) list(t testing.TB, at time.Time, ends []time.Time, serials ...int64) *x509.RevocationList {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: at, NextUpdate: at.Add(time.Hour)}
	for _, n := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: at})
	}
	if ends != nil {
		seconds := make([]int64, len(ends))
		for n, end := range ends {
			seconds[n] = end.Unix()
		}
		value, err := revocation.EncodeEnds(at, seconds)
		if err != nil {
			t.Fatal(err)
		}
		l.ExtraExtensions = []pkix.Extension{{Id: revocation.OIDEnds, Value: value}}
	}
	return i.List(t, l)
}

func (i issuer) index(t testing.TB, l *x509.RevocationList) revocation.Index {
	t.Helper()
	x := revocation.Index{}
	if err := x.Add(l, i.Cert); err != nil {
		t.Fatal(err)
	}
	return x
}

func serial(n int64) string { return string(big.NewInt(n).Bytes()) }

// An entry that a later list lacks is kept until its certificate has ended, and not
// longer: from its own end where the list says it, from the issuer's where not.
func TestKeptUntilTheEnd(t *testing.T) {
	i, now := newIssuer(t), time.Now().Truncate(time.Second)
	id := revocation.IssuerOf(i.Cert)
	ends := []time.Time{now.Add(time.Hour), now.Add(3 * time.Hour)}
	full, empty := i.index(t, i.list(t, now, ends, 7, 8)), i.index(t, i.list(t, now, nil))
	for name, tc := range map[string]struct {
		before revocation.Index
		after  time.Duration
		want   int
	}{
		"at once":                             {full, 0, 2},
		"in the last second of one":           {full, time.Hour, 2},
		"after the end of one":                {full, time.Hour + time.Second, 1},
		"after the end of both":               {full, 3*time.Hour + time.Second, 0},
		"without ends":                        {i.index(t, i.list(t, now, nil, 7, 8)), 500 * time.Hour, 2},
		"without ends, after the issuer's":    {i.index(t, i.list(t, now, nil, 7, 8)), 1001 * time.Hour, 0},
		"with nothing before":                 {nil, 0, 0},
		"ends of an empty list are no matter": {empty, 0, 0},
	} {
		kept, err := (*revocation.Kept)(nil).Follow(tc.before, empty, now.Add(tc.after))
		if err != nil || kept.Len() != tc.want || kept.Names(id, serial(8)) != (tc.want > 0) || kept.Names(id, serial(9)) {
			t.Errorf("%s: %d kept, want %d: %v", name, kept.Len(), tc.want, err)
		}
	}
	kept, err := (*revocation.Kept)(nil).Follow(full, empty, now)
	if err != nil {
		t.Fatal(err)
	}
	if n, m := kept.Lasting(now.Add(2*time.Hour)), (*revocation.Kept)(nil).Lasting(now); n != 1 || m != 0 {
		t.Errorf("%d of two last for two hours, %d of none", n, m)
	}
	if kept, err = kept.Follow(empty, empty, now.Add(2*time.Hour)); err != nil || kept.Len() != 1 {
		t.Errorf("two hours later %d are kept: %v", kept.Len(), err)
	}
	if kept, err = kept.Follow(nil, full, now); err != nil || kept.Len() != 0 {
		t.Errorf("%d are kept beside the list that names them again: %v", kept.Len(), err)
	}
}

// What two keep together is kept once, with the later of two ends.
func TestJoin(t *testing.T) {
	id, now := revocation.Issuer{1}, time.Now()
	keep := func(entries map[string]int64) *revocation.Kept {
		k, err := (*revocation.Kept)(nil).Follow(revocation.Index{id: entries}, nil, now)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	in := func(d time.Duration) int64 { return now.Add(d).Unix() }
	one, two := keep(map[string]int64{serial(7): in(time.Hour)}), keep(map[string]int64{serial(7): in(3 * time.Hour), serial(8): in(time.Hour)})
	for name, parts := range map[string][2]*revocation.Kept{"one, two": {one, two}, "two, one": {two, one}, "two, none": {two, nil}, "none, two": {nil, two}} {
		both, err := parts[0].Join(parts[1], nil, now)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		both.All(func(i revocation.Issuer, serial string) bool {
			all = append(all, serial)
			return i == id
		})
		slices.Sort(all)
		if !slices.Equal(all, []string{serial(7), serial(8)}) || both.Lasting(now.Add(2*time.Hour)) != 1 {
			t.Errorf("%s: %q are kept, %d of them for two hours", name, all, both.Lasting(now.Add(2*time.Hour)))
		}
		n := 0
		for range both.All {
			n++
			break
		}
		if n != 1 {
			t.Errorf("%s: a loop that breaks saw %d entries", name, n)
		}
	}
	for range (*revocation.Kept)(nil).All {
		t.Error("nothing has an entry")
	}
}

// A certificate is blocked if no way to a root is free of revoked ones. A root is in
// nobody's list.
func TestBlocking(t *testing.T) {
	root, other := newIssuer(t).Cert, newIssuer(t).Cert
	leaf := &x509.Certificate{SerialNumber: big.NewInt(7)}
	revokedBy := func(list ...*x509.Certificate) func(revocation.Issuer, string) bool {
		return func(i revocation.Issuer, s string) bool {
			return s == serial(7) && slices.ContainsFunc(list, func(c *x509.Certificate) bool { return revocation.IssuerOf(c) == i })
		}
	}
	everything := func(revocation.Issuer, string) bool { return true }
	two := [][]*x509.Certificate{{leaf, root}, {leaf, other}}
	for name, tc := range map[string]struct {
		chains  [][]*x509.Certificate
		revoked func(revocation.Issuer, string) bool
		want    *x509.Certificate
	}{
		"no chain":             {nil, everything, nil},
		"an empty chain":       {[][]*x509.Certificate{nil}, everything, nil},
		"a root alone":         {[][]*x509.Certificate{{root}}, everything, nil},
		"revoked on one way":   {two, revokedBy(other), nil},
		"revoked on both ways": {two, revokedBy(root, other), leaf},
	} {
		if got := revocation.Blocking(tc.chains, tc.revoked); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestHalfOver(t *testing.T) {
	this, half := time.Now(), 30*time.Minute
	for after, want := range map[time.Duration]bool{0: false, half: false, half + 1: true, 3 * half: true} {
		if revocation.HalfOver(this, this.Add(2*half), this.Add(after)) != want {
			t.Errorf("after %s of an hour: %v", after, !want)
		}
	}
	if revocation.HalfOver(this, time.Time{}, this.Add(half)) {
		t.Error("a list that never ends is half over")
	}
}

// Entries are never dropped for want of room.
func TestTooMany(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	many, end := map[string]int64{}, time.Now().Add(time.Hour).Unix()
	for n := range int64(revocation.MaxKept) {
		many[serial(n+1)] = end
	}
	before := revocation.Index{revocation.Issuer{1}: many}
	kept, err := (*revocation.Kept)(nil).Follow(before, nil, time.Now())
	if err != nil || kept.Len() != revocation.MaxKept {
		t.Fatalf("%d kept: %v", kept.Len(), err)
	}
	one := revocation.Index{revocation.Issuer{2}: {serial(1): end}}
	if _, err := kept.Follow(one, nil, time.Now()); !errors.Is(err, revocation.ErrTooMany) {
		t.Errorf("one more: %v", err)
	}
	if data := kept.Encode(); len(data) > revocation.MaxFile {
		t.Errorf("the file would be %d bytes long", len(data))
	}
}

func TestAddRefuses(t *testing.T) {
	i, now := newIssuer(t), time.Now()
	with := func(value []byte) *x509.RevocationList {
		return i.List(t, &x509.RevocationList{
			Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(time.Hour),
			RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(1), RevocationTime: now}},
			ExtraExtensions:           []pkix.Extension{{Id: revocation.OIDEnds, Value: value}},
		})
	}
	for want, list := range map[string]*x509.RevocationList{
		"not an OCTET STRING": with([]byte{2, 1, 1}),
		"OCTET STRING":        with([]byte{4, 4, 0, 0, 0, 0, 0}),
		"more or fewer":       with([]byte{4, 3, 0, 0, 0}),
	} {
		if err := (revocation.Index{}).Add(list, i.Cert); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want …%s…", err, want)
		}
	}
	indirect := i.List(t, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{
			SerialNumber: big.NewInt(1), RevocationTime: now,
			ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 29}, Critical: true, Value: []byte{5, 0}}}, // certificateIssuer
		}},
	})
	if err := (revocation.Index{}).Add(indirect, i.Cert); err == nil || !strings.Contains(err.Error(), "critical extension 2.5.29.29") {
		t.Errorf("an entry of another CA: %v", err)
	}
	x := i.index(t, i.list(t, now, nil, 1))
	if err := x.Add(i.list(t, now, nil, 2), i.Cert); err == nil || !strings.Contains(err.Error(), "two revocation lists") {
		t.Errorf("a second list: %v", err)
	}
}

func TestParseKeptRefuses(t *testing.T) {
	i, now := newIssuer(t), time.Now()
	kept, err := (*revocation.Kept)(nil).Follow(i.index(t, i.list(t, now, nil, 7, 300)), nil, now)
	if err != nil {
		t.Fatal(err)
	}
	good := string(kept.Encode())
	again, err := revocation.ParseKept([]byte(good))
	if err != nil || again.Len() != 2 || !again.Names(revocation.IssuerOf(i.Cert), serial(300)) {
		t.Fatalf("what was written is read as %d entries: %v", again.Len(), err)
	}
	if k, err := revocation.ParseKept(nil); k.Len() != 0 || err != nil {
		t.Errorf("nothing: %d, %v", k.Len(), err)
	}
	lines := strings.SplitAfter(good, "\n")
	for name, text := range map[string]string{
		"another file":     "-----BEGIN X509 CRL-----\n",
		"cut in a line":    good[:len(good)-1],
		"cut between two":  strings.Join(lines[:3], ""),
		"without issuer":   lines[0] + lines[2] + lines[3],
		"an issuer twice":  good + lines[1],
		"a short issuer":   strings.Replace(good, "issuer ", "issuer 00", 1),
		"no hex":           strings.Replace(good, "\n07 ", "\nxx ", 1),
		"a leading zero":   strings.Replace(good, "\n07 ", "\n0007 ", 1),
		"no end":           strings.Replace(good, "\n07 ", "\n07", 1),
		"another number":   strings.Replace(good, ": 2\n", ": 3\n", 1),
		"one entry twice":  good + lines[3],
		"an unknown state": "\n",
		"too long":         good + strings.Repeat("\n", revocation.MaxFile),
	} {
		if k, err := revocation.ParseKept([]byte(text)); err == nil {
			t.Errorf("%s: read as %d entries", name, k.Len())
		}
	}
}

// FuzzKept: any data is an error, or it is what Encode writes of what was read, but
// for the order of lines.
func FuzzKept(f *testing.F) {
	i := newIssuer(f)
	kept, err := (*revocation.Kept)(nil).Follow(i.index(f, i.list(f, time.Now(), nil, 7, 300)), nil, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(kept.Encode())
	f.Add([]byte("revoked certificates that later lists do not name, version 1, entries: 0\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := revocation.ParseKept(data)
		if err != nil {
			return
		}
		again, err := revocation.ParseKept(k.Encode())
		if err != nil || again.Len() != k.Len() || !bytes.Equal(again.Encode(), k.Encode()) {
			t.Errorf("%d entries were written as %d: %v", k.Len(), again.Len(), err)
		}
	})
}

// FuzzIndex: a list is an error, or each of its entries is named with an end that is
// not before the list was made.
func FuzzIndex(f *testing.F) {
	i, now := newIssuer(f), time.Now()
	f.Add(i.list(f, now, nil, 1, 2).Raw)
	f.Add(i.list(f, now, []time.Time{now.Add(time.Hour), now}, 1, 2).Raw)
	f.Fuzz(func(t *testing.T, der []byte) {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return
		}
		x := revocation.Index{}
		if x.Add(list, i.Cert) != nil {
			return
		}
		for _, e := range list.RevokedCertificateEntries {
			end, named := x[revocation.IssuerOf(i.Cert)][string(e.SerialNumber.Bytes())]
			if !named || end < min(list.ThisUpdate.Unix(), i.Cert.NotAfter.Unix()) {
				t.Errorf("serial %v: named %v, until %d", e.SerialNumber, named, end)
			}
		}
	})
}

func TestEdition(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	for name, c := range map[string]struct {
		a, b revocation.Edition
		want bool
	}{
		"later":            {revocation.Edition{ThisUpdate: now.Add(time.Second)}, revocation.Edition{ThisUpdate: now}, true},
		"earlier":          {revocation.Edition{ThisUpdate: now, Number: big.NewInt(9)}, revocation.Edition{ThisUpdate: now.Add(time.Second), Number: big.NewInt(1)}, false},
		"the same":         {revocation.Edition{ThisUpdate: now, Number: big.NewInt(1)}, revocation.Edition{ThisUpdate: now, Number: big.NewInt(1)}, false},
		"of one second":    {revocation.Edition{ThisUpdate: now, Number: big.NewInt(2)}, revocation.Edition{ThisUpdate: now, Number: big.NewInt(1)}, true},
		"without a number": {revocation.Edition{ThisUpdate: now, Number: big.NewInt(2)}, revocation.Edition{ThisUpdate: now}, false},
	} {
		if got := c.a.Supersedes(c.b); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
