package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
	"github.com/prometheus/common/config"
	"k8s.io/client-go/transport"
)

// subject is a client under test. applied returns when a rotation that was
// written to its folder is in effect, as far as its own code can be asked:
// what happens before is nobody's fault.
type subject struct {
	http    http.RoundTripper
	applied func(ctx context.Context, serial string) error
	close   func()
}

// strategy is one way to rotate a client.
type strategy struct {
	name, origin string
	idle         time.Duration // its IdleConnTimeout, which takes old idle connections in the end
	onlyHTTP1    bool
	open         func(ctx context.Context, f *folder, http2 bool) (subject, error)
}

const (
	clientGoPoll  = 20 * time.Millisecond   // transport.CertCallbackRefreshDuration, which its own tests shorten as well
	clientGoCache = 1100 * time.Millisecond // its loader keeps a pair for a second
)

func strategies() []strategy {
	return []strategy{
		{name: oursName, origin: ownCode, idle: 90 * time.Second, open: openOurs},
		{name: "client-go transport (CloseAll)", origin: ownCode, idle: 90 * time.Second, open: openClientGo},
		{name: "prometheus/common (swap, CloseIdle)", origin: ownCode, idle: 5 * time.Minute, open: openPrometheus},
		{name: "smallstep SDK (CloseIdle)", origin: pattern, idle: 90 * time.Second, onlyHTTP1: true, open: openSmallstep},
		{name: "GetClientCertificate (certwatcher)", origin: ownCode, idle: 90 * time.Second, open: openWatcher},
	}
}

func openOurs(ctx context.Context, f *folder, http2 bool) (subject, error) {
	id, err := rotation.Open(ctx, rotation.Config{
		Source: files.Source(files.Set{Cert: f.cert(), Key: f.key(), CA: f.ca()}), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return subject{}, err
	}
	tr, err := id.Transport(rotation.TransportOptions{HTTP1Only: !http2})
	if err != nil {
		return subject{}, err
	}
	return subject{
		http: tr,
		applied: func(ctx context.Context, serial string) error {
			return eventually(ctx, func() bool { return id.Current().Leaf().SerialNumber.String() == serial })
		},
		close: func() { _ = id.Close() }, // documented to return nil
	}, nil
}

// openClientGo is its transport for a kubeconfig that names files.
func openClientGo(_ context.Context, f *folder, http2 bool) (subject, error) {
	if transport.CertCallbackRefreshDuration != clientGoPoll { // once: its goroutines read it
		transport.CertCallbackRefreshDuration = clientGoPoll
	}
	conf := &transport.Config{TLS: transport.TLSConfig{CAFile: f.ca(), CertFile: f.cert(), KeyFile: f.key()}}
	if !http2 {
		conf.TLS.NextProtos = []string{"http/1.1"}
	}
	rt, err := transport.New(conf)
	if err != nil {
		return subject{}, err
	}
	return subject{
		http: rt,
		applied: func(ctx context.Context, _ string) error {
			if !pause(ctx, clientGoCache+3*clientGoPoll) {
				return ctx.Err()
			}
			return nil
		},
		close: func() {}, // ended by the garbage collector
	}, nil
}

func openPrometheus(ctx context.Context, f *folder, http2 bool) (subject, error) {
	conf := config.HTTPClientConfig{EnableHTTP2: http2, TLSConfig: config.TLSConfig{
		CAFile: f.ca(), CertFile: f.cert(), KeyFile: f.key(), MinVersion: tls.VersionTLS13,
	}}
	rt, err := config.NewRoundTripperFromConfigWithContext(ctx, conf, "bench")
	if err != nil {
		return subject{}, err
	}
	return subject{
		http:    rt,
		applied: func(context.Context, string) error { return nil }, // it reads the files on every request
		close:   func() {},
	}, nil
}

// openSmallstep does what the SDK's client does: a renewer behind
// GetClientCertificate, dials by itself with a configuration from before
// net/http added ALPN, idle connections closed after a renewal. Its own code
// needs an authority to renew from.
func openSmallstep(_ context.Context, f *folder, _ bool) (subject, error) {
	var current atomic.Pointer[tls.Certificate]
	load := func() error {
		c, err := tls.LoadX509KeyPair(f.cert(), f.key())
		if err == nil {
			current.Store(&c)
		}
		return err
	}
	if err := load(); err != nil {
		return subject{}, err
	}
	conf, err := f.clientConfig()
	if err != nil {
		return subject{}, err
	}
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return current.Load(), nil }
	dialed := conf.Clone()
	rt := &http.Transport{
		TLSClientConfig: conf, ForceAttemptHTTP2: true, IdleConnTimeout: 90 * time.Second, MaxIdleConnsPerHost: workers + 1,
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return (&tls.Dialer{Config: dialed}).DialContext(ctx, network, addr)
		},
	}
	return subject{http: rt, close: rt.CloseIdleConnections, applied: func(context.Context, string) error {
		err := load()
		rt.CloseIdleConnections()
		return err
	}}, nil
}

// openWatcher is what most services do: a watcher behind the callback, and
// net/http left to itself.
func openWatcher(ctx context.Context, f *folder, http2 bool) (subject, error) {
	w, stop, err := running(ctx, f.cert(), f.key())
	if err != nil {
		return subject{}, err
	}
	conf, err := f.clientConfig()
	if err != nil {
		stop()
		return subject{}, err
	}
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return w.GetCertificate(nil) }
	rt := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: http2, IdleConnTimeout: 90 * time.Second, MaxIdleConnsPerHost: workers + 1}
	return subject{
		http: rt,
		applied: func(ctx context.Context, serial string) error {
			return eventually(ctx, func() bool {
				c, err := w.GetCertificate(nil)
				return err == nil && c.Leaf.SerialNumber.String() == serial
			})
		},
		close: func() { rt.CloseIdleConnections(); stop() },
	}, nil
}

// eventually asks until ok or until it has waited too long for any poll of ours or theirs.
func eventually(ctx context.Context, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 35*time.Second)
	defer cancel()
	for !ok() {
		if !pause(ctx, time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}
