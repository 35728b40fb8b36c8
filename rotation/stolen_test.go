package rotation_test

import (
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/rotation"
)

// theft is a CA with two intermediates: the key of one was stolen, the other replaces it.
type theft struct{ stolen, good *testCA }

func newTheft(t *testing.T) theft {
	t.Helper()
	stolen := newCA(t, "ca")
	good := *stolen
	good.inter, good.interKey = stolen.newInter(t, "ca next intermediate")
	return theft{stolen, &good}
}

// lists are those of the root and of both intermediates. With revoked, that of the root names
// the stolen one.
func (s theft) lists(t *testing.T, minutes int, revoked bool) []*x509.RevocationList {
	t.Helper()
	ofRoot := &x509.RevocationList{Number: serials(), ThisUpdate: time.Now().Add(time.Duration(minutes) * time.Minute), NextUpdate: s.good.root.NotAfter}
	if revoked {
		ofRoot.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: s.stolen.inter.SerialNumber, RevocationTime: time.Now(), ReasonCode: 2}}
	}
	return []*x509.RevocationList{s.good.crl(t, minutes), s.stolen.crl(t, minutes), signList(t, ofRoot, s.good.root, s.good.rootKey)}
}

// taking is an identity under the good intermediate with these lists.
func (s theft) taking(m rotation.Material, lists []*x509.RevocationList) rotation.Material {
	m.Issuers = []*x509.Certificate{s.stolen.inter}
	return taking(m, lists...)
}

// TestStolenIntermediateAtServer expects that a server which has the list of the root refuses
// what the stolen intermediate signed before and signs now, over new, resumed and open
// connections. A server with the list from before still accepts it.
func TestStolenIntermediateAtServer(t *testing.T) {
	s := newTheft(t)
	m := s.taking(s.good.leaf(t, "svc", nil), s.lists(t, -2, false))
	src := newPushed(m)
	id := open(t, src, time.Minute)
	opts := rotation.ServerOptions{Authorize: rotation.AllowNames("client")}
	addr, behind := listenServer(t, id, opts, whoami), listenServer(t, open(t, rotation.Static(m), 0), opts, whoami)
	client := func(ca *testCA) *rotation.Transport {
		return transport(t, open(t, rotation.Static(ca.leaf(t, "client", nil)), 0), rotation.TransportOptions{HTTP1Only: true})
	}
	idle, resuming, honest := client(s.stolen), client(s.stolen), client(s.good)
	for _, tr := range []*rotation.Transport{idle, resuming, honest} {
		mustGet(t, tr, addr)
	}
	resuming.CloseIdleConnections()
	if h := mustGet(t, resuming, addr); h.Get("Resumed") != "true" {
		t.Error("the client has no ticket, so the resumed connection below is none")
	}
	resuming.CloseIdleConnections()
	src.mustPush(t, s.taking(m, s.lists(t, -1, true)))
	waitFor(t, "the cut", func() bool { return id.Status().Forced > 0 })
	forging := client(s.stolen) // signed after the revocation
	for name, tr := range map[string]*rotation.Transport{"open": idle, "resumed": resuming, "new": client(s.stolen), "forged": forging} {
		if _, err := get(t, tr, addr); err == nil {
			t.Errorf("%s: the server has answered", name)
		}
	}
	mustGet(t, honest, addr)
	mustGet(t, forging, behind)
}

// TestStolenIntermediateAtClient expects the same of a client: it closes connections to such a
// server, also in the middle of an answer, and opens none.
func TestStolenIntermediateAtClient(t *testing.T) {
	s := newTheft(t)
	opts := rotation.ServerOptions{Authorize: rotation.AllowNames("client")}
	endless := func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	serve := func(ca *testCA, h http.HandlerFunc) string {
		return listenServer(t, open(t, rotation.Static(ca.leaf(t, "svc", nil)), 0), opts, h)
	}
	streaming, resumed, honest := serve(s.stolen, endless), serve(s.stolen, whoami), serve(s.good, whoami)
	m := s.taking(s.good.leaf(t, "client", nil), s.lists(t, -2, false))
	src := newPushed(m)
	tr := transport(t, open(t, src, time.Hour), rotation.TransportOptions{HTTP1Only: true})
	mustGet(t, tr, honest)
	mustGet(t, tr, resumed)
	resp := start(t, tr, streaming, "/")
	defer func() { _ = resp.Body.Close() }()
	src.mustPush(t, s.taking(m, s.lists(t, -1, true)))
	if _, err := resp.Body.Read(make([]byte, 1)); err == nil {
		t.Error("the open stream goes on")
	}
	for name, addr := range map[string]string{"resumed": resumed, "new": streaming, "forged": serve(s.stolen, whoami)} {
		if _, err := get(t, tr, addr); !errors.Is(err, rotation.ErrRevoked) {
			t.Errorf("%s: %v, want ErrRevoked", name, err)
		}
	}
	mustGet(t, tr, honest)
	behind := transport(t, open(t, rotation.Static(m), 0), rotation.TransportOptions{})
	mustGet(t, behind, resumed)
}

// TestIssuerChangesBeforeItIsRevoked expects that clients of a server, which got a certificate
// of another intermediate, come again by a full handshake. So no request fails when the old
// intermediate is revoked, and a request that is under way then goes on.
func TestIssuerChangesBeforeItIsRevoked(t *testing.T) {
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			s := newTheft(t)
			server := newPushed(s.stolen.leaf(t, "svc", nil))
			answers := make(chan struct{})
			addr := listenServer(t, open(t, server, 0), rotation.ServerOptions{Authorize: rotation.AllowNames("client")}, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Remote", r.RemoteAddr)
				if r.URL.Path == "/slow" {
					_ = http.NewResponseController(w).Flush()
					<-answers
				}
				whoami(w, r)
			})
			m := s.taking(s.good.leaf(t, "client", nil), s.lists(t, -2, false))
			client := newPushed(m)
			tr := transport(t, open(t, client, time.Hour), rotation.TransportOptions{HTTP1Only: !h2})
			first := mustGet(t, tr, addr).Get("Remote")
			server.mustPush(t, s.good.leaf(t, "svc", nil))
			var h http.Header
			waitFor(t, "another connection", func() bool {
				h = mustGet(t, tr, addr)
				return h.Get("Remote") != first
			})
			if h.Get("Resumed") != "false" {
				t.Error("the new connection was resumed: the client judges the chain of before")
			}
			resp := start(t, tr, addr, "/slow")
			defer func() { _ = resp.Body.Close() }()
			client.mustPush(t, s.taking(m, s.lists(t, -1, true)))
			mustGet(t, tr, addr)
			close(answers)
			if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "ok" {
				t.Errorf("the request that was under way: %q, %v", body, err)
			}
		})
	}
}
