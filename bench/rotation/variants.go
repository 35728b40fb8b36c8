package main

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
	"github.com/prometheus/exporter-toolkit/web"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/credentials/tls/certprovider/pemfile"
	"google.golang.org/grpc/security/advancedtls"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
)

// rig is what all variants of one run share: one server identity, in memory and
// as files, and one client.
type rig struct {
	server, client identity
	files          *folder
}

func newRig(dir string) (*rig, error) {
	ca, err := newAuthority("bench")
	if err != nil {
		return nil, err
	}
	r := &rig{}
	if r.server, err = ca.issue("server", 10); err != nil {
		return nil, err
	}
	if r.client, err = ca.issue("client", 11); err != nil {
		return nil, err
	}
	r.files, err = newFolder(dir, r.server)
	return r, err
}

// clientConfig is the same for every variant: what is compared is the server.
func (r *rig) clientConfig(cache tls.ClientSessionCache) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: r.server.pool(), ServerName: host,
		Certificates: []tls.Certificate{r.client.cert}, ClientSessionCache: cache,
	}
}

// variant is one way to serve an identity that can change.
type variant struct {
	name, origin string
	// handshake is the server's side on an accepted connection.
	handshake func(context.Context, net.Conn) (net.Conn, error)
	// callback is what runs per handshake to find the configuration or the
	// certificate; nil where the code has no such seam.
	callback func() error
	stop     func()
}

// Origins: the peers' code as its users call it, or what it does written down here.
const (
	ownCode = "own code"
	pattern = "pattern"
)

const (
	limitName   = "static tls.Config (limit)"
	controlName = "static again (control)"
	oursName    = "artstore rotation"
)

// variants builds all of them; the first is the limit, the second the control.
func variants(ctx context.Context, r *rig) ([]variant, error) {
	out := []variant{
		served(limitName, "crypto/tls", staticConfig(r)),
		served(controlName, "crypto/tls", staticConfig(r)),
	}
	for _, build := range []func(context.Context, *rig) (variant, error){
		ours, watcher, spiffe, grpcAdvanced, clonePerHandshake, toolkit, diskPerHandshake,
	} {
		v, err := build(ctx, r)
		if err != nil {
			stopAll(out)
			return nil, fmt.Errorf("building variants: %w", err)
		}
		out = append(out, v)
	}
	return out, nil
}

func stopAll(all []variant) {
	for _, v := range all {
		if v.stop != nil {
			v.stop()
		}
	}
}

// served is a variant that is a tls.Config and nothing else.
func served(name, origin string, conf *tls.Config) variant {
	v := variant{name: name, origin: origin}
	v.handshake = func(ctx context.Context, raw net.Conn) (net.Conn, error) {
		conn := tls.Server(raw, conf)
		return conn, conn.HandshakeContext(ctx)
	}
	hello := &tls.ClientHelloInfo{ServerName: host, SupportedVersions: []uint16{tls.VersionTLS13}}
	switch {
	case conf.GetConfigForClient != nil:
		v.callback = func() error { _, err := conf.GetConfigForClient(hello); return err }
	case conf.GetCertificate != nil:
		v.callback = func() error { _, err := conf.GetCertificate(hello); return err }
	}
	return v
}

func staticConfig(r *rig) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{r.server.cert},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: r.server.pool(),
	}
}

func ours(ctx context.Context, r *rig) (variant, error) {
	id, err := rotation.Open(ctx, rotation.Config{
		Source: files.Source(files.Set{Cert: r.files.cert(), Key: r.files.key(), CA: r.files.ca()}),
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return variant{}, err
	}
	conf, err := id.ServerTLSConfig(rotation.ServerOptions{Authorize: rotation.AnyVerifiedPeer()})
	if err != nil {
		return variant{}, err
	}
	v := served(oursName, ownCode, conf)
	v.stop = func() { _ = id.Close() } // documented to return nil
	return v, nil
}

// running starts a certwatcher as its manager does, and stops it.
func running(ctx context.Context, cert, key string) (*certwatcher.CertWatcher, func(), error) {
	w, err := certwatcher.New(cert, key)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.Start(ctx) }) // its error is that of closing the watch
	return w, func() { cancel(); wg.Wait() }, nil
}

