package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/internal/testpki"
)

func TestTargetList(t *testing.T) {
	got := targetList("# servers\nstorage:8010\r\n\n  /etc/artstore/a b  \n  # no\nhttps://[::1]:8000/x#y\n@other\nlast")
	if want := []string{"storage:8010", "/etc/artstore/a b", "https://[::1]:8000/x#y", "@other", "last"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestOnlyUntrustedWithoutBundle: without a trust bundle a certificate that has signed itself
// is wrong all the same, so the finding counts and not that no chain was judged.
func TestOnlyUntrustedWithoutBundle(t *testing.T) {
	p := &program{t: t, dir: t.TempDir()}
	self := testpki.Issue(t, nil, &x509.Certificate{DNSNames: []string{"self.example"}}, testpki.Key(t))
	p.write("self.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: self.Cert.Raw})))
	var out bytes.Buffer
	if status := p.run(t.Context(), &out, "audit", p.path("self.pem"), "--only", "untrusted"); status != ui.ExitFindings {
		t.Errorf("exit status %d\n%s", status, out.String())
	}
	if want := "1 certificate: 0 fine, 0 to watch, 1 critical\n"; !strings.Contains(out.String(), want) {
		t.Errorf("no %q in\n%s", want, out.String())
	}
}

// FuzzTargetList: targets are on one line, not empty, no comments, and reading them again gives the same.
func FuzzTargetList(f *testing.F) {
	f.Add("a\n#b\r\n c ")
	f.Fuzz(func(t *testing.T, text string) {
		list := targetList(text)
		for _, target := range list {
			if target == "" || target[0] == '#' || strings.ContainsRune(target, '\n') {
				t.Errorf("%q", target)
			}
		}
		if again := targetList(strings.Join(list, "\n")); !slices.Equal(again, list) {
			t.Errorf("%q, then %q", list, again)
		}
	})
}
