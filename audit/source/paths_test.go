//go:build unix

package source_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/source"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

func TestDirectory(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	_, _, other := certtest.Hierarchy(t)
	expired := certtest.New(t, intermediate, "old", certtest.Lives(2*certtest.Day, certtest.Day))
	dir := certtest.Write(t, map[string][]byte{
		"ca.crt":               certtest.Encode(root),
		"good/tls.crt":         certtest.Encode(leaf, intermediate),
		"good/tls.key":         leaf.KeyPEM(t),
		"mismatch/cert.pem":    certtest.Encode(leaf, intermediate),
		"mismatch/key.pem":     other.KeyPEM(t),
		"combined/all.pem":     append(leaf.KeyPEM(t), certtest.Encode(leaf, intermediate)...),
		"alone/svc.crt":        certtest.Encode(leaf),
		"foreign/svc-cert.pem": certtest.Encode(other),
		"old/fullchain.pem":    certtest.Encode(expired, intermediate),
		"old/privkey.pem":      expired.KeyPEM(t),
		"der/svc.der":          leaf.Cert.Raw,
		"nothing/config.yaml":  []byte("tls: on\n"),
		"nothing/request.pem":  certtest.Block("CERTIFICATE REQUEST", []byte("x")),
		"bad/empty.crt":        nil,
		"bad/cut.crt":          certtest.Encode(leaf)[:200],
		"bad/binary.crt":       {0, 1, 2, 3, 0xff},
		"bad/cut.key":          leaf.KeyPEM(t)[:100],
		"bad/garbled.key":      certtest.Block("PRIVATE KEY", []byte("not DER")),
		"bad/locked.key":       certtest.Block("ENCRYPTED PRIVATE KEY", []byte("x")),
		"bad/garbled.pem":      certtest.Block("CERTIFICATE", []byte("not DER")),
		"bad/half.pem":         append(certtest.Encode(leaf, intermediate), certtest.Encode(other)[:100]...),
		"README":               []byte("-----BEGIN PGP MESSAGE-----"),
	})
	certtest.Must(t, os.Chmod(filepath.Join(dir, "good/tls.key"), 0o644))
	certtest.Must(t, os.Symlink("nowhere", filepath.Join(dir, "bad/broken.crt")))
	certtest.Must(t, syscall.Mkfifo(filepath.Join(dir, "bad/fifo.crt"), 0o600)) // opening it would wait for ever
	certtest.Must(t, os.Symlink("..", filepath.Join(dir, "bad/loop")))
	r := audittest.Run(t, audittest.Paths(dir))
	got := audittest.States(t, r, dir)
	if p := "bad/garbled.pem"; !strings.HasPrefix(got[p], "ERROR parsing the certificate: ") {
		t.Errorf("%s: %s", p, got[p])
	} else {
		delete(got, p)
	}
	audittest.Want(t, got, map[string]string{
		"ca.crt":               "OK",
		"nothing/request.pem":  "OK", // named, for its name promises a certificate
		"alone/svc.crt":        "CRIT chain-incomplete",
		"bad/cut.key":          "ERROR block 1 is damaged or cut off",
		"bad/garbled.key":      "ERROR the private key is damaged or of an unsupported kind",
		"bad/locked.key":       "OK key-not-compared",
		"bad/binary.crt":       "ERROR it is neither PEM nor a certificate in DER",
		"bad/broken.crt":       "ERROR no such file or directory",
		"bad/fifo.crt":         "ERROR it is no regular file",
		"bad/cut.crt":          "ERROR block 1 is damaged or cut off",
		"bad/empty.crt":        "ERROR the file is empty",
		"bad/half.pem":         "OK",
		"bad/half.pem#3":       "ERROR block 3 is damaged or cut off",
		"combined/all.pem#2":   "OK",
		"bad/half.pem#2":       "OK", // the intermediate: one row, wherever it lies
		"der/svc.der":          "CRIT chain-incomplete",
		"foreign/svc-cert.pem": "CRIT chain-incomplete",
		"good/tls.crt":         "WARN key-readable",
		"mismatch/cert.pem":    "CRIT key-mismatch",
		"old/fullchain.pem":    "EXPIRED expired",
	})
	crit, unchecked := r.Count(audit.Crit)
	if notFine, _ := r.Count(audit.Warn); crit != 5 || notFine != 6 || unchecked != 9 {
		t.Errorf("%d critical, %d not fine, %d unchecked", crit, notFine, unchecked)
	}
	for _, row := range r.Rows {
		if row.Cert != nil && row.Cert.X509().IsCA && row.Cert.X509().Subject.CommonName == "Test Intermediate" && len(row.Also) != 4 {
			t.Errorf("the intermediate is also in %v", row.Also)
		}
	}
}

