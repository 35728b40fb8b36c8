package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"

	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
	"github.com/artstore/artstore-pki/rotation/proxy"
)

// The lanes that are this program.
const (
	bare   = "bare"     // crypto/tls with a fixed configuration, and io.Copy
	copied = "rotation" // rotation's server, and io.Copy
	ours   = "proxy"    // package proxy
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
	if o.be == bare {
		conf, err := config(o.dir)
		if err != nil {
			return err
		}
		return serveCopies(tls.NewListener(ln, conf), o.to)
	}
	at := func(name string) string { return filepath.Join(o.dir, name) }
	id, err := rotation.Open(ctx, rotation.Config{
		Source: files.Source(files.Set{Cert: at("tls.crt"), Key: at("tls.key"), CA: at("ca.crt")}), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	switch o.be {
	case copied:
		s, err := id.Server(rotation.ServerOptions{Authorize: rotation.AllowNames(client), NextProtos: []string{}})
		if err != nil {
			return err
		}
		return serveCopies(s.Listener(ln), o.to)
	case ours:
		to, err := proxy.ParseAddress(o.to)
		if err != nil {
			return err
		}
		s, err := proxy.NewServer(proxy.ServerConfig{Identity: id, Allow: []string{client}, To: to, Logger: slog.New(slog.DiscardHandler), Limits: proxy.Limits{MaxConnsPerAddress: 1024}})
		if err != nil {
			return err
		}
		return s.Serve(ctx, ln)
	}
	return fmt.Errorf("no lane %q", o.be)
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
