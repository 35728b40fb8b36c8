package trust_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/trust"
	"github.com/artstore/artstore-pki/ca/internal/truststore"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/translog"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// fp makes a fingerprint of a name.
func fp(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// chain is a [trust.Lineage]: the intermediate "root/n" was signed by "root".
type chain map[string]string

func (c chain) of(intermediate string) string { return c[intermediate] }

// issuer names the n-th intermediate of a root.
func (c chain) issuer(root, n string) string {
	c[fp(root+"/"+n)] = fp(root)
	return fp(root + "/" + n)
}

func first(c chain) *trust.Document {
	return &trust.Document{Version: 1, Roots: []string{fp("old")}, Intermediates: []string{c.issuer("old", "1")}}
}

// must returns the document of a step that has to succeed.
func must(t testing.TB) func(*trust.Document, error) *trust.Document {
	return func(d *trust.Document, err error) *trust.Document {
		t.Helper()
		if err == nil {
			err = d.Check()
		}
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
}

func TestSteps(t *testing.T) {
	c, now, ok := chain{}, time.Now(), must(t)
	d := first(c)
	staged := ok(d.Add(fp("new"), c.issuer("new", "1"), now))
	if staged.Version != 2 || staged.Stage(fp("new")) != stepapi.StageStaged || staged.Stage(fp("old")) != stepapi.StageActive || staged.Tries("web") {
		t.Errorf("staged: %+v", staged)
	}
	tried := ok(staged.Try(fp("new"), []string{"web", "api", "web"}))
	if !tried.Tries("web") || tried.Tries("other") || !slices.Equal(tried.Staged.Services, []string{"api", "web"}) {
		t.Errorf("tried: %+v", tried.Staged)
	}
	active := ok(tried.Activate(fp("new"), c.of, now))
	if active.Stage(fp("new")) != stepapi.StageActive || active.Stage(fp("old")) != stepapi.StageOld || active.Intermediates[0] != fp("new/1") || active.Staged != nil {
		t.Errorf("active: %+v", active)
	}
	fresh := ok(active.Issue(c.issuer("new", "2"), c.of, func(string) bool { return false }), nil)
	if !slices.Equal(fresh.Intermediates, []string{fp("new/2"), fp("old/1")}) {
		t.Error("rotating keeps the one that is used by none, or drops the newest of the old root")
	}
	kept := ok(active.Issue(fp("new/2"), c.of, func(string) bool { return true }), nil)
	revoked := ok(kept.Revoke(fp("new/1"), now))
	gone := ok(revoked.Remove(fp("old"), c.of))
	if !slices.Equal(gone.Roots, []string{fp("new")}) || !slices.Equal(gone.Intermediates, []string{fp("new/2"), fp("new/1")}) || len(gone.Revoked) != 1 {
		t.Errorf("gone: %+v", gone)
	}
	if d.Version != 1 || len(d.Roots) != 1 {
		t.Error("a step has changed the document that it began with")
	}

	for name, step := range map[string]struct {
		err  error
		want error
	}{
		"another staged":          {second(staged.Add(fp("third"), fp("third/1"), now)), trust.ErrStagedTwice},
		"try an active root":      {second(active.Try(fp("new"), nil)), trust.ErrNotStaged},
		"activate twice":          {second(active.Activate(fp("new"), c.of, now)), trust.ErrActive},
		"activate an unknown one": {second(active.Activate(fp("x"), c.of, now)), trust.ErrUnknown},
		"remove the active one":   {second(active.Remove(fp("new"), c.of)), trust.ErrActive},
		"remove an unknown one":   {second(active.Remove(fp("x"), c.of)), trust.ErrUnknown},
		"revoke the issuing one":  {second(active.Revoke(fp("new/1"), now)), trust.ErrIssues},
		"revoke the tried one":    {second(tried.Revoke(fp("new/1"), now)), trust.ErrIssues},
		"revoke twice":            {second(revoked.Revoke(fp("new/1"), now)), trust.ErrRevoked},
		"activate without issuer": {second(ok(active.Revoke(fp("old/1"), now)).Activate(fp("old"), c.of, now)), trust.ErrNoIssuer},
	} {
		if !errors.Is(step.err, step.want) {
			t.Errorf("%s: %v, want %v", name, step.err, step.want)
		}
	}
	if _, _, err := d.Rollback(c.of, now); !errors.Is(err, trust.ErrNothing) {
		t.Errorf("rolling back nothing: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestRollback undoes each step from each stage, and goes forward again.
func TestRollback(t *testing.T) {
	c, now, ok := chain{}, time.Now(), must(t)
	back := func(d *trust.Document) *trust.Document {
		t.Helper()
		next, _, err := d.Rollback(c.of, now)
		return ok(next, err)
	}
	begin := first(c)
	staged := ok(begin.Add(fp("new"), c.issuer("new", "1"), now))
	tried := ok(staged.Try(fp("new"), []string{"web"}))
	for name, step := range map[string]struct{ from, to *trust.Document }{
		"staged": {staged, begin},
		"tried":  {tried, staged},
		"active": {ok(staged.Activate(fp("new"), c.of, now)), staged},
	} {
		undone := back(step.from)
		if !undone.Equal(step.to) || undone.Version != step.from.Version+1 {
			t.Errorf("%s: %+v, want %+v", name, undone, step.to)
		}
	}
	again := ok(back(ok(staged.Activate(fp("new"), c.of, now))).Activate(fp("new"), c.of, now))
	if again.Roots[0] != fp("new") || again.Intermediates[0] != fp("new/1") {
		t.Errorf("forward again: %+v", again)
	}
	if !back(back(again)).Equal(begin) {
		t.Error("two rollbacks do not lead to the begin")
	}
}

// TestNotAccepted accepts by service, or by a name that one service has. Every certificate of a
// host may have localhost, so that one accepts nobody.
func TestNotAccepted(t *testing.T) {
	end := time.Now().Add(time.Hour)
	holding := func(service, serial string, names ...string) truststore.Holding {
		return truststore.Holding{Certificate: record.Certificate{Service: service, Lineage: serial, Serial: serial, Names: names, NotAfter: end}}
	}
	f := trust.NewFleet([]truststore.Holding{
		holding("api", "1", "api", "localhost"), holding("api", "2", "api-2", "localhost"), holding("web", "3", "api", "web.internal", "localhost"),
	}, nil)
	all := f.Without(fp("new"))
	for name, want := range map[string]int{"api": 1, "api-2": 2, "web": 2, "web.internal": 2, "": 3, "nobody": 3} {
		if left, err := f.NotAccepted(all, []string{name}); err != nil || len(left) != want {
			t.Errorf("accepting %q: %d are left, %v; want %d", name, len(left), err, want)
		}
	}
	for _, list := range [][]stepapi.Holder{all, all[2:]} { // also if the others have followed
		if left, err := f.NotAccepted(list, []string{"localhost"}); err == nil || !strings.Contains(err.Error(), "2 services") {
			t.Errorf("localhost accepts all but %d of %d, %v", len(left), len(list), err)
		}
	}
}

// TestCopiesOfACertificate: several processes with copies of one certificate have a root only if
// each of them has reported it, and use what the one that lags has shown.
func TestCopiesOfACertificate(t *testing.T) {
	c := chain{}
	before := first(c)
	staged := must(t)(before.Add(fp("new"), c.issuer("new", "1"), time.Now()))
	old, current := before.Digest(), staged.Digest()
	for name, test := range map[string]struct {
		reports []record.TrustReport
		reason  string // "" if the root counts as adopted
		using   int    // certificates
	}{
		"no report":          {nil, "has not reported yet", 3},
		"one, behind":        {[]record.TrustReport{{Serial: "3", Digest: old}}, "has reported another bundle", 1},
		"one, ready":         {[]record.TrustReport{{Serial: "3", Digest: current}}, "", 1},
		"a copy is behind":   {[]record.TrustReport{{Serial: "3", Digest: current}, {Serial: "2", Digest: old}}, "1 of 2 processes", 2},
		"all copies ready":   {[]record.TrustReport{{Serial: "2", Digest: current}, {Serial: "3", Digest: current}}, "", 2},
		"one with none live": {[]record.TrustReport{{Serial: "3", Digest: current}, {Serial: "0", Digest: current}}, "", 3},
		"too many":           {[]record.TrustReport{{Serial: "3", Digest: current}, {Serial: "3", Digest: ""}}, "more than 16 processes", 1},
	} {
		var held []truststore.Holding
		for _, serial := range []string{"1", "2", "3"} {
			held = append(held, truststore.Holding{Certificate: record.Certificate{Service: "web", Lineage: "1", Serial: serial, Issuer: hex.EncodeToString([]byte(serial)), NotAfter: time.Now().Add(time.Hour)}, Reports: test.reports})
		}
		f := trust.NewFleet(held, []*trust.Document{staged, before})
		without := f.Without(fp("new"))
		if len(without) != min(len(test.reason), 1) || len(without) == 1 && !strings.Contains(without[0].Reason, test.reason) {
			t.Errorf("%s: %+v", name, without)
		}
		using := 0
		for _, serial := range []string{"1", "2", "3"} {
			using += len(f.Users([]*x509.Certificate{{SubjectKeyId: []byte(serial)}}))
		}
		if using != test.using {
			t.Errorf("%s: %d certificates are in use, want %d", name, using, test.using)
		}
	}
}

func newKey(t testing.TB) *translog.Key {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := translog.NewKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestOpen(t *testing.T) {
	key, d := newKey(t), first(chain{})
	signed, err := trust.Sign(key, d)
	if err != nil {
		t.Fatal(err)
	}
	got, err := trust.Open(key.Verifier(), signed)
	if err != nil || !got.Equal(d) || got.Version != d.Version || got.Digest() != d.Digest() {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := trust.Open(newKey(t).Verifier(), signed); !errors.Is(err, translog.ErrForeign) {
		t.Errorf("signed by another key: %v", err)
	}
	changed := strings.Replace(string(signed), fp("old"), fp("bad"), 1)
	if _, err := trust.Open(key.Verifier(), []byte(changed)); !errors.Is(err, translog.ErrForeign) {
		t.Errorf("changed: %v", err)
	}
	head, err := key.Sign(translog.Head{Size: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trust.Open(key.Verifier(), head); !errors.Is(err, translog.ErrForeign) {
		t.Errorf("a head of the log passes for a document: %v", err)
	}
	if _, err := key.Verifier().Open(signed); err == nil {
		t.Error("a document passes for a head of the log")
	}
	for name, bad := range map[string]*trust.Document{
		"no roots":         {Intermediates: []string{fp("a")}},
		"no intermediates": {Roots: []string{fp("a")}},
		"no fingerprint":   {Roots: []string{"../../etc/passwd"}, Intermediates: []string{fp("a")}},
		"twice":            {Roots: []string{fp("a"), fp("a")}, Intermediates: []string{fp("b")}},
		"too many try it": {
			Roots: []string{fp("a"), fp("b")}, Intermediates: []string{fp("a/1"), fp("b/1")},
			Staged: &trust.Staged{Root: fp("b"), Intermediate: fp("b/1"), Services: make([]string, 501)},
		},
		"too long":         {Roots: []string{fp("a")}, Intermediates: []string{fp("b")}, Revoked: many(1000)},
		"staged is active": {Roots: []string{fp("a")}, Intermediates: []string{fp("b")}, Staged: &trust.Staged{Root: fp("a"), Intermediate: fp("b")}},
	} {
		if _, err := trust.Sign(key, bad); err == nil {
			t.Errorf("%s: signed", name)
		}
		text, err := json.Marshal(bad)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := key.SignDocument("artstore-pki trust", text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trust.Open(key.Verifier(), signed); err == nil {
			t.Errorf("%s: read", name)
		}
	}
}

// many returns so many times by fingerprint.
func many(n int) map[string]time.Time {
	out := make(map[string]time.Time, n)
	for i := range n {
		out[fp(strconv.Itoa(i))] = time.Now()
	}
	return out
}

func TestSeal(t *testing.T) {
	key := newKey(t)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := trust.Seal(key, fp("a"), private)
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := trust.Unseal(key, fp("a"), sealed); err != nil || !private.Equal(got) {
		t.Errorf("%v, %v", got, err)
	}
	uri, err := trust.SealURI(key, fp("a"), "pkcs11:token=pki;object=x")
	if err != nil {
		t.Fatal(err)
	}
	if private, got, err := trust.Unseal(key, fp("a"), uri); err != nil || private != nil || got != "pkcs11:token=pki;object=x" {
		t.Errorf("%q, %v", got, err)
	}
	if _, _, err := trust.Unseal(key, fp("b"), sealed); err == nil {
		t.Error("the key of one certificate was unsealed for another")
	}
	if _, _, err := trust.Unseal(newKey(t), fp("a"), sealed); err == nil {
		t.Error("unsealed by another authority")
	}
	for i := range sealed {
		changed := slices.Clone(sealed)
		changed[i] ^= 1
		if _, _, err := trust.Unseal(key, fp("a"), changed); err == nil {
			t.Fatalf("unsealed with byte %d changed", i)
		}
		if _, _, err := trust.Unseal(key, fp("a"), sealed[:i]); err == nil {
			t.Fatalf("unsealed %d bytes of it", i)
		}
	}
}

// FuzzSteps takes steps in any order. Each that succeeds gives a valid document whose active
// root has signed the intermediate that issues, and a rollback leads back.
func FuzzSteps(f *testing.F) {
	f.Add([]byte{0, 2, 3, 0, 2, 4, 5})
	f.Add([]byte{0, 1, 2, 5, 6, 3, 3})
	f.Fuzz(func(t *testing.T, steps []byte) {
		c, now := chain{}, time.Now()
		d := first(c)
		for i, step := range steps[:min(len(steps), 50)] {
			name, last := "root"+hex.EncodeToString([]byte{byte(i)}), d.Roots[len(d.Roots)-1]
			var next *trust.Document
			var err error
			switch step % 7 {
			case 0:
				next, err = d.Add(fp(name), c.issuer(name, "1"), now)
			case 1:
				next, err = d.Try(last, []string{"web"})
			case 2:
				next, err = d.Activate(last, c.of, now)
			case 3:
				next, _, err = d.Rollback(c.of, now)
			case 4:
				next, err = d.Remove(last, c.of)
			case 5:
				c[fp(name)] = d.Roots[0]
				next = d.Issue(fp(name), c.of, func(string) bool { return i%2 == 0 })
			case 6:
				next, err = d.Revoke(d.Intermediates[len(d.Intermediates)-1], now)
			}
			if err != nil {
				continue
			}
			if err := next.Check(); err != nil {
				t.Fatalf("step %d: %v: %+v", step%7, err, next)
			}
			if next.Version != d.Version+1 || c.of(next.Intermediates[0]) != next.Roots[0] {
				t.Fatalf("step %d: the active root has not signed the issuer: %+v", step%7, next)
			}
			if _, revoked := next.Revoked[next.Intermediates[0]]; revoked {
				t.Fatalf("step %d: a revoked intermediate issues: %+v", step%7, next)
			}
			if next.Staged != nil && c.of(next.Staged.Intermediate) != next.Staged.Root {
				t.Fatalf("step %d: the staged root has not signed its issuer: %+v", step%7, next)
			}
			if s := step % 7; s < 2 || s == 2 && d.Staged != nil && last == d.Staged.Root {
				back, _, err := next.Rollback(c.of, now)
				want := d
				if s == 2 {
					want, _ = d.Try(last, nil) // whoever tried the root does so no more
				}
				if s == 1 {
					want, _ = d.Try(last, nil)
				}
				if err != nil || !back.Equal(want) && s != 2 || s == 2 && (back.Roots[0] != d.Roots[0] || back.Staged == nil || back.Staged.Root != last) {
					t.Fatalf("rolling back step %d: %+v, %v; want %+v", s, back, err, want)
				}
			}
			d = next
		}
	})
}

// FuzzOpen reads documents that somebody else has signed with the key.
func FuzzOpen(f *testing.F) {
	key := newKey(f)
	f.Add([]byte(`{"version":1,"roots":["` + fp("a") + `"],"intermediates":["` + fp("b") + `"]}`))
	f.Add([]byte(`{"staged":{}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		signed, err := key.SignDocument("artstore-pki trust", text)
		if err != nil {
			return
		}
		d, err := trust.Open(key.Verifier(), signed)
		if err != nil {
			return
		}
		_, _ = d.Digest(), d.Stage(d.Roots[0])
		again, err := trust.Sign(key, d)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := trust.Open(key.Verifier(), again); err != nil || !got.Equal(d) {
			t.Fatalf("%+v, %v; want %+v", got, err, d)
		}
	})
}
