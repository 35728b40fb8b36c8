package format

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/ssh"

	"github.com/artstore/artstore-pki/audit/cert"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// Certificates of OpenSSH (PROTOCOL.certkeys in its source) are not X.509, but they expire
// too, and nobody can log in with an expired one.

const (
	typeOpenSSH = "OPENSSH PRIVATE KEY"
	// maxSSHCertificates bounds how many certificates of one file are read.
	maxSSHCertificates = 1000
)

var (
	errBadSSH   = errors.New("the SSH certificate is damaged or of an unsupported kind")
	errManySSH  = fmt.Errorf("it has more than %d SSH certificates; the rest was not read", maxSSHCertificates)
	sshHead     = regexp.MustCompile(`^(\s*#[^\n]*\n|\s)*[a-z0-9@.-]+-cert-v01@openssh\.com [A-Za-z0-9+/]`)
	sshCertLine = regexp.MustCompile(`(?m)^[ \t]*[a-z0-9@.-]+-cert-v01@openssh\.com [^\n]*`)
)

// isSSH reports whether the first line that is no comment is a certificate of OpenSSH.
func isSSH(head []byte) bool { return sshHead.Match(head[:min(len(head), sniffed)]) }

// parseSSH reads certificates, one for each line.
func parseSSH(data []byte, _ *Context) (out []Part) {
	for i, line := range sshCertLine.FindAll(data, maxSSHCertificates+1) {
		if i == maxSSHCertificates {
			return append(out, Part{Block: i + 1, Err: errManySSH})
		}
		doc, err := readSSH(line)
		out = append(out, Part{Block: i + 1, Document: doc, Err: err})
	}
	return out
}

// readSSH reads one line: the type, the certificate in Base64, and a comment. The names of
// a certificate are its principals; a certificate without principals is valid for all of
// them. Its signature is not verified, because an audit does not know its authority.
func readSSH(line []byte) (*cert.Document, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey(line)
	c, ok := key.(*ssh.Certificate)
	if err != nil || !ok {
		return nil, errBadSSH
	}
	kind := map[uint32]string{ssh.HostCert: "host", ssh.UserCert: "user"}[c.CertType]
	d := &cert.Document{
		What: strings.TrimSpace(kind + " certificate of SSH"), Name: c.KeyId,
		From: sshTime(c.ValidAfter), Until: sshTime(c.ValidBefore),
	}
	if d.Name == "" {
		d.Name = strings.Join(c.ValidPrincipals, ", ")
	}
	names := strings.Join(c.ValidPrincipals, ", ")
	if names == "" {
		names = "everyone"
		d.Flaws = append(d.Flaws, cert.Flaw{Check: "no-san", Text: "it names nobody, so that it is valid for everyone"})
	}
	d.Add("names", "%s", names)
	d.Add("serial", "%d", c.Serial)
	d.Add("key", "%s %s", c.Key.Type(), ssh.FingerprintSHA256(c.Key))
	d.Add("issuer", "%s %s", c.SignatureKey.Type(), ssh.FingerprintSHA256(c.SignatureKey))
	d.Add("signature", "%s, not judged", c.Signature.Format)
	d.Add("only", "%s", strings.Join(slices.Sorted(maps.Keys(c.CriticalOptions)), ", "))
	return d, nil
}

// sshTime converts Unix seconds. It returns the zero time for "no limit", which is 0 for
// the beginning and 2^64-1 for the end, and for seconds after the year 9999.
func sshTime(seconds uint64) time.Time {
	if seconds == 0 || seconds > endOfTime {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0)
}

// parseOpenSSH reads the public half of a private key (PROTOCOL.key in the source of
// OpenSSH), which is never encrypted, and whether the private half is.
func parseOpenSSH(block *pem.Block) Part {
	p := Part{IsKey: true}
	var method, kdf, options, blob cryptobyte.String
	var keys uint32
	s := cryptobyte.String(bytes.TrimPrefix(block.Bytes, []byte("openssh-key-v1\x00")))
	if len(s) == len(block.Bytes) || len(s) > 2*pemfile.MaxKey || !sshString(&s, &method) || !sshString(&s, &kdf) ||
		!sshString(&s, &options) || !s.ReadUint32(&keys) || keys != 1 || !sshString(&s, &blob) {
		p.Err = errBadKey
		return p
	}
	p.Locked = string(method) != "none"
	if key, err := ssh.ParsePublicKey(blob); err == nil {
		if half, ok := key.(ssh.CryptoPublicKey); ok {
			p.Key = half.CryptoPublicKey()
		}
	}
	return p
}

// sshString reads a string: a length of four bytes, and the content (RFC 4251 §5).
func sshString(s, out *cryptobyte.String) bool {
	var n uint32
	return s.ReadUint32(&n) && n < math.MaxInt32 && s.ReadBytes((*[]byte)(out), int(n))
}
