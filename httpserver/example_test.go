package httpserver_test

import (
	"context"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"

	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/rotation"
)

// A service of mutual TLS with limits: its certificate is replaced while it runs, and
// requests may finish when the program is told to end.
func ExampleServe() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := serveIdentity(ctx, rotation.Static(rotation.Material{}), http.NotFoundHandler()); err != nil {
		log.Print(err)
	}
}

func serveIdentity(ctx context.Context, source rotation.Source, h http.Handler) error {
	identity, err := rotation.Open(ctx, rotation.Config{Source: source})
	if err != nil {
		return err
	}
	defer func() { _ = identity.Close() }() // returns nil
	server, err := identity.Server(rotation.ServerOptions{Authorize: rotation.AllowNames("ingester")})
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", ":8443")
	if err != nil {
		return err
	}
	return httpserver.Serve(ctx, ln, httpserver.Config{Handler: h, Server: server})
}
