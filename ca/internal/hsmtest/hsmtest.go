// Package hsmtest makes a token of SoftHSM for tests: a PKCS #11 module whose keys are files.
// Only tests import it, with the build tag pkcs11.
//
//	uri := hsmtest.Token(t) // pkcs11:module-path=…;token=pki?pin-source=…
//
// A process has one token, because a module reads its configuration once and is never closed
// (package keystore). Tests name their keys apart. Without SoftHSM (Debian: softhsm2) a test
// fails: who builds with the tag wants to know.
package hsmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// modules are where distributions have the module.
var modules = []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so"}

const pin = "4711-for-tests"

// token is made by the first test that asks for it.
var token = sync.OnceValues(func() (uri string, err error) {
	dir, err := os.MkdirTemp("", "hsmtest-") // the system removes it: the module has it open until the process ends
	if err != nil {
		return "", err
	}
	files := map[string]string{"softhsm2.conf": "directories.tokendir = " + dir + "\nlog.level = ERROR\n", "pin": pin + "\n"}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil { //nolint:forbidigo // no crash is to be survived
			return "", err
		}
	}
	if err := os.Setenv("SOFTHSM2_CONF", filepath.Join(dir, "softhsm2.conf")); err != nil {
		return "", err
	}
	args := []string{"--init-token", "--free", "--label", "pki", "--pin", pin, "--so-pin", pin}
	if out, err := exec.Command("softhsm2-util", args...).CombinedOutput(); err != nil { // it ends at once
		return string(out), err
	}
	for _, m := range modules {
		if _, err := os.Stat(m); err == nil {
			return "pkcs11:module-path=" + m + ";token=pki?pin-source=" + filepath.Join(dir, "pin"), nil
		}
	}
	return strings.Join(modules, ", "), os.ErrNotExist
})

// Token returns the URI of the token of this process, with its PIN file.
func Token(t testing.TB) string {
	t.Helper()
	uri, err := token()
	if err != nil {
		t.Fatalf("making a token (packages softhsm2): %v: %s", err, uri)
	}
	return uri
}