func TestNamedFiles(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	dir := certtest.Write(t, map[string][]byte{
		"tls.crt": certtest.Encode(leaf, intermediate), "tls.key": leaf.KeyPEM(t), "ca.crt": certtest.Encode(root),
		"notes.txt": []byte("hello"), "request.pem": certtest.Block("CERTIFICATE REQUEST", []byte("x")), "none/x": nil,
	})
	certtest.Must(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	at := func(name string) string { return filepath.Join(dir, name) }
	r := audittest.Run(t, audittest.Paths(at("tls.crt"), at("tls.key"), at("notes.txt"), at("request.pem"), at("absent"), at("fifo"), at("none")))
	audittest.Want(t, audittest.States(t, r, dir), map[string]string{
		"tls.crt": "OK", "tls.crt#2": "OK",
		"tls.key":     "OK",
		"notes.txt":   "ERROR it is neither PEM nor a certificate in DER",
		"request.pem": "ERROR there is no certificate in it",
		"absent":      "ERROR no such file or directory",
		"fifo":        "ERROR it is no regular file",
		"none":        "ERROR there is no certificate in this directory",
	})
	if r.Unjudged != 0 {
		t.Error("ca.crt beside the file was not found")
	}
	// A bundle that is given goes before the one that lies there.
	_, _, other := certtest.Hierarchy(t)
	r = audittest.Run(t, source.Targets{Names: []string{at("tls.crt")}, Bundle: certtest.Bundle([]*certtest.Pair{other.Issuer.Issuer})})
	if got := audittest.States(t, r, dir)["tls.crt"]; got != "CRIT untrusted" {
		t.Error(got)
	}
}

// A file that cannot be read is a row. Root can read each ordinary file, so the test uses a
// file of the kernel that refuses reading.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	certtest.Must(t, os.Symlink("/proc/self/mem", filepath.Join(dir, "disk.crt")))
	audittest.Want(t, audittest.States(t, audittest.Run(t, audittest.Paths(dir)), dir), map[string]string{"disk.crt": "ERROR input/output error"})
}

func TestTooLarge(t *testing.T) {
	dir := certtest.Write(t, map[string][]byte{"huge.pem": []byte("-----BEGIN ")})
	certtest.Must(t, os.Truncate(filepath.Join(dir, "huge.pem"), 8<<30)) // sparse
	audittest.Want(t, audittest.States(t, audittest.Run(t, audittest.Paths(dir)), dir), map[string]string{"huge.pem": "ERROR it is larger than 32 MiB"})
}

// Kubernetes and package enroll keep generations beside each other behind a link. Each file has
// one row, under the name that programs use, and replaced generations are no finding.
func TestGenerations(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	old := certtest.New(t, intermediate, "ingester", certtest.Lives(2*certtest.Day, certtest.Day))
	dir := certtest.Write(t, map[string][]byte{
		"k8s/..2026_01_01/tls.crt": certtest.Encode(old, intermediate), "k8s/..2026_01_01/tls.key": old.KeyPEM(t),
		"k8s/..2026_02_02/tls.crt": certtest.Encode(leaf, intermediate), "k8s/..2026_02_02/tls.key": leaf.KeyPEM(t),
		"k8s/..2026_02_02/ca.crt": certtest.Encode(root),
		"bare/v-1/tls.crt":        certtest.Encode(old, intermediate),
		"bare/v-2/tls.crt":        certtest.Encode(leaf, intermediate),
		"bare/other/tls.crt":      certtest.Encode(leaf, intermediate),
	})
	for link, to := range map[string]string{
		"k8s/..data": "..2026_02_02", "k8s/tls.crt": "..data/tls.crt", "k8s/tls.key": "..data/tls.key", "k8s/ca.crt": "..data/ca.crt",
		"bare/live": "v-2",
	} {
		certtest.Must(t, os.Symlink(to, filepath.Join(dir, link)))
	}
	r := audittest.Run(t, audittest.Paths(dir))
	// No file is reached through bare/live, so that it says nothing about v-1.
	audittest.Want(t, audittest.States(t, r, dir), map[string]string{
		"k8s/tls.crt": "OK", "k8s/ca.crt": "OK", "bare/v-1/tls.crt": "EXPIRED expired", "bare/v-2/tls.crt": "OK", "bare/other/tls.crt": "OK",
		"bare/other/tls.crt#2": "OK",
	})
	var table strings.Builder
	certtest.Must(t, r.WriteTable(&table, 0))
	if want := "\nleft out: links to what is seen elsewhere (2), replaced generations (1)\n"; !strings.Contains(table.String(), want) {
		t.Errorf("got\n%s", table.String())
	}
}

// The files of an identity that is swapped all the time are always of one generation.
func TestLiveDirectory(t *testing.T) {
	root, intermediate, _ := certtest.Hierarchy(t)
	dir := t.TempDir()
	swap := func() {
		leaf := certtest.New(t, intermediate, "ingester")
		certtest.Must(t, enroll.WriteFiles(dir, rotation.Material{Certificate: leaf.TLS(intermediate), Roots: certtest.Bundle([]*certtest.Pair{root})}))
	}
	swap()
	stop := make(chan struct{})
	var swapping sync.WaitGroup
	defer func() { close(stop); swapping.Wait() }()
	swapping.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				swap()
			}
		}
	})
	for n := range 200 {
		what, rows := dir, 3
		if n%2 == 1 {
			what, rows = filepath.Join(dir, "tls.crt"), 2
		}
		r := audittest.Run(t, audittest.Paths(what))
		if findings, unchecked := r.Count(audit.Warn); findings+unchecked > 0 || len(r.Rows) != rows {
			t.Fatalf("%s: %v", what, audittest.States(t, r, dir))
		}
	}
}

func TestCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := audittest.Judge(ctx, audit.Config{Sources: []audit.Source{audittest.Paths(t.TempDir())}, Now: time.Now}); err == nil {
		t.Errorf("%+v", r)
	}
}
