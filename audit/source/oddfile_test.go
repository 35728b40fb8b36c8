package source_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/source"
)

// found returns the text of the finding of one check for each place.
func found(r *audittest.Report, dir, check string) map[string]string {
	out := map[string]string{}
	for _, row := range r.Rows {
		for _, f := range row.Findings {
			if f.Check == check {
				place, _ := filepath.Rel(dir, row.Place)
				out[place] += strings.TrimPrefix(" "+f.Severity.String()+" "+f.Text, " ")
			}
		}
	}
	return out
}

func TestOddFiles(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	chain, key, bundle := certtest.Encode(leaf, intermediate), leaf.KeyPEM(t), certtest.Encode(root)
	wide := func(b []byte) []byte { return audittest.UTF16(binary.LittleEndian, true, b) }
	gap := func(b []byte) []byte {
		return append(bytes.Clone(b[:len(b)-60]), append([]byte("\n\n"), b[len(b)-60:]...)...)
	}
	asJSON, err := json.Marshal(string(chain))
	certtest.Must(t, err)
	type files = map[string][]byte
	for name, c := range map[string]struct {
		files files
		want  map[string]string
	}{
		"nothing odd":         {files{"ca.crt": bundle, "tls.crt": chain, "tls.key": key}, nil},
		"a chain":             {files{"tls.crt": wide(chain), "tls.key": key}, map[string]string{"tls.crt": "crit neither OpenSSL nor Go reads block 1: the file is in UTF-16"}},
		"a chain without key": {files{"tls.crt": wide(chain)}, map[string]string{"tls.crt": "warn neither OpenSSL nor Go reads block 1: the file is in UTF-16"}},
		"its second block":    {files{"tls.crt": gap(chain), "tls.key": key}, map[string]string{"tls.crt": "warn OpenSSL does not read block 2: there is a line without text in it"}},
		"its key":             {files{"tls.crt": chain, "tls.key": wide(key)}, map[string]string{"tls.crt": "crit in the file of its key neither OpenSSL nor Go reads block 1: the file is in UTF-16"}},
		"a bundle":            {files{"ca.crt": root.Cert.Raw, "tls.crt": chain}, map[string]string{"ca.crt": "warn it is DER, and servers and clients read PEM"}},
		"a chain in DER":      {files{"tls.crt": leaf.Cert.Raw, "tls.key": key}, map[string]string{"tls.crt": "warn it is DER, and servers and clients read PEM"}},
		"an old label":        {files{"ca.pem": certtest.Block("X509 CERTIFICATE", root.Cert.Raw)}, map[string]string{"ca.pem": "warn Go does not read block 1: its label is X509 CERTIFICATE"}},
		"another one":         {files{"ca.pem": certtest.Block("X.509 CERTIFICATE", root.Cert.Raw)}, map[string]string{"ca.pem": "crit neither OpenSSL nor Go reads block 1: its label is X.509 CERTIFICATE"}},
		"a root that is not trusted": {files{"ca.pem": certtest.Block("TRUSTED CERTIFICATE", append(bytes.Clone(root.Cert.Raw), 0x30, 2, 0x30, 0))},
			map[string]string{"ca.pem": "crit Go does not read block 1: its label is TRUSTED CERTIFICATE; OpenSSL does not trust it for TLS servers; OpenSSL does not trust it for TLS clients"}},
		"the same root, odd in one place": {files{"ca.crt": bundle, "x/ca.crt": wide(bundle), "x/tls.crt": certtest.Encode(root)},
			map[string]string{"x/ca.crt": "crit neither OpenSSL nor Go reads block 1: the file is in UTF-16"}},
		"documents": {files{"a.json": asJSON, "b": append([]byte(`{"a":`), append(asJSON, '}')...), "c.env": append([]byte("CERT="), asJSON...),
			"d.der": leaf.Cert.Raw, "e.txt": wide(chain), "f.yaml": wide([]byte(audittest.SecretYAML("tls", "tls.crt", base64.StdEncoding.EncodeToString(chain))))}, nil},
		"in an object":          {files{"secret.yaml": []byte(audittest.SecretYAML("tls", "tls.crt", base64.StdEncoding.EncodeToString(wide(chain))))}, map[string]string{"secret.yaml#prod/tls:tls.crt": "warn neither OpenSSL nor Go reads block 1: the file is in UTF-16"}},
		"a document by mistake": {files{"tls.crt": asJSON}, map[string]string{"tls.crt": "warn neither OpenSSL nor Go reads block 1: it does not stand on lines of its own"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := certtest.Write(t, c.files)
			audittest.Want(t, found(audittest.Run(t, audittest.Paths(dir)), dir, "odd-file"), c.want)
		})
	}
}

// A bundle beside a named file has a row if its form is odd.
func TestOddBundleBeside(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	dir := certtest.Write(t, map[string][]byte{"ca.crt": audittest.UTF16(binary.BigEndian, false, certtest.Encode(root)), "tls.crt": certtest.Encode(leaf, intermediate, root)})
	got := found(audittest.Run(t, audittest.Paths(filepath.Join(dir, "tls.crt"))), dir, "odd-file")
	audittest.Want(t, got, map[string]string{"ca.crt": "crit neither OpenSSL nor Go reads block 1: the file is in UTF-16"})
}

func TestOddStandardInput(t *testing.T) {
	_, _, leaf := certtest.Hierarchy(t)
	asJSON, err := json.Marshal(map[string]string{"cert": string(certtest.Encode(leaf))})
	certtest.Must(t, err)
	for name, c := range map[string]struct {
		in   string
		want map[string]string
	}{
		"text": {"cert: " + string(certtest.Encode(leaf)), map[string]string{"-": "warn neither OpenSSL nor Go reads block 1: it does not stand on lines of its own"}},
		"JSON": {string(asJSON), nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := audittest.Run(t, source.Targets{Names: []string{"-"}, Stdin: strings.NewReader(c.in)})
			audittest.Want(t, found(r, "", "odd-file"), c.want)
		})
	}
}

// Oddities are found in a large file, whose text is overwritten while it is parsed.
func TestOddLargeFile(t *testing.T) {
	_, _, leaf := certtest.Hierarchy(t)
	one := certtest.Encode(leaf)
	many := bytes.Repeat(one, 1<<20/len(one)+1)
	dir := certtest.Write(t, map[string][]byte{"all.pem": append([]byte("\xef\xbb\xbf"), many...)})
	audittest.Want(t, found(audittest.Run(t, audittest.Paths(dir)), dir, "odd-file"), map[string]string{"all.pem": "warn Go does not read block 1: a byte order mark stands before it"})
}
