package rotation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/internal/backoff"
	"github.com/artstore/artstore-pki/internal/wallclock"
)

const (
	minRestart = 100 * time.Millisecond // before a source that gave up is started again
	maxRestart = 30 * time.Second
)

// Source delivers candidates until ctx ends, and then returns. yield checks and
// publishes one; its error says why it was refused, and the last good one stays.
// yield must not be called after Watch returned. A Watch that returns while ctx
// lives is started again, with a growing pause; it is also started again, with a
// new ctx, by [Identity.Reload], and must then yield what it has.
type Source interface {
	Watch(ctx context.Context, yield func(Material) error) error
}

// Material is a candidate for the next generation, as a [Source] delivers it.
//
// It is refused when a key does not fit its leaf; when the chain ends before an
// issuer that the bundle or the generation in effect knows; when a leaf is expired,
// is a CA or has no usage for TLS; when the bundle is empty or holds a
// certificate that is no CA; when a revocation list is not signed by a CA under
// the bundle, is older than the one in effect, or is missing though there was
// one that its issuer had no reason yet to replace. Self-signed certificates and
// those that do not lead upwards from the leaf are tolerated and not sent; the
// latter, a weak key and a key file that others can read are warned of and shown
// in Warnings of [Identity.Status]. A leaf that is not valid yet waits until it is, unless the one in effect
// has expired.
//
// What a revocation list named stays refused until that certificate has ended,
// whatever later lists say; see RevokedKept of [Identity.Status].
//
// A bundle that no longer holds the root of the own chain is published with
// Change.Warning: on the way from one root to another that state is intended,
// and peers may still know the root.
//
// Each of Others is judged by itself, by the rules for a leaf and its chain. A
// bad one does not keep the rest from being published: the last good one at its
// index stays until it expires, and is then left out of handshakes. One that is
// not valid yet is left out until it is, unless there is nothing older.
type Material struct {
	Certificate tls.Certificate        // leaf first, then its issuers; PrivateKey is a crypto.Signer
	Others      []tls.Certificate      // more of the kind, which a server chooses by the name that a client asks for
	Roots       []*x509.Certificate    // trust anchors for peers, of any order
	Revoked     []*x509.RevocationList // what the issuers of peers took back, at most one list per issuer
	Issuers     []*x509.Certificate    // intermediates that signed lists in Revoked; they give no trust to peers
	Kept        []byte                 // what lists before Revoked named and is refused still, in the form of crl.kept
	Version     string                 // for logs only, for instance a directory name

	// A source of files says here what it found. Of each of Others: its name, and why
	// it cannot be used if so; the certificate then holds the leaf at most. Both are
	// void unless they are as long as Others.
	OtherNames  []string
	OtherErrors []error
	// Faults that are tolerated, for Warnings of [Identity.Status]; for instance a key file that others can read.
	Faults []string
}

// LogValue implements [slog.LogValuer]: the version, never the key.
func (m Material) LogValue() slog.Value { return slog.StringValue(m.Version) }

// String returns the version, so that no format verb reaches the key.
func (m Material) String() string { return "material " + m.Version }

// GoString is String: %#v would print the scalar of the private key.
func (m Material) GoString() string { return m.String() }

// otherName names one of Others for logs, and for finding its earlier versions.
func (m Material) otherName(i int) string {
	if len(m.OtherNames) == len(m.Others) {
		return m.OtherNames[i]
	}
	return fmt.Sprintf("Others[%d]", i)
}

// otherError is why the source found one of Others unusable, or nil.
func (m Material) otherError(i int) error {
	if len(m.OtherErrors) == len(m.Others) {
		return m.OtherErrors[i]
	}
	return nil
}

// Observer is told by a source what happens between candidates. A source that
// has a method WatchObserved(ctx, yield, Observer) gets one with each run, in
// place of Watch. It is called like yield: never after WatchObserved returned.
type Observer interface {
	// Mode says how the source notices changes, for WatchMode of [Identity.Status], and why it
	// cannot do better; why is nil if nothing is wrong.
	Mode(mode string, why error)
	// Failed says that the source cannot be read at present; nil says that it can again.
	Failed(err error)
}

type observedSource interface {
	WatchObserved(ctx context.Context, yield func(Material) error, o Observer) error
}

// watchSource runs the source once, observed if the source supports that.
func watchSource(ctx context.Context, src Source, yield func(Material) error, o Observer) error {
	if s, ok := src.(observedSource); ok {
		return s.WatchObserved(ctx, yield, o)
	}
	return src.Watch(ctx, yield)
}

// Static is a source of one fixed identity, for tests and short-lived commands.
func Static(m Material) Source { return static{m} }

type static struct{ m Material }

func (s static) Watch(ctx context.Context, yield func(Material) error) error {
	if err := yield(s.m); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// sourceRunner keeps a source running: a Watch that returns is started again after a
// growing pause, and restart starts it again at once.
type sourceRunner struct {
	source    Source
	propose   func(Material) error // the yield
	observer  Observer
	published func() bool // whether there was a first success
	failed    chan error  // capacity 1: the error of a source that gives up before that

	mu      sync.Mutex         // guards what follows
	round   context.CancelFunc // ends the Watch that runs
	waiting []chan error       // for the first answer of the next Watch
}

func newSourceRunner(src Source, propose func(Material) error, o Observer, published func() bool) *sourceRunner {
	return &sourceRunner{source: src, propose: propose, observer: o, published: published, failed: make(chan error, 1)}
}

// run returns when ctx ends, or when the source gives up before its first success.
func (r *sourceRunner) run(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		round, cancel := context.WithCancel(ctx)
		began := time.Now()
		accepted, err := r.watchOnce(ctx, round, cancel)
		if round.Err() == nil { // it gave up by itself
			if !r.published() {
				cancel()
				r.failed <- err
				return
			}
			r.observer.Failed(err)
			if accepted || time.Since(began) > maxRestart {
				failures = 0
			}
			_ = wallclock.Sleep(round, backoff.Step(minRestart, maxRestart, failures)) // the loop looks at ctx
			failures++
		}
		cancel()
	}
}

// watchOnce runs Watch with the context round of ctx, which cancel ends, and answers
// the restarts that wait for it. accepted reports whether a candidate was accepted.
func (r *sourceRunner) watchOnce(ctx, round context.Context, cancel context.CancelFunc) (accepted bool, err error) {
	r.mu.Lock()
	waiting := r.waiting
	r.waiting, r.round = nil, cancel
	r.mu.Unlock()
	err = watchSource(round, r.source, func(m Material) error {
		err := r.propose(m)
		answerWaiting(waiting, err)
		waiting = nil
		accepted = accepted || err == nil
		return err
	}, r.observer)
	if err == nil {
		err = errors.New("the source stopped")
	}
	if ctx.Err() != nil {
		err = ErrClosed
	}
	answerWaiting(waiting, err)
	return accepted, err
}

// restart starts the source again. The channel delivers its first answer.
func (r *sourceRunner) restart() <-chan error {
	done := make(chan error, 1)
	r.mu.Lock()
	r.waiting = append(r.waiting, done)
	cancel := r.round
	r.mu.Unlock()
	cancel()
	return done
}

func answerWaiting(waiting []chan error, err error) {
	for _, w := range waiting {
		w <- err // buffered, and answered once
	}
}
