package catest_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// testStorage is a test as your package would have it, with the name TestStorage.
// Certificates of a real authority decide which client is accepted.
func testStorage(t *testing.T) {
	authority := catest.Start(t, catest.Options{})
	server, err := enrolled(t, authority, "storage-element").Server(rotation.ServerOptions{Authorize: rotation.AllowNames("ingester")})
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewUnstartedServer(server.Handler(http.NotFoundHandler())) // your handler
	ts.Listener, ts.Config.ConnContext = server.Listener(ts.Listener), server.ConnContext
	ts.Start()
	defer ts.Close()

	for service, admitted := range map[string]bool{"ingester": true, "query-module": false} {
		transport, err := enrolled(t, authority, service).Transport(rotation.TransportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		client := &http.Client{Transport: transport}
		resp, err := client.Get("https://" + ts.Listener.Addr().String())
		if (err == nil) != admitted {
			t.Errorf("%s: %v", service, err)
		}
		if err == nil {
			_ = resp.Body.Close()
		}
	}
	authority.Check(t)
}

// enrolled returns an identity, which it gets as a service does at its start.
func enrolled(t *testing.T, authority *catest.CA, service string) *rotation.Identity {
	src, err := enroll.New(enroll.Config{
		URL: authority.URL, RootFingerprint: authority.RootFingerprint, InMemory: true,
		Token: func(context.Context) (secret.String, error) { return authority.Token(t, service), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	id, err := rotation.Open(t.Context(), rotation.Config{Source: src})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = id.Close() })
	return id
}

// A test against a real authority.
func Example() {
	_ = testStorage
}
