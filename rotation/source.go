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

// Source delivers candidates until ctx ends, and then returns. yield judges a candidate
// and publishes it. Its error says why the candidate was refused; the last good
// generation then stays in effect. yield must not be called after Watch has returned.
// If Watch returns before ctx ends, it is called again after a pause that grows from
// 100 ms to 30 s. [Identity.Reload] calls it again as well, with a new ctx; Watch must
// then yield what it has.
type Source interface {
	Watch(ctx context.Context, yield func(Material) error) error
}

// Material is a candidate for the next generation, as a [Source] delivers it.
//
// The gate refuses it in these cases:
//   - The key does not fit the leaf.
//   - The chain ends before an issuer that the bundle or the generation in effect knows.
//   - The leaf has expired, is a CA or has no usage for TLS.
//   - The bundle is empty, or holds a certificate that is no CA.
//   - A revocation list is not signed by a CA under the bundle, or is older than the
//     one in effect.
//   - A revocation list is missing, there was one, and that one is not yet so old that
//     its issuer would have replaced it.
//
// Roots in the chain are dropped in silence. A certificate that is not part of the
// chain, a weak key and a key file that others can read are tolerated: they are logged and
// shown in Warnings of [Identity.Status]. A leaf that is not valid yet waits until it
// is valid, unless the leaf in effect has expired.
//
// A certificate that a revocation list has named stays refused until it has ended,
// whatever later lists say; see RevokedKept of [Identity.Status].
//
// A bundle without the root of the own chain is published with Change.Warning. During
// a change of the root that state is intended, and peers may still know the old root.
//
// Each of Others is judged by itself, by the rules for a leaf and its chain. A bad one
// does not hold up the rest: its last good version stays until that expires, and
// is then left out of handshakes. A version that is not valid yet is left out until it
// is valid, unless there is no older one.
type Material struct {
	Certificate tls.Certificate        // leaf first, then its issuers; PrivateKey is a crypto.Signer
	Others      []tls.Certificate      // more certificates for servers, chosen by the name that a client asks for
	Roots       []*x509.Certificate    // trust anchors for peers, in any order
	Revoked     []*x509.RevocationList // of the issuers of peers, at most one list per issuer
	Issuers     []*x509.Certificate    // intermediates that signed lists in Revoked; they give no trust to peers
	Kept        []byte                 // certificates that only earlier lists named and that stay refused, in the form of crl.kept
	Version     string                 // for logs only, for instance a directory name

	// OtherNames has the name of each of Others, and OtherErrors why it cannot be used,
	// or nil. Both are ignored unless they are as long as Others. A certificate with an
	// error may lack everything but the leaf.
	OtherNames  []string
	OtherErrors []error
	// Faults are tolerated faults that the source has found, for Warnings of
	// [Identity.Status]; for instance a key file that others can read.
	Faults []string
}

// LogValue implements [slog.LogValuer]: the version, never the key.
func (m Material) LogValue() slog.Value { return slog.StringValue(m.Version) }

// String returns the version, so that no format verb reaches the key.
func (m Material) String() string { return "material " + m.Version }

// GoString is String: %#v would print the scalar of the private key.
func (m Material) GoString() string { return m.String() }

// otherName returns the name of one of Others. Logs have it, and earlier versions of
// the certificate are found by it.
func (m Material) otherName(i int) string {
	if len(m.OtherNames) == len(m.Others) {
		return m.OtherNames[i]
	}
	return fmt.Sprintf("Others[%d]", i)
}

// otherError returns why the source says that one of Others cannot be used, or nil.
func (m Material) otherError(i int) error {
	if len(m.OtherErrors) == len(m.Others) {
		return m.OtherErrors[i]
	}
	return nil
}

// Observer gets from a source what happens between candidates. If a source has a method
// WatchObserved(ctx, yield, Observer), that method is called in place of Watch. The
// Observer must not be called after WatchObserved has returned.
type Observer interface {
	// Mode says how the source notices changes, for WatchMode of [Identity.Status], and why it
	// cannot do better; why is nil if nothing is wrong.
	Mode(mode string, why error)
	// Failed says that the source cannot be read now. A nil err says that it can be
	// read again.
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

// sourceRunner keeps a source running. When Watch returns, it is called again after a
// growing pause; restart ends Watch and calls it again at once.
type sourceRunner struct {
	source    Source
	propose   func(Material) error // the yield
	observer  Observer
	published func() bool // reports whether a candidate was ever accepted
	failed    chan error  // capacity 1: the error of a source that gives up before that

	mu      sync.Mutex         // guards the fields below
	round   context.CancelFunc // ends the Watch that runs
	waiting []chan error       // of restarts: each gets the first answer of the next Watch
}

func newSourceRunner(src Source, propose func(Material) error, o Observer, published func() bool) *sourceRunner {
	return &sourceRunner{source: src, propose: propose, observer: o, published: published, failed: make(chan error, 1)}
}

// run returns when ctx ends, or when the source gives up before a candidate was
// accepted. A run that accepted a candidate, or lasted longer than maxRestart, resets
// the pause.
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

// watchOnce runs Watch once. round is a child of ctx, and cancel ends it. The restarts
// that wait for this run get its first answer. accepted reports whether a candidate was
// accepted; err is never nil.
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

// restart ends Watch and has it called again. The channel, which is buffered, delivers
// the first answer of the new run.
func (r *sourceRunner) restart() <-chan error {
	done := make(chan error, 1)
	r.mu.Lock()
	r.waiting = append(r.waiting, done)
	cancel := r.round
	r.mu.Unlock()
	cancel()
	return done
}

// answerWaiting answers restarts. Each channel has room for its one answer.
func answerWaiting(waiting []chan error, err error) {
	for _, w := range waiting {
		w <- err
	}
}
