package javastore_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/javastore"
)

// store builds one by hand, as Java writes it.
type store struct{ data []byte }

func begin(magic, version, count uint32) *store {
	s := &store{}
	return s.number(magic).number(version).number(count)
}

func (s *store) number(n uint32) *store { s.data = binary.BigEndian.AppendUint32(s.data, n); return s }

func (s *store) text(t string) *store {
	s.data = append(binary.BigEndian.AppendUint16(s.data, uint16(len(t))), t...)
	return s
}

func (s *store) raw(b ...byte) *store { s.data = append(s.data, b...); return s }

func (s *store) long(t string) *store {
	return s.number(uint32(len(t))).raw([]byte(t)...)
}

func (s *store) entry(tag uint32, alias string) *store {
	return s.number(tag).text(alias).raw(make([]byte, 8)...)
}

func (s *store) cert(t string) *store { return s.text("X.509").long(t) }

// secret is the object of a secret key as OpenJDK serializes it.
func (s *store) secret() *store {
	s.number(0xaced0005).raw('s', 'r').text("com.sun.crypto.provider.SealedObjectForKeyProtector").raw(make([]byte, 8)...).raw(2, 0, 0, 'x')
	s.raw('r').text("javax.crypto.SealedObject").raw(make([]byte, 8)...).raw(2, 0, 4)
	s.raw('[').text("encodedParams").raw('t').text("[B").raw('[').text("encryptedContent").raw('q', 0, 0x7e, 0, 3)
	s.raw('L').text("paramsAlg").raw('t').text("Ljava/lang/String;").raw('L').text("sealAlg").raw('q', 0, 0x7e, 0, 4).raw('x', 'p')
	s.raw('u', 'r').text("[B").raw(make([]byte, 8)...).raw(2, 0, 0, 'x', 'p').long("params")
	return s.raw('u', 'q', 0, 0x7e, 0, 6).long("content").raw('t').text("PBE").raw('t').text("PBE")
}

func (s *store) sealed() []byte { return append(s.data, make([]byte, 20)...) }

func shown(data []byte) string {
	entries, err := javastore.Read(data)
	var out []string
	for _, e := range entries {
		out = append(out, fmt.Sprintf("%q key %t chain %q", e.Alias, e.Key, e.Chain))
	}
	switch {
	case errors.Is(err, javastore.ErrDamaged):
		out = append(out, "damaged")
	case err != nil:
		out = append(out, "secret")
	}
	return strings.Join(out, ", ")
}

const (
	jks   = 0xfeedfeed
	jceks = 0xcececece
)

func TestRead(t *testing.T) {
	full := begin(jceks, 2, 3).entry(1, "own").long("key").number(2).cert("leaf").cert("issuer").
		entry(3, "secret").secret().entry(2, "other\xc0\x80\xed").cert("root").sealed()
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"all kinds":       {full, `"own" key true chain ["leaf" "issuer"], "secret" key true chain [], "other\x00` + "\ufffd" + `" key false chain ["root"]`},
		"empty":           {begin(jks, 2, 0).sealed(), ""},
		"version 1":       {begin(jks, 1, 1).entry(2, "a").long("root").sealed(), `"a" key false chain ["root"]`},
		"version 3":       {begin(jks, 3, 0).sealed(), "damaged"},
		"another":         {begin(0xcafebabe, 2, 0).sealed(), "damaged"},
		"no seal":         {begin(jks, 2, 0).data, "damaged"},
		"a tail":          {append(begin(jks, 2, 0).sealed(), 0), "damaged"},
		"unknown entry":   {begin(jks, 2, 2).entry(2, "a").cert("root").entry(4, "b").sealed(), `"a" key false chain ["root"], damaged`},
		"unknown secret":  {begin(jceks, 2, 2).entry(2, "a").cert("root").entry(3, "b").sealed(), `"a" key false chain ["root"], secret`},
		"many entries":    {begin(jks, 2, 1<<32-1).sealed(), "damaged"},
		"many in a chain": {begin(jks, 2, 1).entry(1, "a").long("key").number(1<<32 - 1).sealed(), "damaged"},
		"a long key":      {begin(jks, 2, 1).entry(1, "a").number(1<<32 - 1).sealed(), "damaged"},
		"a long chain":    {begin(jks, 2, 1).entry(2, "a").text("X.509").number(1 << 31).sealed(), "damaged"},
		"classes":         {begin(jceks, 2, 1).entry(3, "a").number(0xaced0005).raw('s').raw([]byte(strings.Repeat("r\x00\x00........\x02\x00\x00x", 100))...).sealed(), "secret"},
	} {
		if got := shown(c.data); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	for n := range full {
		if got := shown(full[:n]); !strings.HasSuffix(got, "damaged") && !strings.HasSuffix(got, "secret") {
			t.Errorf("%d bytes: %s", n, got)
		}
	}
}

// What keytool writes is read to its end.
func TestReadOfKeytool(t *testing.T) {
	if _, err := exec.LookPath("keytool"); err != nil || testing.Short() {
		t.Skip("no keytool to write stores with, or no time for it")
	}
	for _, kind := range []string{"JKS", "JCEKS"} {
		path := filepath.Join(t.TempDir(), "store")
		keytool := func(args ...string) {
			t.Helper()
			args = append(args, "-storetype", kind, "-keystore", path, "-storepass", "changeit", "-keypass", "changeit")
			if said, err := exec.CommandContext(t.Context(), "keytool", args...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, said)
			}
		}
		keytool("-genkeypair", "-alias", "one", "-dname", "CN=one", "-keyalg", "EC")
		want := 1
		if kind == "JCEKS" {
			keytool("-genseckey", "-alias", "two", "-keyalg", "AES", "-keysize", "128")
			want++
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if entries, err := javastore.Read(data); err != nil || len(entries) != want {
			t.Errorf("%s: %d entries, %v", kind, len(entries), err)
		}
	}
}

// Contract: anything gives entries whose bytes together are no more than the input.
func FuzzRead(f *testing.F) {
	f.Add(begin(jceks, 2, 2).entry(3, "secret").secret().entry(1, "own").long("key").number(1).cert("leaf").sealed())
	f.Add(begin(jks, 1, 1).entry(2, "a").long("root").sealed())
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := javastore.Read(data)
		total := 0
		for _, e := range entries {
			for _, c := range e.Chain {
				total += len(c)
			}
		}
		if total > len(data) || err == nil && !javastore.Is(data) {
			t.Errorf("%d bytes out of %d, %v", total, len(data), err)
		}
	})
}
