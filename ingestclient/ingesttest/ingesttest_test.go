package ingesttest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"net/http"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/secret"
)

func newClient(t *testing.T, s *ingesttest.Stack) *ingestclient.Client {
	t.Helper()
	c, err := ingestclient.New(s.Config(), s.Identity)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// TestUploadAcrossRotations uploads in both dialects, over rotations of the client's
// certificate and of the key that signs its tokens, and compares the stored files.
func TestUploadAcrossRotations(t *testing.T) {
	for _, dialect := range []string{"python", "go"} {
		t.Run(dialect, func(t *testing.T) {
			s := ingesttest.Start(t, ingesttest.Options{Dialect: dialect})
			c := newClient(t, s)
			for i, change := range []func(testing.TB){func(testing.TB) {}, s.RotateClient, s.RotateSigningKey, s.RotateClient} {
				change(t)
				data := bytes.Repeat([]byte{byte(i)}, 100_000*i)
				rec, err := c.Upload(t.Context(), ingestclient.ReaderContent("file.bin", bytes.NewReader(data), int64(len(data))), ingestclient.Meta{})
				if err != nil {
					t.Fatalf("upload %d: %v", i+1, err)
				}
				if !bytes.Equal(s.Content(t, rec.FileID), data) {
					t.Errorf("upload %d: other content is stored", i+1)
				}
			}
			if got := len(s.Files()); got != 4 {
				t.Errorf("%d files are stored, want 4", got)
			}
		})
	}
}

func TestFaultsStrikeTheClient(t *testing.T) {
	s := ingesttest.Start(t, ingesttest.Options{Dialect: "go", MaxFileSize: 1000})
	c := newClient(t, s)
	upload := func(data string) error {
		_, err := c.Upload(t.Context(), ingestclient.ReaderContent("f", strings.NewReader(data), int64(len(data))), ingestclient.Meta{})
		return err
	}
	s.SetFaults(t, ingesttest.Fault{Kind: "status", Status: http.StatusUnauthorized, Count: 1})
	if err := upload("x"); err != nil {
		t.Errorf("one 401: %v", err)
	}
	s.SetFaults(t, ingesttest.Fault{Kind: "status", Status: http.StatusInsufficientStorage})
	if err := upload("x"); err == nil {
		t.Error("a full Storage Element took a file")
	}
	if got := s.Fired()["status"]; got < 2 {
		t.Errorf("%d faults struck, want 2 at least", got)
	}
	s.SetFaults(t)
	if err := upload(strings.Repeat("x", 2000)); err == nil {
		t.Error("a file above the limit was taken")
	}
	if err := upload("y"); err != nil {
		t.Error(err)
	}
}

func TestCredentialsCanBeWithdrawn(t *testing.T) {
	s := ingesttest.Start(t, ingesttest.Options{})
	fresh := s.ResetSecret(t)
	conf := s.Config()
	conf.ClientSecret = func(context.Context) (secret.String, error) { return fresh, nil }
	c, err := ingestclient.New(conf, s.Identity)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Upload(t.Context(), ingestclient.ReaderContent("f", strings.NewReader(""), 0), ingestclient.Meta{}); err != nil {
		t.Errorf("the new secret: %v", err)
	}
	s.Suspend(t)
	if _, err := newClient(t, s).Upload(t.Context(), ingestclient.ReaderContent("f", strings.NewReader(""), 0), ingestclient.Meta{}); err == nil {
		t.Error("a suspended account uploaded")
	}
}

// TestOwnTLS uses certificates of the caller.
func TestOwnTLS(t *testing.T) {
	ca := ingesttest.NewCA(t)
	conf := func(name string) *tls.Config {
		id, err := rotation.Open(t.Context(), rotation.Config{Source: rotation.Static(ca.Material(t, name))})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = id.Close() })
		c, err := id.ServerTLSConfig(rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	id, err := rotation.Open(t.Context(), rotation.Config{Source: rotation.Static(ca.Material(t, "mine"))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = id.Close() })
	tr, err := id.Transport(rotation.TransportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close() })
	s := ingesttest.Start(t, ingesttest.Options{AdminTLS: conf("a"), StorageTLS: conf("b"), JWKSTransport: tr, Unbound: true})
	c, err := ingestclient.New(s.Config(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Upload(t.Context(), ingestclient.ReaderContent("f", strings.NewReader("x"), 1), ingestclient.Meta{}); err != nil {
		t.Error(err)
	}
	if ca.Root().Subject.CommonName == "" || s.CA == ca {
		t.Error("the stack's own authority is another one")
	}
}
