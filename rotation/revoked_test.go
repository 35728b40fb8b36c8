package rotation_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/rotation"
)

// TestRevocationGate expects which lists may follow which, and which make the gate
// refuse a candidate.
func TestRevocationGate(t *testing.T) {
	ca, other := newCA(t, "ca"), newCA(t, "other")
	peer := ca.leaf(t, "client", nil)
	critical := func(edit func(*x509.RevocationList, pkix.Extension)) *x509.RevocationList {
		list := &x509.RevocationList{Number: serials(), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
		edit(list, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}})
		return signList(t, list, ca.inter, ca.interKey)
	}
	retired, retiredKey := ca.newInter(t, "retired")
	ofRetired := signList(t, &x509.RevocationList{Number: serials(), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}, retired, retiredKey)
	for name, c := range map[string]struct {
		before, after []*x509.RevocationList
		edit          func(*rotation.Material)
		want          string // part of the refusal, "" for none
	}{
		"first list":    {after: []*x509.RevocationList{ca.crl(t, 0, peer)}},
		"newer":         {before: []*x509.RevocationList{ca.crl(t, -2, peer)}, after: []*x509.RevocationList{ca.crl(t, -1)}},
		"older":         {before: []*x509.RevocationList{ca.crl(t, -1)}, after: []*x509.RevocationList{ca.crl(t, -2)}, want: "older than the one in effect"},
		"retired":       {before: []*x509.RevocationList{ca.crl(t, -61, peer)}},
		"lost":          {before: []*x509.RevocationList{ca.crl(t, 0)}, want: "is missing"},
		"of a stranger": {after: []*x509.RevocationList{other.crl(t, 0)}, want: "not signed by a CA that the trust bundle knows"},
		"of a namesake": {after: []*x509.RevocationList{newCA(t, "ca").crl(t, 0)}, want: "not signed by"},
		"twice":         {after: []*x509.RevocationList{ca.crl(t, 0), ca.crl(t, 0)}, want: "two revocation lists"},
		"delta":         {after: []*x509.RevocationList{critical(func(l *x509.RevocationList, e pkix.Extension) { l.ExtraExtensions = []pkix.Extension{e} })}, want: "critical extension 2.5.29.27"},
		"entry of another CA": {after: []*x509.RevocationList{critical(func(l *x509.RevocationList, e pkix.Extension) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: serials(), RevocationTime: time.Now(), ExtraExtensions: []pkix.Extension{e}}}
		})}, want: "entry with the critical extension"},
		"of a retired issuer":   {after: []*x509.RevocationList{ofRetired}, edit: func(m *rotation.Material) { m.Issuers = []*x509.Certificate{retired} }},
		"issuer not brought":    {after: []*x509.RevocationList{ofRetired}, want: "not signed by"},
		"issuer not under root": {after: []*x509.RevocationList{other.crl(t, 0)}, edit: func(m *rotation.Material) { m.Issuers = []*x509.Certificate{other.inter} }, want: "does not chain"},
		"lost with its root":    {before: []*x509.RevocationList{ca.crl(t, 0)}, edit: func(m *rotation.Material) { *m = other.leaf(t, "svc", nil) }},
	} {
		t.Run(name, func(t *testing.T) {
			src := newPushed(taking(ca.leaf(t, "svc", nil), c.before...))
			id := open(t, src, 0)
			m := taking(ca.leaf(t, "svc", nil), c.after...)
			if c.edit != nil {
				c.edit(&m)
			}
			err := src.push(m)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if want := uint64(2); err == nil && id.Current().Number() != want {
				t.Errorf("generation %d, want %d", id.Current().Number(), want)
			}
		})
	}
}

// TestListSignedAnew expects that a list with a new signature alone is no rotation, and
// that Status has its date.
func TestListSignedAnew(t *testing.T) {
	ca := newCA(t, "ca")
	peer := ca.leaf(t, "client", nil)
	m := taking(ca.leaf(t, "svc", nil), ca.crl(t, -10, peer))
	src := newPushed(m)
	id := open(t, src, 0)
	first := id.Status()
	if first.RevokedLists != 1 || first.RevokedSerials != 1 || first.RevokedStale || first.Generation != 1 {
		t.Errorf("status %+v", first)
	}
	src.mustPush(t, taking(m, ca.crl(t, -5, peer)))
	second := id.Status()
	if second.Generation != 1 || !second.RevokedAt.After(first.RevokedAt) {
		t.Errorf("generation %d, list of %s after %s", second.Generation, second.RevokedAt, first.RevokedAt)
	}
	stale := ca.crl(t, -3, peer)
	stale = signList(t, &x509.RevocationList{
		Number: serials(), ThisUpdate: stale.ThisUpdate, NextUpdate: time.Now().Add(-time.Second), RevokedCertificateEntries: stale.RevokedCertificateEntries,
	}, ca.inter, ca.interKey)
	if err := id.Check(); err != nil {
		t.Errorf("with a list that is good: %v", err)
	}
	src.mustPush(t, taking(m, stale))
	if st := id.Status(); !st.RevokedStale || st.Generation != 1 {
		t.Errorf("stale %v in generation %d", st.RevokedStale, st.Generation)
	}
	if err := id.Check(); err == nil || !strings.Contains(err.Error(), "was to be replaced by") {
		t.Errorf("with a list past its next update: %v", err)
	}
}

