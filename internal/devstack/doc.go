// Package devstack is a reference Admin Module and a reference Storage Element
// for tests, demos and development. They do what the real services do: tokens are
// signed and verified, secrets are hashed, files are on disk with their SHA-256. They
// are made for few accounts and files.
//
//	admin, err := devstack.NewAdmin(devstack.AdminConfig{Dir: "admin"})
//	id, clientSecret, err := admin.AddAccount("ingester")
//	storage, err := devstack.NewStorage(devstack.StorageConfig{Dir: "storage",
//		JWKSURL: adminURL + devstack.JWKSPath, JWKSTransport: identity.Transport(...)})
//	go admin.Run(ctx)   // replaces signing keys
//	go storage.Run(ctx) // keeps the key set fresh
//	httpserver.Serve(ctx, ln, httpserver.Config{Handler: storage.Handler(), Server: server})
//
// Both speak the two dialects of ArtStore. The Python one asks for tokens with a
// JSON object and answers errors as {"detail": …}; the Go one asks as RFC 6749
// says, through Keycloak, and answers {"error": {"code": …, "message": …}}. Where
// the real services have a fault (a token endpoint that echoes secrets, a Storage
// Element that accepts every client when it cannot read its CA), these two do not
// copy it.
//
// # Promises
//
//   - Without a key set no token is accepted. A token that is bound to a certificate
//     (RFC 8705 §3) is refused over a connection with another one; the two are compared
//     on every request, also where the signature was verified before.
//   - The token is judged before the first byte of the body is read.
//   - A file that was acknowledged survives a crash, whole; what was not
//     acknowledged is gone after a restart and its room is free again.
//   - A signing key is published for a whole rotation period before it signs, and
//     its public half for a token's lifetime after it stopped.
//   - Memory does not grow with the size of files.
//
// # Rules
//
// Handlers do no TLS themselves: serve them with a rotation.Server, which requires
// client certificates and is told who may connect, or with [BehindProxy] behind a
// proxy that does both. One directory belongs to one
// service of one process. Constructors start no goroutines; Run blocks.
package devstack
