package ingestclient_test

import (
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/artstore/artstore-pki/ingestclient"
)

// TestOlderTLS expects that an element with TLS 1.2 only is refused by default, and used
// with the chosen cipher suite if MinVersion permits it.
func TestOlderTLS(t *testing.T) {
	const suite = tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 // not what crypto/tls would prefer on this server
	for name, c := range map[string]struct {
		minVersion uint16
		suites     []uint16
		want       uint16
		err        error
	}{
		"1.3 by default":     {err: ingestclient.ErrTLSPeer},
		"1.2 with a suite":   {minVersion: tls.VersionTLS12, suites: []uint16{suite}, want: suite},
		"1.2 and no overlap": {minVersion: tls.VersionTLS12, suites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}, err: ingestclient.ErrTLSPeer},
	} {
		t.Run(name, func(t *testing.T) {
			w := newServers(t, nil)
			var negotiated atomic.Uint32
			srv := httptest.NewUnstartedServer(w.storage)
			srv.TLS = &tls.Config{
				Certificates: []tls.Certificate{w.issue("server")}, ClientCAs: w.pool(), ClientAuth: tls.RequireAndVerifyClientCert,
				MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12,
				VerifyConnection: func(cs tls.ConnectionState) error { negotiated.Store(uint32(cs.CipherSuite)); return nil },
			}
			srv.Config.ErrorLog = log.New(io.Discard, "", 0)
			srv.StartTLS()
			t.Cleanup(srv.Close)
			w.cfg.Elements, w.cfg.MinVersion, w.cfg.CipherSuites, w.cfg.MaxAttempts = only(srv.URL), c.minVersion, c.suites, 1
			id, _ := w.identity(0)
			client, err := ingestclient.New(w.cfg, id)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = client.Close() }()
			_, err = client.Upload(t.Context(), ingestclient.BytesContent("a", content(10)), ingestclient.Meta{})
			if !errors.Is(err, c.err) || uint16(negotiated.Load()) != c.want {
				t.Errorf("%v, suite %#x; want %v, suite %#x", err, negotiated.Load(), c.err, c.want)
			}
		})
	}
}