// TestRevokedClient expects that a revoked client gets no answer over new, resumed and
// open connections. Other clients are not cut, and their next handshake is a full one.
func TestRevokedClient(t *testing.T) {
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			ca := newCA(t, "ca")
			m := taking(ca.leaf(t, "svc", nil), ca.crl(t, -2))
			src := newPushed(m)
			id := open(t, src, time.Minute)
			addr := listenServer(t, id, rotation.ServerOptions{Authorize: rotation.AllowNames("client")}, whoami)
			bad, good := ca.leaf(t, "client", nil), ca.leaf(t, "client", nil)
			badly := transport(t, open(t, rotation.Static(bad), 0), rotation.TransportOptions{HTTP1Only: !h2})
			goodly := transport(t, open(t, rotation.Static(good), 0), rotation.TransportOptions{HTTP1Only: !h2})
			mustGet(t, badly, addr)
			mustGet(t, goodly, addr)
			src.mustPush(t, taking(m, ca.crl(t, -1, bad)))
			waitFor(t, "the cut", func() bool { return id.Status().Forced > 0 })
			if _, err := get(t, badly, addr); err == nil {
				t.Error("a revoked client got an answer over a new or resumed connection")
			}
			mustGet(t, goodly, addr) // over the connection that was open
			goodly.CloseIdleConnections()
			if h := mustGet(t, goodly, addr); h.Get("Resumed") != "false" {
				t.Error("a ticket from before the revocation was taken")
			}
			goodly.CloseIdleConnections()
			if h := mustGet(t, goodly, addr); h.Get("Resumed") != "true" {
				t.Error("a ticket from after the revocation was not taken")
			}
			if st := id.Status(); st.Forced != 1 {
				t.Errorf("%d connections were cut", st.Forced)
			}
		})
	}
}

// TestRevokedServer expects that clients close connections to a revoked server, even in
// the middle of an answer, and keep those to others.
func TestRevokedServer(t *testing.T) {
	ca := newCA(t, "ca")
	endless := func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	bad, good := ca.leaf(t, "svc", nil), ca.leaf(t, "svc", nil)
	opts := rotation.ServerOptions{Authorize: rotation.AllowNames("client")}
	badAddr := listenServer(t, open(t, rotation.Static(bad), 0), opts, endless)
	goodAddr := listenServer(t, open(t, rotation.Static(good), 0), opts, whoami)
	m := taking(ca.leaf(t, "client", nil), ca.crl(t, -2))
	src := newPushed(m)
	id := open(t, src, time.Hour)
	tr := transport(t, id, rotation.TransportOptions{})
	mustGet(t, tr, goodAddr)
	resp := start(t, tr, badAddr, "/")
	defer func() { _ = resp.Body.Close() }()
	src.mustPush(t, taking(m, ca.crl(t, -1, bad)))
	if _, err := resp.Body.Read(make([]byte, 1)); err == nil {
		t.Error("the stream from a revoked server goes on")
	}
	if _, err := get(t, tr, badAddr); !errors.Is(err, rotation.ErrRevoked) {
		t.Errorf("a new connection to a revoked server: %v", err)
	}
	mustGet(t, tr, goodAddr)
}

// TestRevokedServerDuringHandshake publishes a list after the client has verified the
// server, and before the connection is tracked with its chains.
func TestRevokedServerDuringHandshake(t *testing.T) {
	ca := newCA(t, "ca")
	bad := ca.leaf(t, "svc", nil)
	addr := listenServer(t, open(t, rotation.Static(bad), 0), rotation.ServerOptions{Authorize: rotation.AllowNames("client")}, whoami)
	m := taking(ca.leaf(t, "client", nil), ca.crl(t, -2))
	src := newPushed(m)
	id := open(t, src, 0)
	tr := transport(t, id, rotation.TransportOptions{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		return &secondFlight{Conn: c, before: func() { src.mustPush(t, taking(m, ca.crl(t, -1, bad))) }}, err
	}})
	if _, err := get(t, tr, addr); !errors.Is(err, rotation.ErrRevoked) {
		t.Errorf("a server that was revoked during the handshake: %v", err)
	}
}

// secondFlight is a connection of a client that calls before at its second write. A TLS
// 1.3 client makes that write after it has verified the server.
type secondFlight struct {
	net.Conn
	writes int
	before func()
}

func (c *secondFlight) Write(p []byte) (int, error) {
	if c.writes++; c.writes == 2 {
		c.before()
	}
	return c.Conn.Write(p)
}

// TestRevokedIntermediate expects that all leaves of an intermediate are refused if a
// list of the root names the intermediate.
func TestRevokedIntermediate(t *testing.T) {
	ca := newCA(t, "ca")
	m := ca.leaf(t, "svc", nil)
	lists := signList(t, &x509.RevocationList{
		Number: serials(), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: ca.inter.SerialNumber, RevocationTime: time.Now()}},
	}, ca.root, ca.rootKey)
	_, addr := serverFor(t, rotation.Static(taking(m, lists)), rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()})
	if _, err := newTicketClient(addr, ca.leaf(t, "client", nil)).connect(t); err == nil {
		t.Error("a client under a revoked intermediate got in")
	}
}
