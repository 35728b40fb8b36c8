package rotation

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxProxyAnswer bounds the header of a proxy's answer to CONNECT, in bytes.
const maxProxyAnswer = 16 << 10

// errProxy is in front of the errors of a proxy, so that an operator does not look for
// the fault at the server.
var errProxy = errors.New("the proxy")

// checkProxy refuses a URL that is no address of a proxy. Its errors have neither the user
// nor the password.
func checkProxy(u *url.URL) error {
	switch {
	case u == nil:
		return nil
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("the proxy has the scheme %q, want http or https", u.Scheme)
	case u.Hostname() == "" || u.Opaque != "":
		return errors.New("the proxy names no host")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return errors.New("the proxy has a path, a query or a fragment, want scheme, host and port only")
	}
	return nil
}

// proxyAddr returns host:port of a proxy.
func proxyAddr(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// dialRaw makes the connection for the handshake with the server at addr, directly or as
// a tunnel through the proxy.
func (t *Transport) dialRaw(ctx context.Context, network, addr string) (net.Conn, error) {
	if t.opts.Proxy == nil {
		return t.opts.DialContext(ctx, network, addr)
	}
	raw, err := t.opts.DialContext(ctx, network, proxyAddr(t.opts.Proxy))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errProxy, err)
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	tunnel, err := t.tunnel(ctx, raw, addr)
	if err != nil {
		_ = raw.Close() // unused
		return nil, fmt.Errorf("%w: %w", errProxy, err)
	}
	return tunnel, nil
}

// tunnel asks the proxy at the other end of raw for a tunnel to addr, within ctx.
func (t *Transport) tunnel(ctx context.Context, raw net.Conn, addr string) (net.Conn, error) {
	if t.opts.Proxy.Scheme == "https" {
		secure := tls.Client(raw, t.proxyConfig())
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		raw = secure
	}
	// A deadline in the past ends reads and writes when ctx does.
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	err := askTunnel(raw, addr, t.opts.Proxy.User)
	if !stop() {
		return nil, fmt.Errorf("did not open a tunnel in time: %w", context.Cause(ctx))
	}
	return raw, err
}

// proxyConfig returns the configuration that verifies the proxy itself. The proxy gets no
// certificate: the identity is for the server behind it.
func (t *Transport) proxyConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: t.opts.Proxy.Hostname(), RootCAs: t.proxyBundle().pool, NextProtos: []string{"http/1.1"},
		VerifyConnection: func(cs tls.ConnectionState) error { return t.proxyBundle().checkRevoked(cs.VerifiedChains) },
	}
}

func (t *Transport) proxyBundle() *bundle {
	if t.opts.ProxyTrust != nil {
		return t.opts.ProxyTrust.current.Load()
	}
	return &t.id.Current().bundle
}

// askTunnel sends one CONNECT (RFC 9110 §9.3.6) and reads the answer. After that, conn is
// a connection to addr.
func askTunnel(conn net.Conn, addr string, user *url.Userinfo) error {
	if strings.ContainsFunc(addr, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("cannot be asked for the address %q", addr)
	}
	request := "CONNECT " + addr + " HTTP/1.1\r\nHost: " + addr + "\r\n"
	if user != nil {
		password, _ := user.Password()
		request += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)) + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		return err
	}
	r := bufio.NewReader(io.LimitReader(conn, maxProxyAnswer))
	// The answer to CONNECT has no body when it is a success; other bodies are not read.
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect}) //nolint:bodyclose // the tunnel begins where a body would
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("answered with less than a header, or with one of more than %d bytes", maxProxyAnswer)
	case err != nil:
		// The error of net/http quotes what the proxy sent, which may be anything.
		if ne, ok := errors.AsType[net.Error](err); ok {
			return ne
		}
		return errors.New("did not answer in HTTP")
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("refused the tunnel: %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	case r.Buffered() > 0: // a TLS server sends nothing before its client does
		return errors.New("sent more than its answer before the tunnel was used")
	}
	return nil
}
