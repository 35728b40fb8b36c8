package rotation_test

import (
	"crypto/x509"
	"errors"
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
