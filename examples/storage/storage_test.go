package storage

import (
	"context"
	"net"
	"net/http"
	"testing"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

func TestServe(t *testing.T) {
	authority := catest.Start(t, catest.Options{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	storage := open(t, authority, "storage-element")
	go func() { served <- Serve(ctx, storage, listener) }()

	for service, admitted := range map[string]bool{"ingester": true, "query-module": false} {
		transport, err := open(t, authority, service).Transport(rotation.TransportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		client := &http.Client{Transport: transport}
		resp, err := client.Get("https://" + listener.Addr().String() + "/health")
		if (err == nil) != admitted {
			t.Errorf("%s: %v", service, err)
		}
		if err == nil {
			_ = resp.Body.Close()
		}
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	authority.Check(t) // the record, the files and the log agree
}

// open enrols a service and returns its identity, which lives in memory.
func open(t *testing.T, authority *catest.CA, service string) *rotation.Identity {
	t.Helper()
	source, err := enroll.New(enroll.Config{
		URL: authority.URL, RootFingerprint: authority.RootFingerprint, InMemory: true,
		Token: func(context.Context) (secret.String, error) { return authority.Token(t, service), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	identity, err := rotation.Open(t.Context(), rotation.Config{Source: source})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = identity.Close() })
	return identity
}
