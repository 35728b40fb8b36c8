package enroll_test

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

// The Go code of README.md, which a test of the command compares with this file.

func serve(ctx context.Context, ln net.Listener, handler http.Handler) error {
	src, err := enroll.New(enroll.Config{
		URL:   "https://ca.internal:9443",
		Token: enroll.TokenFile("/run/secrets/enrolment-token"), // once; renewals use the certificate
		Dir:   "/var/lib/storage/identity",
	})
	if err != nil {
		return err
	}
	opening, cancel := context.WithTimeout(ctx, time.Minute) // for an authority that is away
	defer cancel()
	id, err := rotation.Open(opening, rotation.Config{Source: src}) // returns with the first certificate
	if err != nil {
		return err
	}
	defer func() { _ = id.Close() }()

	// TLS 1.3; a client certificate is required, and one of these names.
	server, err := id.Server(rotation.ServerOptions{Authorize: rotation.AllowNames("ingester")})
	if err != nil {
		return err
	}
	// With a limit on whatever a peer can make grow; until ctx ends, and requests under way finish.
	return httpserver.Serve(ctx, ln, httpserver.Config{Handler: handler, Server: server})
}

// Every request uses the certificate and the trust of the moment.
func client(id *rotation.Identity) (*http.Client, error) {
	transport, err := id.Transport(rotation.TransportOptions{})
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}, nil
}

func upload(ctx context.Context, id *rotation.Identity) (*ingestclient.File, error) {
	up, err := ingestclient.New(ingestclient.Config{
		TokenURL:     "https://admin:8000/api/v1/auth/token",
		ClientID:     "sa_prod_ingester_1a2b3c4d",
		ClientSecret: secret.File("/run/secrets/client-secret"), // read anew for each token
		Elements:     []ingestclient.Element{{URL: "https://storage:8010"}},
	}, id)
	if err != nil {
		return nil, err
	}
	defer func() { _ = up.Close() }() // in a program: one client for all files
	return up.UploadFile(ctx, "scan.tif", ingestclient.Meta{})
}

func Example_readme() {
	_, _, _ = serve, client, upload
}
