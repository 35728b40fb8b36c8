package ingestclient_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
	"github.com/artstore/artstore-pki/rotation"
)

func identityOf(t *testing.T, m rotation.Material) *rotation.Identity {
	t.Helper()
	id, err := rotation.Open(t.Context(), rotation.Config{Source: rotation.Static(m)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = id.Close() })
	return id
}

// served is the configuration of a server whose leaf is from leaf, and whose
// clients are from clients.
func served(t *testing.T, leaf, clients *ingesttest.CA) *tls.Config {
	t.Helper()
	conf, err := identityOf(t, trusting(t, leaf, "server", clients)).ServerTLSConfig(rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()})
	if err != nil {
		t.Fatal(err)
	}
	return conf
}

// trusting is a leaf of one authority for a service whose peers are from another.
func trusting(t *testing.T, leaf *ingesttest.CA, name string, peers *ingesttest.CA) rotation.Material {
	t.Helper()
	m := leaf.Material(t, name)
	m.Certificate.Certificate = append(m.Certificate.Certificate, leaf.Root().Raw)
	m.Roots = []*x509.Certificate{peers.Root()}
	return m
}

func trustIn(t *testing.T, ca *ingesttest.CA) *rotation.Trust {
	t.Helper()
	trust, err := rotation.OpenTrust(t.Context(), rotation.Config{Source: rotation.Static(rotation.Material{Roots: []*x509.Certificate{ca.Root()}})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = trust.Close() })
	return trust
}

// TestTrustOfEachSide uses different roots for both sides. Each needs the right one, and
// the error says who refused.
func TestTrustOfEachSide(t *testing.T) {
	clients, fakeAdminTransport, elements, strangers := ingesttest.NewCA(t), ingesttest.NewCA(t), ingesttest.NewCA(t), ingesttest.NewCA(t)
	own, strange := identityOf(t, clients.Material(t, "ingester")), identityOf(t, strangers.Material(t, "ingester"))
	// The element asks the Admin Module for keys.
	jwks, err := identityOf(t, trusting(t, clients, "storage-element", fakeAdminTransport)).Transport(rotation.TransportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = jwks.Close() })
	s := ingesttest.Start(t, ingesttest.Options{AdminTLS: served(t, fakeAdminTransport, clients), StorageTLS: served(t, elements, clients), JWKSTransport: jwks, Unbound: true})
	for name, tc := range map[string]struct {
		id              *rotation.Identity
		tokens, storage *ingesttest.CA
		want            error
		atToken         bool // the token endpoint is where it ends
	}{
		"both right":         {own, fakeAdminTransport, elements, nil, false},
		"tokens wrong":       {own, elements, elements, ingestclient.ErrServerCertificate, true},
		"tokens not given":   {own, nil, elements, ingestclient.ErrServerCertificate, true},
		"elements wrong":     {own, fakeAdminTransport, fakeAdminTransport, ingestclient.ErrServerCertificate, false},
		"elements not given": {own, fakeAdminTransport, nil, ingestclient.ErrServerCertificate, false},
		"refused by them":    {strange, fakeAdminTransport, elements, ingestclient.ErrClientCertificate, true},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := s.Config()
			cfg.MaxAttempts = 1
			if tc.tokens != nil {
				cfg.TokenTrust = trustIn(t, tc.tokens)
			}
			if tc.storage != nil {
				cfg.StorageTrust = trustIn(t, tc.storage)
			}
			c, err := ingestclient.New(cfg, tc.id)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			_, err = c.Upload(t.Context(), ingestclient.BytesContent("f", []byte("x")), ingestclient.Meta{})
			if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) || errors.Is(err, ingestclient.ErrTokenEndpoint) != tc.atToken {
				t.Errorf("%v, want %v", err, tc.want)
			}
			both := errors.Is(err, ingestclient.ErrServerCertificate) && errors.Is(err, ingestclient.ErrClientCertificate)
			if tc.want != nil && (both || !errors.Is(err, ingestclient.ErrTLSPeer)) {
				t.Errorf("%v does not say who refused whom", err)
			}
		})
	}
}

// proxy is an HTTP proxy that makes tunnels and counts them.
func proxy(t *testing.T, user string) (at *url.URL, tunnels *atomic.Int64) {
	t.Helper()
	tunnels = new(atomic.Int64)
	address := hung(t, func(c net.Conn) {
		defer func() { _ = c.Close() }()
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil || req.Method != http.MethodConnect || user != "" && req.Header.Get("Proxy-Authorization") != user {
			_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
			return
		}
		var d net.Dialer
		up, err := d.DialContext(context.WithoutCancel(t.Context()), "tcp", req.Host)
		if err != nil {
			return
		}
		defer func() { _ = up.Close() }()
		tunnels.Add(1)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(up, c); _ = up.Close() }()
		_, _ = io.Copy(c, up)
	})
	return &url.URL{Scheme: "http", Host: strings.TrimPrefix(address, "https://")}, tunnels
}

// TestUploadThroughATunnel expects that tokens and files go through the proxy of their
// side, and through none of the environment.
func TestUploadThroughATunnel(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	s := ingesttest.Start(t, ingesttest.Options{})
	tokens, byTokens := proxy(t, "Basic dTpjYW5hcnk=")
	storage, byStorage := proxy(t, "")
	upload := func(tokens, storage *url.URL) error {
		cfg := s.Config()
		cfg.TokenProxy, cfg.StorageProxy, cfg.MaxAttempts = tokens, storage, 1
		c, err := ingestclient.New(cfg, s.Identity)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		b := content(3 << 20)
		file, err := c.Upload(t.Context(), ingestclient.BytesContent("f", b), ingestclient.Meta{})
		if err == nil && file.Size != int64(len(b)) {
			t.Errorf("%+v", file)
		}
		return err
	}
	if err := upload(nil, nil); err != nil || byTokens.Load()+byStorage.Load() != 0 {
		t.Errorf("without a proxy: %v", err)
	}
	known := *tokens
	known.User = url.UserPassword("u", "canary")
	if err := upload(&known, storage); err != nil || byTokens.Load() != 1 || byStorage.Load() != 1 {
		t.Errorf("through both: %v, %d and %d tunnels", err, byTokens.Load(), byStorage.Load())
	}
	known.User = url.UserPassword("u", "wrong-canary")
	if err := upload(&known, nil); !errors.Is(err, ingestclient.ErrTokenEndpoint) || strings.Contains(err.Error(), "canary") {
		t.Errorf("a wrong password: %v", err)
	}
}

// TestTrustAndProxiesAreChecked expects errors for trust and proxies that would not be
// used, without their URLs.
func TestTrustAndProxiesAreChecked(t *testing.T) {
	with := func(u string) *url.URL {
		parsed, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	trust := trustIn(t, ingesttest.NewCA(t))
	for want, change := range map[string]func(*ingestclient.Config){
		"TokenProxy is not http://":   func(c *ingestclient.Config) { c.TokenProxy = with("socks5://u:canary@p:1") },
		"StorageProxy is not http://": func(c *ingestclient.Config) { c.StorageProxy = with("http://u:canary@p:1/path") },
		"TokenProxy goes with https://": func(c *ingestclient.Config) {
			c.TokenURL, c.AllowCleartext, c.TokenProxy = "http://a", true, with("http://u:canary@p")
		},
		"StorageTrust goes with https://": func(c *ingestclient.Config) {
			c.Elements, c.AllowCleartext, c.StorageTrust = only("http://a"), true, trust
		},
	} {
		cfg := config()
		change(&cfg)
		if err := ingestclient.Parse(cfg, true); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", want, err)
		}
	}
}
