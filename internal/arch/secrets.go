package arch

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Finding is a tracked file that holds material that must never be in a repository, or has the
// name of such a file. It never quotes the material.
type Finding struct {
	Path string
	Line int // 1-based; 0 when the whole file is meant
	What string
}

func (f Finding) String() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s: %s", f.Path, f.What)
	}
	return fmt.Sprintf("%s:%d: %s", f.Path, f.Line, f.What)
}

// names are refused whatever the files hold, because an empty tls.key that is tracked today may
// hold a key tomorrow.
var names = regexp.MustCompile(`(?i)(\.(key|pem|p12|pfx|jks|crt|cer|der|csr|jwk|jwe|env)|(^|/)(id_(rsa|ecdsa|ed25519)|password|\.env|\.netrc))$`)

// patterns match a marker with a body. Code that reads, writes or refuses a format contains its
// markers, and only material has a body. Therefore this file needs no exception.
var patterns = []struct {
	what string
	re   *regexp.Regexp
}{
	{"a private key in PEM", regexp.MustCompile(`-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----` + gap + `([A-Za-z-]+: [^\n]*` + gap + `)*[A-Za-z0-9+/=]{32}`)},
	{"a certificate or request in PEM", regexp.MustCompile(`-----BEGIN [A-Z0-9 ]*CERTIFICATE( REQUEST)?-----` + gap + `[A-Za-z0-9+/=]{32}`)},
	{"a private or symmetric JWK", regexp.MustCompile(`\\?"(d|k)\\?"\s*:\s*\\?"[A-Za-z0-9_-]{40,}`)},
	{"a token or encrypted key (compact JOSE)", regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}`)},
	{"a password hash (bcrypt)", regexp.MustCompile(`\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}`)},
}

// gap matches the text between a marker and a body: line ends, real or escaped, indentation, and
// the quotes and plus signs of string literals.
const gap = "(?:\\\\[nr]|[\\s\"'`+,\\\\])*"

// Scan looks into one file; path is what findings name. It never fails: every
// sequence of bytes either holds something known or does not.
func Scan(path string, content []byte) []Finding {
	var out []Finding
	if names.MatchString(filepath.ToSlash(path)) {
		out = append(out, Finding{Path: path, What: "a name for keys and certificates; make them when a test runs"})
	}
	for _, p := range patterns {
		for _, at := range p.re.FindAllIndex(content, -1) {
			line := 1 + bytes.Count(content[:at[0]], []byte("\n"))
			out = append(out, Finding{Path: path, Line: line, What: p.what})
		}
	}
	if what := derKind(content); what != "" {
		out = append(out, Finding{Path: path, What: what})
	}
	return out
}

// derKind recognises a file that is, as a whole, key or certificate in DER.
func derKind(b []byte) string {
	if len(b) < 2 || b[0] != 0x30 { // not an ASN.1 SEQUENCE
		return ""
	}
	if _, err := x509.ParseCertificate(b); err == nil {
		return "a certificate in DER"
	}
	_, pkcs8 := x509.ParsePKCS8PrivateKey(b)
	_, sec1 := x509.ParseECPrivateKey(b)
	_, pkcs1 := x509.ParsePKCS1PrivateKey(b)
	if pkcs8 == nil || sec1 == nil || pkcs1 == nil {
		return "a private key in DER"
	}
	return ""
}

// ScanTree scans what git tracks under root and what it would track with the
// next `git add`; where root is no work tree (an unpacked archive), all files.
// Errors are those of listing and reading.
func ScanTree(ctx context.Context, root string) ([]Finding, error) {
	list := allFiles
	// A file in linked work trees, a directory elsewhere. Asking git itself would
	// find the repository around an archive unpacked inside another one.
	if _, err := os.Stat(filepath.Join(root, ".git")); err == nil {
		list = trackedFiles
	}
	files, err := list(ctx, root)
	if err != nil {
		return nil, fmt.Errorf("listing files: %w", err)
	}
	var out []Finding
	for _, name := range files {
		content, err := readTracked(filepath.Join(root, name))
		if err != nil {
			return nil, fmt.Errorf("scanning: %w", err)
		}
		out = append(out, Scan(name, content)...)
	}
	return out, nil
}

// readTracked reads what git stores for the name: the target's path for a
// symbolic link, nothing for a submodule or for a file just removed.
func readTracked(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		return []byte(target), err
	case !info.Mode().IsRegular():
		return nil, nil
	}
	return os.ReadFile(path)
}

func trackedFiles(ctx context.Context, root string) ([]string, error) {
	cmd := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	var said bytes.Buffer
	cmd.Stderr = &said // git says what to do where it distrusts the owner of a directory
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("running git ls-files in %s: %w: %s", root, err, bytes.TrimSpace(said.Bytes()))
	}
	// -z, because git quotes unusual names otherwise, and those open nothing.
	files := strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 })
	slices.Sort(files) // a name in conflict is listed once per stage
	return slices.Compact(files), nil
}

func allFiles(_ context.Context, root string) ([]string, error) {
	var files []string
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, name)
		}
		return err
	})
	return files, err
}
