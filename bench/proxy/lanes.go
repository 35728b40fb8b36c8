package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"time"

	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
	"github.com/artstore/artstore-pki/rotation/proxy"
)

// The lanes that are this program.
const (
	bare   = "bare"     // crypto/tls with a fixed configuration, and io.Copy
	copied = "rotation" // rotation's server, and io.Copy
	ours   = "proxy"    // package proxy

	reverse  = "reverse"  // crypto/tls with a fixed configuration, and httputil.ReverseProxy
	reversed = "reversed" // rotation's server, and httputil.ReverseProxy
	oursHTTP = "http"     // package proxy in its mode HTTP
)

// beLane is one of the lanes. It prints its address, and serves until ctx ends.
func beLane(ctx context.Context, w io.Writer, o options) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // of loopback
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(w, ln.Addr()); err != nil {
		return err
	}
	conf, err := config(o.dir)
	if err != nil {
		return err
	}
	switch o.be {
	case bare:
		return serveCopies(tls.NewListener(ln, conf), o.to)
	case reverse:
		return (&http.Server{Handler: reverseTo(o.to), TLSConfig: conf, ReadHeaderTimeout: startWait}).ServeTLS(ln, "", "")
	}
	at := func(name string) string { return filepath.Join(o.dir, name) }
	id, err := rotation.Open(ctx, rotation.Config{
		Source: files.Source(files.Set{Cert: at("tls.crt"), Key: at("tls.key"), CA: at("ca.crt")}), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	return rotating{id, o}.serve(ctx, ln)
}

// rotating is a lane that stands on an identity.
type rotating struct {
	id *rotation.Identity
	o  options
}

func (r rotating) serve(ctx context.Context, ln net.Listener) error {
	switch r.o.be {
	case copied:
		s, err := r.id.Server(rotation.ServerOptions{Authorize: rotation.AllowNames(client), NextProtos: []string{}})
		if err != nil {
			return err
		}
		return serveCopies(s.Listener(ln), r.o.to)
	case reversed:
		s, err := r.id.Server(rotation.ServerOptions{Authorize: rotation.AllowNames(client)})
		if err != nil {
			return err
		}
		return s.Serve(ctx, ln, reverseTo(r.o.to))
	case ours, oursHTTP:
		to, err := proxy.ParseAddress(r.o.to)
		if err != nil {
			return err
		}
		protocol := map[string]proxy.Protocol{ours: proxy.TCP, oursHTTP: proxy.HTTP}[r.o.be]
		s, err := proxy.NewServer(proxy.ServerConfig{Identity: r.id, Allow: []string{client}, To: to, Protocol: protocol, Logger: slog.New(slog.DiscardHandler), Limits: proxy.Limits{MaxConnsPerAddress: 1024}})
		if err != nil {
			return err
		}
		return s.Serve(ctx, ln)
	}
	return fmt.Errorf("no lane %q", r.o.be)
}

// reverseTo is the reverse proxy of the standard library as its users set it up, with as many
// idle connections to the service as the bench needs: the default of two would make it connect
// again and again.
func reverseTo(to string) http.Handler {
	p := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: to})
	p.Transport = &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute}
	return p
}

// serveCopies is the least that a proxy can do: a copy in each direction, until one ends.
func serveCopies(ln net.Listener, to string) error {
	for {
		in, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = in.Close() }()                                   // over in any case
			if secure, ok := in.(*tls.Conn); !ok || secure.Handshake() != nil { //nolint:noctx // of the peers of a bench
				return
			}
			out, err := net.Dial("tcp", to) //nolint:noctx // of loopback
			if err != nil {
				return
			}
			defer func() { _ = out.Close() }() // over in any case
			ended := make(chan error, 2)
			go func() { _, err := io.Copy(out, in); ended <- errors.Join(err, out.(*net.TCPConn).CloseWrite()) }()
			go func() { _, err := io.Copy(in, out); ended <- err }()
			for range 2 {
				if <-ended != nil {
					return
				}
			}
		}()
	}
}
