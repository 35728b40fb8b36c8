package acmesrv

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/smallstep/certificates/acme"
	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/internal/problem"
)

// session is one request, with the server that was current when it came.
type session struct {
	*Server
	base string      // common beginning of all addresses: https://host/acme/provisioner/
	call verifiedJWS // zero until verify has succeeded
}

// verifiedJWS is a request whose signature was verified.
type verifiedJWS struct {
	url     string           // of the request; the signature covers it
	kid     string           // address of the account, as the client wrote it; "" with jwk
	account *acme.Account    // nil for newAccount, and for revokeCert by the certificate's key
	key     *jose.JSONWebKey // the key that verified the signature
	payload []byte
}

// newSession begins a request. It refuses a host that is not the authority's, because the
// host becomes part of each address that the client is told to follow. In that case it
// returns a session beside the error, so that the answer still brings a nonce.
func (s *Server) newSession(r *http.Request) (*session, error) {
	if s.rules.ACME == nil || chi.URLParam(r, "provisioner") != s.rules.ACME.Name {
		return nil, problem.New(problem.Malformed, "there is no ACME provisioner of this name").With(http.StatusNotFound)
	}
	u := &url.URL{Scheme: "https", Host: r.Host, Path: Prefix + "/" + s.rules.ACME.Name + "/"}
	out := &session{Server: s, base: u.String()}
	if !s.rules.IsOwnHost(u.Hostname()) {
		out.base = "https://" + s.host + u.Path
		return out, malformed("the host of the request is none of this authority's names (pki.yaml, dns_names)")
	}
	return out, nil
}

// link is the address of a resource.
func (s *session) link(parts ...string) string { return s.base + strings.Join(parts, "/") }

// addNonce puts a fresh nonce into the answer (RFC 8555 §6.5.1). A cache must not keep it:
// a nonce is good for one request (RFC 8555 §7.2).
func (s *session) addNonce(w http.ResponseWriter, r *http.Request) {
	nonce, err := s.record.CreateNonce(r.Context())
	if err != nil {
		return // the database is away, so the request fails with a problem of its own
	}
	w.Header().Set("Replay-Nonce", string(nonce))
	w.Header().Set("Cache-Control", "no-store")
}

// getNonce answers HEAD with 200 and GET with 204 (RFC 8555 §7.2).
func (s *session) getNonce(w http.ResponseWriter, r *http.Request) error {
	nonce, err := s.record.CreateNonce(r.Context())
	if err != nil {
		return err
	}
	w.Header().Set("Replay-Nonce", string(nonce))
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Add("Link", "<"+s.link("directory")+`>;rel="index"`)
	if r.Method == http.MethodGet {
		w.WriteHeader(http.StatusNoContent)
	}
	return nil
}

// getDirectory answers the addresses of all resources (RFC 8555 §7.1.1). meta.profiles
// (draft-ietf-acme-profiles §3) are the services with acme: true in pki.yaml.
func (s *session) getDirectory(w http.ResponseWriter, _ *http.Request) error {
	type meta struct {
		ExternalAccountRequired bool              `json:"externalAccountRequired,omitempty"`
		Profiles                map[string]string `json:"profiles,omitempty"`
	}
	m := meta{ExternalAccountRequired: s.rules.ACME.RequireEAB, Profiles: make(map[string]string)}
	for service, p := range s.rules.Services {
		if p.ACME {
			m.Profiles[service] = "certificates of service " + service + ", " + p.Lifetimes.Default.String() + " unless asked otherwise"
		}
	}
	return writeResource(w, http.StatusOK, map[string]any{
		"newNonce": s.link("new-nonce"), "newAccount": s.link("new-account"), "newOrder": s.link("new-order"),
		"revokeCert": s.link("revoke-cert"), "keyChange": s.link("key-change"),
		"renewalInfo": s.link("renewal-info"), "meta": m,
	})
}

// writeResource answers a JSON object. It returns an error only if v does not marshal.
func writeResource(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a client that is gone gets nothing
	return nil
}
