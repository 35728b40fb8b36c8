package ui

import (
	"os"
	"path/filepath"

	"github.com/artstore/artstore-pki/internal/fileperm"
	"github.com/artstore/artstore-pki/secret"
)

// ReadSecret reads a secret from a file and warns, once for each file, if others can read or
// replace it. It does not refuse such a file: others may have read the secret already, and the
// command may be the one that replaces it (docs/design/0020-files-that-others-can-read.md).
func (u *UI) ReadSecret(path string) (secret.String, error) {
	u.WarnOfExposed(path)
	return secret.ReadFile(path)
}

// WarnOfExposed warns, once for each file, of a secret that others can read or replace. A pipe
// gets no warning: its content is up to the program that writes to it.
func (u *UI) WarnOfExposed(path string) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	u.WarnOnce(fileperm.SecretFile(path), "a secret that others can read or replace")
}

// WarnOfReplaceable warns if others can put other files into the place of an identity.
func (u *UI) WarnOfReplaceable(dir string) {
	u.WarnOnce(fileperm.Parents(filepath.Join(dir, "tls.crt")), "others can replace the identity in "+dir)
}

// WarnOnce prints a warning for each finding that it has not printed before.
func (u *UI) WarnOnce(findings []string, what string) {
	for _, text := range findings {
		line := what + ": " + text
		if _, said := u.warned.LoadOrStore(line, true); !said {
			u.Infof("warning: %s", line)
		}
	}
}
