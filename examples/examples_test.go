// Package examples builds and runs the programs beside it.
package examples

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
)

// build returns a directory with the three programs.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", dir, "./server", "./client", "./uploader")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	return dir
}

func TestPrograms(t *testing.T) {
	programs := build(t)
	t.Run("server and client", func(t *testing.T) { serverAndClient(t, programs) })
	t.Run("uploader", func(t *testing.T) { uploader(t, programs) })
}

func serverAndClient(t *testing.T, programs string) {
	authority := catest.Start(t, catest.Options{})
	dir := t.TempDir()
	flags := func(service string) []string {
		token := filepath.Join(dir, service+".token")
		write(t, token, []byte(authority.Token(t, service).Expose()))
		return []string{"--ca", authority.URL, "--token", token, "--dir", filepath.Join(dir, service)}
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	server := exec.CommandContext(ctx, filepath.Join(programs, "server"), append(flags("storage-element"), "--listen", "127.0.0.1:0", "--allow", "ingester")...)
	server.Cancel = func() error { return server.Process.Signal(os.Interrupt) }
	server.Stderr = os.Stderr
	out, err := server.StdoutPipe()
	must(t, err)
	must(t, server.Start())
	defer func() {
		stop()
		_ = server.Wait() // it says that it was cancelled
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	url := "https://" + strings.TrimSpace(strings.TrimPrefix(line, "listening on "))

	client := func(service string) (string, error) {
		out, err := exec.CommandContext(ctx, filepath.Join(programs, "client"), append(flags(service), url)...).Output()
		return string(out), err
	}
	for range 2 { // the second time with the certificate of the first
		if out, err := client("ingester"); err != nil || out != "hello, ingester\n" {
			t.Errorf("the ingester: %q, %v", out, err)
		}
	}
	if out, err := client("query-module"); err == nil {
		t.Errorf("a peer that is not allowed got in: %q", out)
	}
	authority.Check(t)
}

func uploader(t *testing.T, programs string) {
	stack := ingesttest.Start(t, ingesttest.Options{})
	dir := t.TempDir()
	m := stack.CA.Material(t, "ingester")
	key, err := x509.MarshalPKCS8PrivateKey(m.Certificate.PrivateKey)
	must(t, err)
	for name, block := range map[string]pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: m.Certificate.Certificate[0]},
		"tls.key": {Type: "PRIVATE KEY", Bytes: key},
		"ca.crt":  {Type: "CERTIFICATE", Bytes: m.Roots[0].Raw},
	} {
		write(t, filepath.Join(dir, name), pem.EncodeToMemory(&block))
	}
	write(t, filepath.Join(dir, "secret"), []byte(stack.ClientSecret.Expose()))
	write(t, filepath.Join(dir, "scan.tif"), []byte("content"))

	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, filepath.Join(programs, "uploader"), "--token-url", stack.TokenURL, "--client-id", stack.ClientID,
		"--secret-file", "secret", "--element", stack.StorageURL, "--identity", ".", "scan.tif")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.Output()
	if err != nil || !strings.HasPrefix(string(out), "scan.tif: 7 bytes as ") {
		t.Errorf("%q, %v", out, err)
	}
	if files := stack.Files(); len(files) != 1 || string(stack.Content(t, files[0].ID)) != "content" {
		t.Errorf("stored: %+v", files)
	}
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	must(t, os.WriteFile(path, content, 0o600))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
