package acmesrv

import (
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/artstore/artstore-pki/ca/internal/problem"
)

// handler answers a request. It writes nothing before it returns an error, because the
// error becomes a problem document (RFC 8555 §6.7).
type handler func(s *session, w http.ResponseWriter, r *http.Request) error

// Routes adds the routes of the server below [Prefix]. It calls current once for each
// request, so that a reload of the configuration does not change a request midway.
func Routes(r chi.Router, current func() *Server) {
	r.NotFound(func(w http.ResponseWriter, _ *http.Request) {
		problem.New(problem.Malformed, "ACME has no such address; the directory has them all").With(http.StatusNotFound).Write(w)
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) { // RFC 8555 §6.3
		problem.New(problem.Malformed, "%s is not the method of this address: ACME reads with POST-as-GET", r.Method).With(http.StatusMethodNotAllowed).Write(w)
	})
	r.Route("/{provisioner}", func(r chi.Router) {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			r.MethodFunc(method, "/directory", unsignedRoute(current, (*session).getDirectory))
			r.MethodFunc(method, "/new-nonce", unsignedRoute(current, (*session).getNonce))
			r.MethodFunc(method, "/renewal-info/{id}", unsignedRoute(current, (*session).getRenewalInfo))
		}
		for pattern, h := range map[string]handler{
			"/new-account":         (*session).postNewAccount,
			"/account/{id}":        (*session).postAccount,
			"/account/{id}/orders": (*session).postOrders,
			"/key-change":          (*session).postKeyChange,
			"/new-order":           (*session).postNewOrder,
			"/order/{id}":          (*session).postOrder,
			"/order/{id}/finalize": (*session).postFinalize,
			"/authz/{id}":          (*session).postAuthorization,
			"/challenge/{az}/{id}": (*session).postChallenge,
			"/certificate/{id}":    (*session).postCertificate,
			"/revoke-cert":         (*session).postRevoke,
		} {
			r.Post(pattern, signedRoute(current, h))
		}
	})
}

// unsignedRoute serves the resources that need no signature: the directory, nonces
// (RFC 8555 §6.3) and renewal information (RFC 9773 §4.1).
func unsignedRoute(current func() *Server, h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		server := current()
		s, err := server.newSession(r)
		if err == nil {
			err = h(s, w, r)
		}
		if err != nil {
			server.problem(w, r, err)
		}
	}
}

// signedRoute serves requests whose signature verifies. It adds the nonce before it looks
// at the request: a client whose nonce was refused repeats the request with the new one.
func signedRoute(current func() *Server, h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		server := current()
		s, err := server.newSession(r)
		if s != nil { // errors bring a nonce too (RFC 8555 §6.5)
			s.addNonce(w, r)
			w.Header().Add("Link", "<"+s.link("directory")+`>;rel="index"`) // RFC 8555 §7.1
		}
		if err == nil {
			err = s.verify(r)
		}
		if err == nil {
			server.sweep(r.Context())
			err = h(s, w, r)
		}
		if err != nil {
			server.problem(w, r, err)
		}
	}
}
