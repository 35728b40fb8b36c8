// Package storage is a service with a test that uses a real authority: which
// peers get in is decided by certificates that were really issued.
package storage

import (
	"context"
	"net"
	"net/http"

	"github.com/artstore/artstore-pki/rotation"
)

// Serve answers health checks of the ingester until ctx ends. Nobody else may connect.
func Serve(ctx context.Context, identity *rotation.Identity, listener net.Listener) error {
	server, err := identity.Server(rotation.ServerOptions{Authorize: rotation.AllowNames("ingester")})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	return server.Serve(ctx, listener, mux)
}
