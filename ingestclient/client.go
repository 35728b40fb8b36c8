package ingestclient

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/rotation"
)

// File is a stored file.
type File struct {
	FileID   string
	Name     string
	Size     int64         // bytes
	SHA256   string        // 64 lower-case hex digits; for uploads computed here and equal to the answer's
	Element  string        // base URL of the Storage Element that has it
	Attempts int           // 1 if the first one succeeded
	Dropped  []string      // form fields that were sent and not kept, sorted: the two Storage Elements know different ones
	Replayed bool          // an earlier attempt without an answer turned out to have stored it
	Took     time.Duration // all attempts together
	Uploaded time.Time     // from lists and look-ups: when, by the element; of a list by our clock; zero if it does not say
	Status   string        // from lists and look-ups: "active", "expired" or "deleted" where the element says it
}

// Named reports whether an upload of name gets the name of f at an element: that is the last
// part of the path, with characters escaped that a form cannot have.
func (f *File) Named(name string) bool { return f.Name == cleanName(name) }

// Stats counts since New.
type Stats struct {
	Uploads       int64 // stored
	UploadErrors  int64 // failed
	Bytes         int64 // of content stored
	Retries       int64 // attempts after the first
	Rejected      int64 // answers with 401
	TokenFetches  int64 // requests sent to the token endpoint
	TokenFailures int64 // of them those without a token
	Swaps         int64 // new generations of the identity in use
	InFlight      int64 // requests now; the others are totals
}

// Observer has the functions that a client calls when something has happened. Any
// of them may be nil. They are called from many goroutines at a time and must not
// block. An error that was passed is not changed afterwards.
type Observer struct {
	// Upload is called when an upload has ended, after all its attempts. After a
	// success err is nil, size is the length of the content in bytes, and attempts
	// is how often it was sent; after a failure both numbers are 0.
	Upload func(took time.Duration, size int64, attempts int, err error)
	// Retry is called when the given attempt, counted from 1, has failed and another
	// will follow. sent is how many bytes of the body had been handed to the kernel.
	Retry func(attempt int, sent int64, err error)
	// Token is called when a request to the token endpoint has ended.
	Token func(took time.Duration, err error)
	// Swap is called when requests use a new generation of the identity.
	Swap func()
}

// complete puts functions that do nothing in the place of nil, so that callers
// need not ask.
func (o Observer) complete() Observer {
	if o.Upload == nil {
		o.Upload = func(time.Duration, int64, int, error) {}
	}
	if o.Retry == nil {
		o.Retry = func(int, int64, error) {}
	}
	if o.Token == nil {
		o.Token = func(time.Duration, error) {}
	}
	if o.Swap == nil {
		o.Swap = func() {}
	}
	return o
}

// Client uploads files over a rotating identity. It is safe for concurrent use.
type Client struct {
	settings *settings // not embedded: its fields would become the client's API
	tokens   *tokenManager
	selector *elementSelector
	count    *counters
	id       leaseSource
	closed   sync.Once

	mu       sync.Mutex // guards the rest; never held across I/O
	inFlight map[*context.CancelCauseFunc]struct{}
	draining bool
	idle     chan struct{} // closed when draining and no request is in flight
}

// counters are Stats being counted.
type counters struct {
	uploads, uploadErrors, bytes, retries, rejected, fetches, fetchFailures, swaps atomic.Int64
}

// New returns a client that presents id to both endpoints; it does not own id.
// Everything that is wrong with cfg is reported in one error. Nothing is sent
// until the first request, and no token fetched.
func New(cfg Config, id *rotation.Identity) (*Client, error) {
	s, err := cfg.parse(id)
	if err != nil {
		return nil, err
	}
	if id == nil {
		return newClient(s, cleartextSource(s)), nil
	}
	own, err := rotatingSource(id, s)
	if err != nil {
		return nil, fmt.Errorf("checking the ingest configuration: %w", err)
	}
	return newClient(s, own), nil
}

func newClient(s *settings, id leaseSource) *Client {
	count := &counters{}
	k := newTokenManager(s, id, count)
	first := k.cur.Load().lease
	s.Logger.Info("ingest client opened", "client_id", s.ClientID)
	if first.serial != "" {
		s.Logger.Info("TLS identity loaded", first.describe(s)...)
	}
	return &Client{
		settings: s, tokens: k, selector: newElementSelector(s, k), count: count, id: id,
		inFlight: map[*context.CancelCauseFunc]struct{}{}, idle: make(chan struct{}),
	}
}

// enter registers a request. It returns the context that Close ends.
func (c *Client) enter(ctx context.Context) (context.Context, func(), error) {
	// The cancel function is registered, rather than a context of the client joined
	// to ctx: that would cost a goroutine for each request.
	ctx, cancel := context.WithCancelCause(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining {
		cancel(ErrClosed)
		return nil, nil, ErrClosed
	}
	c.inFlight[&cancel] = struct{}{}
	return ctx, func() {
		cancel(nil)
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.inFlight, &cancel)
		if c.draining && len(c.inFlight) == 0 {
			close(c.idle)
		}
	}, nil
}

// Shutdown refuses new requests with [ErrClosed] and waits for those in flight. If
// ctx ends first, they go on and its cause is returned; Close would end them.
func (c *Client) Shutdown(ctx context.Context) error {
	c.drain()
	select {
	case <-c.idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("shutting down the ingest client: %w", context.Cause(ctx))
	}
}

func (c *Client) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining {
		return
	}
	c.draining = true
	if len(c.inFlight) == 0 {
		close(c.idle)
	}
}

// Close ends requests in flight with [ErrClosed], waits until they and all
// goroutines are gone, and closes the connections. It may be called again, and
// during anything else. The error is always nil.
func (c *Client) Close() error {
	// The order matters: requests use the token manager, and its fetches use the
	// connections.
	c.drain()
	c.mu.Lock()
	for cancel := range c.inFlight {
		(*cancel)(ErrClosed)
	}
	c.mu.Unlock()
	<-c.idle
	c.tokens.shutdown()
	c.id.close()
	c.closed.Do(func() { c.settings.Logger.Info("ingest client closed", "client_id", c.settings.ClientID) })
	return nil
}

// Format prints the same for every verb, so that no dump of a client shows a secret
// or reads a field that another goroutine writes.
func (c *Client) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "ingestclient.Client") }

// Stats returns the counters. They are read one by one.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	inFlight := len(c.inFlight)
	c.mu.Unlock()
	n := c.count
	return Stats{
		Uploads: n.uploads.Load(), UploadErrors: n.uploadErrors.Load(), Bytes: n.bytes.Load(), Retries: n.retries.Load(),
		Rejected: n.rejected.Load(), TokenFetches: n.fetches.Load(), TokenFailures: n.fetchFailures.Load(),
		Swaps: n.swaps.Load(), InFlight: int64(inFlight),
	}
}
