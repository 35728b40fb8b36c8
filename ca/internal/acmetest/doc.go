// Package acmetest runs an authority with ACME for tests, with the resolver, the web server
// and the TLS server that it asks for the answers of challenges. Only tests import it.
//
//	w := acmetest.Start(t, catest.Options{})
//	cl := w.Account(t)
//	cert := w.Obtain(t, cl, "http-01", "web.example")
//	w.Check(t)
//
// The client is that of golang.org/x/crypto/acme, which knows nothing of ours. [Raw] signs
// requests by hand, so that any part of one can be wrong.
package acmetest
