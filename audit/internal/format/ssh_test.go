package format_test

import (
	"bytes"
	"crypto/rand"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/internal/format"
)

// sshCertificate returns a line of a file id-cert.pub. p is subject and issuer.
func sshCertificate(t testing.TB, p *certtest.Pair, edit func(*ssh.Certificate)) []byte {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(p.Key)
	certtest.Must(t, err)
	now := uint64(time.Now().Unix())
	c := &ssh.Certificate{Key: signer.PublicKey(), Serial: 7, CertType: ssh.HostCert, KeyId: "web", ValidPrincipals: []string{"a", "b"}, ValidAfter: now - 7200, ValidBefore: now + 7200}
	if edit != nil {
		edit(c)
	}
	certtest.Must(t, c.SignCert(rand.Reader, signer))
	return ssh.MarshalAuthorizedKey(c)
}

func TestSSH(t *testing.T) {
	p := certtest.New(t, nil, "x")
	good := sshCertificate(t, p, nil)
	hour := uint64(time.Now().Unix() - 3600)
	for name, c := range map[string]struct {
		data  []byte
		state string
	}{
		"good":    {good, "OK"},
		"comment": {append([]byte("# of web\n\n"), good...), "OK"},
		"forever": {sshCertificate(t, p, func(c *ssh.Certificate) { c.ValidBefore, c.ValidAfter = ssh.CertTimeInfinity, 0 }), "OK"},
		"over":    {sshCertificate(t, p, func(c *ssh.Certificate) { c.ValidBefore = hour }), "EXPIRED expired"},
		"early":   {sshCertificate(t, p, func(c *ssh.Certificate) { c.ValidAfter = hour + 7200 }), "NOT-YET not-yet-valid"},
		"nobody":  {sshCertificate(t, p, func(c *ssh.Certificate) { c.ValidPrincipals, c.CertType = nil, ssh.UserCert }), "WARN no-san"},
		"cut":     {good[:100], "ERROR the SSH certificate is damaged or of an unsupported kind"},
	} {
		if text, state := one(t, c.data); state != c.state || name == "good" && !strings.Contains(text, "  name         web\n") {
			t.Errorf("%s: %s, want %s\n%s", name, state, c.state, text)
		}
	}
	// In a directory too, where a public key is of no concern.
	dir := certtest.Write(t, map[string][]byte{"id-cert.pub": bytes.Repeat(good, 2), "id.pub": ssh.MarshalAuthorizedKey(mustKey(t, p))})
	audittest.Want(t, audittest.States(t, audittest.Run(t, audittest.Paths(dir)), dir), map[string]string{"id-cert.pub": "OK", "id-cert.pub#2": "OK"})
	if got := audittest.Parts(bytes.Repeat(good, 1001)); len(got) != 1001 || got[1000].Err == nil {
		t.Errorf("%d parts", len(got))
	}
}

func mustKey(t testing.TB, p *certtest.Pair) ssh.PublicKey {
	t.Helper()
	key, err := ssh.NewPublicKey(p.Key.Public())
	certtest.Must(t, err)
	return key
}

// The public half of a private key of OpenSSH is known even if the private half is encrypted.
func TestOpenSSHKey(t *testing.T) {
	p := certtest.New(t, nil, "x")
	open, err := ssh.MarshalPrivateKey(p.Key, "")
	certtest.Must(t, err)
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(p.Key, "", []byte("secret"))
	certtest.Must(t, err)
	for name, block := range map[string]*pem.Block{"open": open, "locked": locked} {
		parts := audittest.Parts(pem.EncodeToMemory(block))
		if len(parts) != 1 || !p.Key.PublicKey.Equal(parts[0].Key) || parts[0].Locked != (name == "locked") {
			t.Errorf("%s: %+v", name, parts)
		}
		for n := range block.Bytes[:100] {
			if got := audittest.Describe(audittest.Parts(certtest.Block("OPENSSH PRIVATE KEY", block.Bytes[:n]))); !strings.HasPrefix(got, "error: the private key is damaged") {
				t.Fatalf("%d bytes: %s", n, got)
			}
		}
	}
}

// Contract: any line gives a document or an error, never both and never neither.
func FuzzSSH(f *testing.F) {
	p := certtest.New(f, nil, "x")
	f.Add(sshCertificate(f, p, nil))
	block, err := ssh.MarshalPrivateKey(p.Key, "")
	certtest.Must(f, err)
	f.Add(pem.EncodeToMemory(block))
	f.Fuzz(func(t *testing.T, data []byte) {
		format := format.Sniff(data)
		if format != "SSH" && !bytes.Contains(data, []byte("OPENSSH")) {
			return
		}
		for _, part := range audittest.Parts(data) {
			if format == "SSH" && part.Doc == (part.Err != nil) {
				t.Errorf("%+v", part)
			}
		}
	})
}
