package main

import (
	"os"
	"path/filepath"

	"github.com/artstore/artstore-pki/internal/fileperm"
	"github.com/artstore/artstore-pki/secret"
)

// readSecret reads a secret from a file and warns, once for each file, if others
// can read or replace it. It is no refusal: the secret is out already, and the
// command may be what puts it right.
func (u *ui) readSecret(path string) (secret.String, error) {
	u.warnOfExposed(path)
	return secret.ReadFile(path)
}

func (u *ui) warnOfExposed(path string) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() { // a pipe is as good as what writes to it
		return
	}
	u.warnOnce(fileperm.SecretFile(path), "a secret that others can read or replace")
}

// warnOfReplaceable warns if others can put other files into the place of an identity.
func (u *ui) warnOfReplaceable(dir string) {
	u.warnOnce(fileperm.Parents(filepath.Join(dir, "tls.crt")), "others can replace the identity in "+dir)
}

func (u *ui) warnOnce(findings []string, what string) {
	for _, text := range findings {
		line := what + ": " + text
		if _, said := u.warned.LoadOrStore(line, true); !said {
			u.say("warning: %s", line)
		}
	}
}
