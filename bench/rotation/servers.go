package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
	"github.com/prometheus/exporter-toolkit/web"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
)

// serverKind is a server whose rules can change while it runs; runningServer is one that runs.
type serverKind struct {
	name, origin string
	open         func(ctx context.Context, dir string, id identity) (runningServer, error)
}

type runningServer struct {
	addr  string
	trust func(context.Context, identity) error // from now on only the roots of this identity
	deny  func(context.Context) error           // from now on no client; nil when there is no such rule
	close func()
}

func serverKinds() []serverKind {
	return []serverKind{
		{oursName, ownCode, openOursServer},
		{"go-spiffe MTLSServerConfig", ownCode, openSPIFFE},
		{"exporter-toolkit Serve", ownCode, openToolkit},
		{"VerifyConnection on a live pool", pattern, openLive},
	}
}

var errDenied = errors.New("denied")

// serveOnce serves the one byte of ping over conf.
func serveOnce(ctx context.Context, conf *tls.Config) (string, func(), error) {
	l, err := newLane(ctx, served("", "", conf), loopback)
	if err != nil {
		return "", nil, err
	}
	go func() {
		for range l.done {
			continue // the verdict is what the client sees
		}
	}()
	return l.listener.Addr().String(), l.shutdown, nil
}

func openOursServer(ctx context.Context, dir string, id identity) (runningServer, error) {
	folder, err := newFolder(dir, id)
	if err != nil {
		return runningServer{}, err
	}
	ours, err := rotation.Open(ctx, rotation.Config{
		Source: files.Source(files.Set{Cert: folder.cert(), Key: folder.key(), CA: folder.ca()}), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return runningServer{}, err
	}
	var denied atomic.Bool
	conf, err := ours.ServerTLSConfig(rotation.ServerOptions{Authorize: func(cs tls.ConnectionState) error {
		if denied.Load() {
			return errDenied
		}
		return rotation.AnyVerifiedPeer()(cs)
	}})
	if err != nil {
		return runningServer{}, errors.Join(err, ours.Close())
	}
	addr, stop, err := serveOnce(ctx, conf)
	if err != nil {
		return runningServer{}, errors.Join(err, ours.Close())
	}
	return runningServer{
		addr: addr, close: func() { stop(); _ = ours.Close() }, // documented to return nil
		deny: func(context.Context) error { denied.Store(true); return nil },
		trust: func(ctx context.Context, to identity) error {
			if err := folder.swap(to); err != nil {
				return err
			}
			return eventually(ctx, func() bool { return len(ours.Current().Roots()) == len(to.roots) })
		},
	}, nil
}

func openSPIFFE(ctx context.Context, _ string, id identity) (runningServer, error) {
	svid, bundle, err := spiffeSource(id)
	if err != nil {
		return runningServer{}, err
	}
	var denied atomic.Bool
	conf := tlsconfig.MTLSServerConfig(svid, bundle, func(spiffeid.ID, [][]*x509.Certificate) error {
		if denied.Load() {
			return errDenied
		}
		return nil
	})
	conf.MinVersion = tls.VersionTLS13
	addr, stop, err := serveOnce(ctx, conf)
	return runningServer{
		addr: addr, close: stop,
		deny:  func(context.Context) error { denied.Store(true); return nil },
		trust: func(_ context.Context, to identity) error { bundle.SetX509Authorities(to.roots); return nil },
	}, err
}

// openLive is the recipe of many services: any certificate, judged in
// VerifyConnection by the pool of the moment, tickets as crypto/tls makes them.
func openLive(ctx context.Context, _ string, id identity) (runningServer, error) {
	var pool atomic.Pointer[x509.CertPool]
	var denied atomic.Bool
	pool.Store(id.pool())
	conf := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{id.cert}, ClientAuth: tls.RequireAnyClientCert,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if denied.Load() {
				return errDenied
			}
			inter := x509.NewCertPool()
			for _, c := range cs.PeerCertificates[1:] {
				inter.AddCert(c)
			}
			_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{
				Roots: pool.Load(), Intermediates: inter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
			})
			return err
		},
	}
	addr, stop, err := serveOnce(ctx, conf)
	return runningServer{
		addr: addr, close: stop,
		deny:  func(context.Context) error { denied.Store(true); return nil },
		trust: func(_ context.Context, to identity) error { pool.Store(to.pool()); return nil },
	}, err
}

// openToolkit runs exporter-toolkit's own server.
func openToolkit(ctx context.Context, dir string, id identity) (runningServer, error) {
	if err := plain(dir, id); err != nil {
		return runningServer{}, err
	}
	conf := filepath.Join(dir, "web.yml")
	write := func(sans string) error {
		text := fmt.Sprintf("tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n  client_ca_file: ca.crt\n"+
			"  client_auth_type: RequireAndVerifyClientCert\n  min_version: TLS13\n  client_allowed_sans: [%s]\n", sans)
		return durable.WriteFile(conf, []byte(text), durable.Private)
	}
	if err := write("client"); err != nil {
		return runningServer{}, err
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return runningServer{}, err
	}
	quiet := slog.New(slog.DiscardHandler)
	srv := &http.Server{ReadHeaderTimeout: time.Second, ErrorLog: slog.NewLogLogger(quiet.Handler(), 0)}
	var wg sync.WaitGroup
	wg.Go(func() { _ = web.Serve(ln, srv, &web.FlagConfig{WebConfigFile: &conf}, quiet) }) // returns when closed
	return runningServer{
		addr: ln.Addr().String(), close: func() { _ = ln.Close(); _ = srv.Close(); wg.Wait() },
		deny:  func(context.Context) error { return write("somebody-else") },
		trust: func(_ context.Context, to identity) error { return plain(dir, to) },
	}, nil
}
