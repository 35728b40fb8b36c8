package ca

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	challengeTime  = 10 * time.Second
	challengeBody  = 4 << 10 // bytes; a key authorization has about 90
	challengesOnce = 16      // validations at a time: each holds a request and a connection
)

var errRedirect = errors.New("redirects are not followed")

// validator looks whether a challenge was answered. It dials names that a profile
// lists and no others, since no order for another one exists; it follows no
// redirect, uses no proxy and hands back no more than a comparison needs: nobody
// reads through it what only the authority can reach.
type validator struct {
	life     context.Context //nolint:containedctx // smallstep's interface has none; this is the authority's life
	rules    *acmeRules
	resolver *net.Resolver
	dialer   *net.Dialer
	http     *http.Client
	slots    chan struct{}
}

func newValidator(life context.Context, rules *acmeRules) *validator {
	v := &validator{life: life, rules: rules, resolver: new(net.Resolver), slots: make(chan struct{}, challengesOnce)}
	if rules.resolver != "" {
		v.resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, rules.resolver)
		}}
	}
	v.dialer = &net.Dialer{Timeout: challengeTime / 2, Resolver: v.resolver}
	v.http = &http.Client{
		Timeout:       challengeTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return errRedirect },
		Transport: &http.Transport{
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: challengeBody,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				return v.dialer.DialContext(ctx, network, withPort(addr, rules.httpPort))
			},
		},
	}
	return v
}

// withPort replaces the port that smallstep has from the RFCs.
func withPort(addr, port string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return net.JoinHostPort(host, port)
	}
	return addr
}

// enter waits for a turn; leave must be called after it.
func (v *validator) enter() (ctx context.Context, leave func(), err error) {
	ctx, cancel := context.WithTimeout(v.life, challengeTime)
	select {
	case v.slots <- struct{}{}:
		return ctx, func() { cancel(); <-v.slots }, nil
	case <-ctx.Done():
		defer cancel()
		return nil, nil, ctx.Err()
	}
}

// Get fetches the answer of http-01.
func (v *validator) Get(url string) (*http.Response, error) {
	ctx, leave, err := v.enter()
	if err != nil {
		return nil, err
	}
	resp, err := v.get(ctx, url)
	if err != nil {
		leave()
		return nil, err
	}
	resp.Body = limitedBody{io.LimitReader(resp.Body, challengeBody), resp.Body, leave}
	return resp, nil
}

func (v *validator) get(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return v.http.Do(req)
}

type limitedBody struct {
	io.Reader
	body  io.Closer
	leave func()
}

func (b limitedBody) Close() error {
	defer b.leave()
	return b.body.Close()
}

// LookupTxt asks for the records of dns-01.
func (v *validator) LookupTxt(name string) ([]string, error) {
	ctx, leave, err := v.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	return v.resolver.LookupTXT(ctx, name)
}

// TLSDial makes the handshake of tls-alpn-01. The certificate is the answer, so
// smallstep's configuration takes any, and compares it (RFC 8737 §3).
func (v *validator) TLSDial(network, addr string, config *tls.Config) (*tls.Conn, error) {
	ctx, leave, err := v.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	conn, err := v.dialer.DialContext(ctx, network, withPort(addr, v.rules.tlsPort))
	if err != nil {
		return nil, err
	}
	out := tls.Client(conn, config)
	if err := out.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return out, nil
}
