package acmesrv

import (
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/artstore/artstore-pki/ca/internal/problem"
)

// handler answers a verified request; its error becomes a problem document.
type handler func(s *session, w http.ResponseWriter, r *http.Request) error

// Routes adds the routes of the server. current is asked once for each request.
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

// unsignedRoute serves what needs no signature: the directory and nonces.
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

// signedRoute serves requests whose signature verifies.
func signedRoute(current func() *Server, h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		server := current()
		s, err := server.newSession(r)
		if s != nil { // every answer brings the nonce of the next request (RFC 8555 §6.5)
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
