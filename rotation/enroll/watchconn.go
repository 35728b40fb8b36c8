package enroll

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/internal/stepapi"
)

const (
	// maxWatchAnswer bounds an answer, in bytes. Normal ones are below 300.
	maxWatchAnswer = 4 << 10
	// maxTag is the longest tag that is taken, in bytes.
	maxTag = 64
	// maxWithin bounds the time that an order may give, in seconds.
	maxWithin = 366 * 24 * 3600
)

// watchValues are what the caller of one request has in effect.
type watchValues struct {
	trust string // digest of the bundle
	lists string // tag of the lists, "" if it is not known
	order obeyed // the last order that was obeyed

	delivery delivery // what is served, as far as is known
}

// obeyed names an order. Ids begin again at a lower one when the record of the authority was
// restored from a backup, and the nonce of such an order is another one.
type obeyed struct {
	id    int64
	nonce string
}

// watchAnswer is the answer to a request that was held.
type watchAnswer struct {
	stepapi.WatchResponse
	after time.Duration // as the authority asked for in Retry-After
	held  time.Duration // how long a request that was cut had been held
}

// parseWatch reads an answer. A digest or a tag of another form than ours is an error: it
// would be sent back with the next request.
func parseWatch(body []byte) (r stepapi.WatchResponse, err error) {
	if err := json.Unmarshal(body, &r); err != nil {
		return stepapi.WatchResponse{}, errors.New("the answer is not the JSON expected")
	}
	if len(r.Trust) != 64 || strings.Trim(r.Trust, "0123456789abcdef") != "" {
		return stepapi.WatchResponse{}, errors.New("the answer has no digest of the trust bundle")
	}
	if r.Lists == "" || len(r.Lists) > maxTag || strings.ContainsFunc(r.Lists, func(c rune) bool { return c <= ' ' || c > '~' || c == '"' }) {
		return stepapi.WatchResponse{}, errors.New("the answer has no tag of the revoked lists")
	}
	if o := r.Renewal; o != nil && (o.ID <= 0 || len(o.Nonce) > maxTag || math.IsNaN(o.Within) || o.Within < 0 || o.Within > maxWithin) {
		return stepapi.WatchResponse{}, errors.New("the answer has an order without a number, or without a time to follow it in")
	}
	return r, nil
}

// tagOf returns an ETag without its quotes and without the mark of a weak one (RFC 9110
// §8.8.3).
func tagOf(etag string) string { return strings.Trim(strings.TrimPrefix(etag, "W/"), `"`) }

// watchConn is a client whose connection is used for one request after the other. It has the
// certificate and the roots of one identity, and shares no connection with other requests:
// one that is held must not delay a renewal.
type watchConn struct {
	*Client
	leaf   *x509.Certificate
	trust  string                                // digest of the roots
	chains atomic.Pointer[[][]*x509.Certificate] // of the server, after the handshake
}

func (s *Source) newWatchConn(i *identity) (*watchConn, error) {
	w := &watchConn{leaf: i.leaf(), trust: stepapi.TrustDigest(i.roots)}
	d := s.newDialer()
	d.observe = nil // the date of an answer that was held says nothing about the clocks
	d.keepAlive = true
	d.checkRevoked = func(chains [][]*x509.Certificate) error {
		w.chains.Store(&chains)
		return s.checkRevoked(chains)
	}
	shown := i.certificate()
	c, err := d.newClient(s.cfg.URL, i.roots, &shown)
	if err != nil {
		return nil, err
	}
	c.http.Timeout = mostWait + s.cfg.Timeout
	w.Client = c
	return w, nil
}

// fits reports whether the connection has the certificate and the roots of i.
func (c *watchConn) fits(i *identity) bool {
	return c != nil && c.leaf == i.leaf() && c.trust == stepapi.TrustDigest(i.roots)
}

// serverChains returns the chains of the server as the handshake has verified them.
func (c *watchConn) serverChains() [][]*x509.Certificate {
	if chains := c.chains.Load(); chains != nil {
		return *chains
	}
	return nil
}

// ask sends one request and waits for its answer. It signals on held, which has room for one,
// when the request was sent and has had no answer for a while.
func (c *watchConn) ask(ctx context.Context, have watchValues, wait time.Duration, held chan<- struct{}) (watchAnswer, error) {
	var sent atomic.Int64 // ns; net/http repeats a request if it finds the connection closed
	signal := time.AfterFunc(mostWait*2, func() {
		select {
		case held <- struct{}{}:
		default:
		}
	})
	defer signal.Stop()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(w httptrace.WroteRequestInfo) {
		if w.Err == nil && ctx.Err() == nil {
			sent.Store(time.Now().UnixNano())
			signal.Reset(heldAfter)
		}
	}})
	query := url.Values{
		"trust": {have.trust}, "lists": {have.lists}, "renewal": {strconv.FormatInt(have.order.id, 10)}, "nonce": {have.order.nonce},
		"wait": {strconv.Itoa(int(wait / time.Second))},
	}
	have.delivery.addTo(query, time.Now())
	in := apiRequest{operation: "waiting for changes", path: stepapi.PathWatch + "?" + query.Encode(), limit: maxWatchAnswer}
	r, err := c.roundTrip(ctx, in)
	if err != nil {
		if at := sent.Load(); at > 0 {
			return watchAnswer{held: time.Since(time.Unix(0, at))}, err
		}
		return watchAnswer{}, err
	}
	if r.status != http.StatusOK {
		return watchAnswer{}, &Error{Status: r.status, Message: "not the status of an answer", operation: in.operation}
	}
	parsed, err := parseWatch(r.body)
	if err != nil {
		return watchAnswer{}, errors.Join(errors.New(in.operation), err)
	}
	return watchAnswer{WatchResponse: parsed, after: retryAfter(r.header)}, nil
}

// Report tells the authority what [Source.Delivered] was told last, by one request that is answered at
// once. It is for programs that end: Watch reports by itself. It needs a certificate in
// [Config.Dir], and does nothing if there is nothing to report. An authority without this request
// answers 404.
func (s *Source) Report(ctx context.Context) error {
	const doing = "reporting what is served"
	d := s.delivery.Load()
	if d == nil {
		return nil
	}
	if s.store == nil {
		return errors.New(doing + ": no directory holds a certificate (Dir)")
	}
	i, err := s.store.load()
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	s.listHolder.Store(i) // the server is checked against the lists that are stored
	conn, err := s.newWatchConn(i)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer conn.Close()
	if _, err := conn.ask(ctx, watchValues{delivery: *d}, 0, make(chan struct{}, 1)); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}