func watcher(ctx context.Context, r *rig) (variant, error) {
	w, stop, err := running(ctx, r.files.cert(), r.files.key())
	if err != nil {
		return variant{}, err
	}
	conf := staticConfig(r)
	conf.Certificates, conf.GetCertificate = nil, w.GetCertificate
	v := served("controller-runtime certwatcher", ownCode, conf)
	v.stop = stop
	return v, nil
}

// spiffeSource is an in-memory source as go-spiffe's own types give it.
func spiffeSource(id identity) (*x509svid.SVID, *x509bundle.Bundle, error) {
	name, err := spiffeid.FromURI(id.cert.Leaf.URIs[0])
	if err != nil {
		return nil, nil, err
	}
	inter, err := x509.ParseCertificate(id.cert.Certificate[1])
	if err != nil {
		return nil, nil, err
	}
	svid := &x509svid.SVID{
		ID: name, Certificates: []*x509.Certificate{id.cert.Leaf, inter},
		PrivateKey: id.cert.PrivateKey.(crypto.Signer),
	}
	return svid, x509bundle.FromX509Authorities(name.TrustDomain(), id.roots), nil
}

func spiffe(_ context.Context, r *rig) (variant, error) {
	svid, bundle, err := spiffeSource(r.server)
	if err != nil {
		return variant{}, err
	}
	conf := tlsconfig.MTLSServerConfig(svid, bundle, tlsconfig.AuthorizeAny())
	conf.MinVersion = tls.VersionTLS13
	return served("go-spiffe MTLSServerConfig", ownCode, conf), nil
}

func grpcAdvanced(_ context.Context, r *rig) (variant, error) {
	provider, err := pemfile.NewProvider(pemfile.Options{
		CertFile: r.files.cert(), KeyFile: r.files.key(), RootFile: r.files.ca(), RefreshDuration: time.Hour, // its default
	})
	if err != nil {
		return variant{}, err
	}
	creds, err := advancedtls.NewServerCreds(&advancedtls.Options{
		IdentityOptions:   advancedtls.IdentityCertificateOptions{IdentityProvider: provider},
		RootOptions:       advancedtls.RootCertificateOptions{RootProvider: provider},
		RequireClientCert: true, VerificationType: advancedtls.CertVerification, MinTLSVersion: tls.VersionTLS13, MaxTLSVersion: tls.VersionTLS13,
	})
	if err != nil {
		return variant{}, err
	}
	return variant{
		name: "grpc advancedtls + pemfile", origin: ownCode, stop: provider.Close,
		handshake: func(_ context.Context, raw net.Conn) (net.Conn, error) {
			conn, _, err := creds.ServerHandshake(raw)
			return conn, err
		},
	}, nil
}

// clonePerHandshake is what the API server's dynamic certificates do: the module
// that holds them is a whole API server.
func clonePerHandshake(_ context.Context, r *rig) (variant, error) {
	base, pool := staticConfig(r), r.server.pool()
	var mu sync.RWMutex
	conf := base.Clone()
	conf.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		mu.RLock()
		defer mu.RUnlock()
		c := base.Clone()
		c.Certificates, c.ClientCAs = []tls.Certificate{r.server.cert}, pool
		return c, nil
	}
	return served("clone per handshake (apiserver)", pattern, conf), nil
}

func toolkitConfig(f *folder) web.TLSConfig {
	return web.TLSConfig{
		TLSCertPath: f.cert(), TLSKeyPath: f.key(), ClientCAs: f.ca(), ClientAuth: "RequireAndVerifyClientCert",
		MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13,
	}
}

// toolkit calls exporter-toolkit as its own Serve does for every connection,
// less the reading of its YAML file.
func toolkit(_ context.Context, r *rig) (variant, error) {
	conf, err := web.ConfigToTLSConfig(new(toolkitConfig(r.files)))
	if err != nil {
		return variant{}, err
	}
	conf.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return web.ConfigToTLSConfig(new(toolkitConfig(r.files)))
	}
	return served("exporter-toolkit", ownCode, conf), nil
}

func diskPerHandshake(_ context.Context, r *rig) (variant, error) {
	conf := staticConfig(r)
	conf.Certificates = nil
	conf.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(r.files.cert(), r.files.key())
		return &c, err
	}
	return served("disk per handshake (etcd)", pattern, conf), nil
}
