package enroll

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/secret"
)

// ErrNoToken reports that an enrolment was needed and [Config.Token] returned no token.
var ErrNoToken = errors.New("no enrolment token")

// Issue enrols once and returns the identity with the revoked lists of the authority. With
// [Config.Dir] it is stored there first. If files that are not ours are in its way, Issue fails
// before the token is spent, and so it does if the lists cannot be fetched or do not verify:
// nothing would fetch them later. An authority that has no lists, like a stock step-ca, gives an
// identity without them. If the answer is lost, another call with the same token and directory
// gets the same certificate.
func Issue(ctx context.Context, cfg Config) (rotation.Material, error) {
	s, err := New(cfg)
	if err != nil {
		return rotation.Material{}, err
	}
	var old *identity // its lists check the authority, and its successor takes them over
	if s.store != nil {
		release, err := s.store.acquire()
		if err != nil {
			return rotation.Material{}, err
		}
		defer release()
		if old, err = s.store.load(); err == nil {
			s.listHolder.Store(old)
		}
	}
	i, _, err := s.enrolWithLists(ctx, old, true)
	if err != nil {
		return rotation.Material{}, err
	}
	return s.storeIdentity(ctx, i)
}

// Renew replaces the certificate in [Config.Dir] once, by one for a new key, and refreshes
// the trust bundle and the revoked lists. It needs no token. It works with an expired
// certificate for as long as the authority permits it.
func Renew(ctx context.Context, cfg Config) (rotation.Material, error) {
	m, _, err := renewOnce(ctx, cfg, func(*identity, time.Time) bool { return true })
	return m, err
}

// RenewIfDue is [Renew] for programs that a timer starts. The renewal is due between 0.60
// and 0.70 of the life, at a point that depends on the certificate alone, so that a fleet
// with the same timer is spread. Before that it asks the authority whether it orders a
// renewal, with one request that takes 5 s at most, and returns the stored identity if it
// does not. An authority that does not answer orders nothing. With [Config.PollOnly] there
// is no such request.
//
// Revoked lists are refreshed without a renewal, with renewed false, once one of them is in the
// second half of its validity: a list that is over lets some programs refuse everybody. A failure
// of that is logged. The trust bundle comes with a renewal only.
func RenewIfDue(ctx context.Context, cfg Config) (m rotation.Material, renewed bool, err error) {
	return renewOnce(ctx, cfg, (*identity).due)
}

// orderWait bounds the question whether a renewal is ordered: the timer comes again.
const orderWait = 5 * time.Second

// ordered asks the authority whether it orders a renewal of i. Its certificate must be one
// that can be shown.
func (s *Source) ordered(ctx context.Context, i *identity) bool {
	if s.cfg.PollOnly || !s.wallNow().Before(i.leaf().NotAfter) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, orderWait)
	defer cancel()
	s.listHolder.Store(i)
	conn, err := s.newWatchConn(i)
	if err != nil {
		return false
	}
	defer conn.Close()
	// Not the digest of the stored bundle: whether a program has loaded it is not known here.
	answer, err := conn.ask(ctx, watchValues{}, 0, make(chan struct{}, 1))
	if err != nil {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "not known whether a renewal is ordered", slog.Any("err", err))
		return false
	}
	return answer.Renewal != nil
}

// due reports whether i must be renewed. A hash of its certificate takes the place of a
// random number, so that each call gives the same answer.
func (i *identity) due(now time.Time) bool {
	leaf := i.leaf()
	sum := sha256.Sum256(leaf.Raw)
	u := float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53)
	return !now.Before(lifetime.RenewAt(lifetime.IssuedAt(leaf.NotBefore, leaf.NotAfter), leaf.NotAfter, u))
}

// renewOnce renews the stored identity if due says so, as the one writer of the directory.
func renewOnce(ctx context.Context, cfg Config, due func(*identity, time.Time) bool) (_ rotation.Material, renewed bool, err error) {
	s, err := New(cfg)
	if err != nil {
		return rotation.Material{}, false, err
	}
	old, release, err := s.lockStored("renewing the certificate") // before due: another process may be renewing
	if err != nil {
		return rotation.Material{}, false, err
	}
	defer release()
	if !due(old, s.wallNow()) && !s.ordered(ctx, old) {
		m, err := s.refreshStored(ctx, old)
		return m, false, err
	}
	m, err := s.renewStored(ctx, old)
	return m, err == nil, err
}

// lockStored makes this process the one writer of the directory until release is called, and
// returns the identity there. doing is for errors.
func (s *Source) lockStored(doing string) (i *identity, release func(), err error) {
	if s.store == nil {
		return nil, nil, errors.New(doing + ": no directory holds one (Dir)")
	}
	if _, err := os.Stat(s.store.dir); err != nil { // acquire would make it
		return nil, nil, fmt.Errorf("%s: %w", doing, err)
	}
	if release, err = s.store.acquire(); err != nil {
		return nil, nil, err
	}
	if i, err = s.store.load(); err != nil {
		release()
		return nil, nil, err
	}
	return i, release, nil
}

// renewStored renews old and stores the result. If bundle or lists cannot be refreshed, it
// logs that: the new certificate must not be lost for it.
func (s *Source) renewStored(ctx context.Context, old *identity) (rotation.Material, error) {
	s.listHolder.Store(old)
	i, err := s.renew(ctx, old)
	if unverified(err) {
		i, err = s.reanchor(ctx, old, err)
	}
	if end := old.leaf().NotAfter; err != nil && s.remaining(end) <= 0 {
		err = fmt.Errorf("the certificate expired at %s: %w", end.UTC().Format(time.RFC3339), err)
	}
	if err != nil {
		return rotation.Material{}, err
	}
	if err := i.carryOver(old, s.wallNow()); err != nil {
		return rotation.Material{}, err
	}
	if roots, err := s.bundle(ctx, i.roots); err == nil {
		i.roots = roots
	} else {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "trust bundle not refreshed", slog.Any("err", err))
	}
	got, err := s.fetchLists(ctx, i.roots, "")
	if err == nil {
		i.lists, i.kept, err = i.succession(got, s.wallNow())
	}
	s.logLists(ctx, i, err)
	return s.storeIdentity(ctx, i)
}

// storeIdentity stores i, if there is a directory, and then removes the pending key of its
// enrolment. In this order the key is on disk at every moment. The head of the log comes
// last, because nothing depends on it.
func (s *Source) storeIdentity(ctx context.Context, i *identity) (rotation.Material, error) {
	if s.store != nil {
		if _, err := s.store.save(i); err != nil {
			return rotation.Material{}, err
		}
	}
	if err := s.pending.forget(); err != nil {
		return rotation.Material{}, err
	}
	s.storeHead(ctx, i)
	s.recordOrigin(ctx, i)
	return i.material(), nil
}

func (s *Source) newDialer() dialer {
	return dialer{timeout: s.cfg.Timeout, name: s.cfg.AuthorityName, reporter: s.reporter(), checkRevoked: s.checkRevoked, dial: s.cfg.DialContext, observe: s.observe}
}

// recordOrigin stores where i comes from. A failure is only logged.
func (s *Source) recordOrigin(ctx context.Context, i *identity) {
	if err := s.storeOrigin(i); err != nil {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "address of the authority not kept", slog.Any("err", err))
	}
}

// tokenOrder is a token with its claims: the service and its names, and the root of the
// authority.
type tokenOrder struct {
	token secret.String
	claims
}

// order gets a token from Config.Token and parses it.
func (s *Source) order(ctx context.Context) (o tokenOrder, err error) {
	if s.cfg.Token == nil {
		return o, ErrNoToken
	}
	if o.token, err = s.cfg.Token(ctx); err != nil {
		return o, err
	}
	if o.token.IsZero() {
		return o, ErrNoToken
	}
	o.claims, err = parseToken(o.token)
	return o, err
}

// enrol gets an identity for a token. old is the identity that it replaces, or nil. The
// token is sent last, so that everything that may fail before that does not spend it.
func (s *Source) enrol(ctx context.Context, old *identity) (*identity, error) {
	want, roots, err := s.prepareEnrolment(ctx)
	if err != nil {
		return nil, fmt.Errorf("enrolling: %w", err)
	}
	return s.signWithToken(ctx, want, roots, old)
}

// prepareEnrolment gets a token, and the trust bundle of the authority that it may be sent to.
func (s *Source) prepareEnrolment(ctx context.Context) (want tokenOrder, roots []*x509.Certificate, err error) {
	if want, err = s.order(ctx); err != nil {
		return want, nil, err
	}
	if roots, err = s.trustAnchors(ctx, want.pin); err != nil {
		return want, nil, err
	}
	if want.pin != nil && !slices.ContainsFunc(roots, want.pin.of) {
		return want, nil, fmt.Errorf("the token pins the root %s, and the authority that the configuration trusts has %s: not sent",
			hex.EncodeToString(want.pin[:]), describe(roots))
	}
	return want, roots, nil
}

// keyType returns the kind of the next key: the configured one, else that of old, the
// identity that it replaces, which may be nil.
func (s *Source) keyType(old *identity) KeyType {
	switch {
	case s.cfg.KeyType != "":
		return s.cfg.KeyType
	case old != nil:
		return keyTypeOf(old.key)
	}
	return keyECP256
}

// signWithToken sends a token to the authority under roots, with a CSR for a pending key.
//
// Crash story: before /sign nothing is lost. After it, the same token with the pending key
// gets the same certificate again, until storeIdentity or install has removed that key.
func (s *Source) signWithToken(ctx context.Context, want tokenOrder, roots []*x509.Certificate, old *identity) (*identity, error) {
	key, err := s.pending.keyFor(want.token, s.keyType(old))
	if err != nil {
		return nil, fmt.Errorf("enrolling: %w", err)
	}
	csr, err := request(key, want.subject, want.names)
	if err != nil {
		return nil, fmt.Errorf("enrolling: %w", err)
	}
	c, err := s.newDialer().newClient(s.cfg.URL, roots, nil)
	if err != nil {
		return nil, fmt.Errorf("enrolling: %w", err)
	}
	defer c.Close()
	chain, err := c.Sign(ctx, csr, want.token)
	if forgetting := s.pending.onAnswer(err); forgetting != nil {
		return nil, errors.Join(err, forgetting)
	}
	if err != nil {
		return nil, err
	}
	i := &identity{chain: chain, key: key, roots: roots, byToken: true}
	if err := i.verify(s.wallNow()); err != nil {
		return nil, fmt.Errorf("enrolling: %w", err)
	}
	return i, nil
}

// trustAnchors fetches the trust bundle, verified by Config.Roots, by
// Config.RootFingerprint, or by the fingerprint in the token: the first of them that is
// given.
func (s *Source) trustAnchors(ctx context.Context, fromToken *fingerprint) ([]*x509.Certificate, error) {
	if len(s.cfg.Roots) > 0 {
		return s.newDialer().bundle(ctx, s.cfg.URL, s.cfg.Roots)
	}
	pin := s.pin
	if pin == nil {
		pin = fromToken
	}
	if pin == nil {
		return nil, fingerprintError("nothing to trust the authority by: neither roots nor a fingerprint, and none in the token")
	}
	return s.newDialer().bootstrap(ctx, s.cfg.URL, pin)
}

// bundle fetches the trust bundle, verified by the roots in effect. If these do not verify
// the authority any more, because its root was changed while this service was off, it
// uses the configured roots or fingerprint.
func (s *Source) bundle(ctx context.Context, inEffect []*x509.Certificate) ([]*x509.Certificate, error) {
	roots, err := s.newDialer().bundle(ctx, s.cfg.URL, inEffect)
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); !unknown || (len(s.cfg.Roots) == 0 && s.pin == nil) {
		return roots, err
	}
	roots, again := s.trustAnchors(ctx, nil)
	if again != nil {
		return nil, fmt.Errorf("%w; and by the configured anchor: %w", err, again)
	}
	return roots, nil
}

// renew gets a successor of cur without an enrolment token. If cur is valid by the clock
// here or by that of the authority, it asks over mutual TLS. If cur has expired, or the
// handshake is refused, it sends a token signed with the key of cur: an alert has no date,
// so cur may have expired by a clock that is not known here.
func (s *Source) renew(ctx context.Context, cur *identity) (*identity, error) {
	var refused error
	if end := cur.leaf().NotAfter; s.wallNow().Before(end) || s.authority().Before(end) {
		i, err := s.rekey(ctx, cur)
		if !isDenied(err) { // err may be nil
			return i, err
		}
		refused = err
	}
	if _, answered := errors.AsType[*Error](refused); answered && s.remaining(cur.leaf().NotAfter) > 0 {
		return nil, refused // the authority has refused a certificate that is valid by both clocks
	}
	i, err := s.renewExpired(ctx, cur)
	if err != nil {
		return nil, errors.Join(refused, err)
	}
	return i, nil
}

// rekey gets a successor of cur for a new key, over mutual TLS. The roots of the result are
// nil unless the new chain needs a newer bundle.
func (s *Source) rekey(ctx context.Context, cur *identity) (*identity, error) {
	key, csr, err := s.newRekey(cur)
	if err != nil {
		return nil, err
	}
	shown := cur.certificate()
	c, err := s.newDialer().newClient(s.cfg.URL, cur.roots, &shown)
	if err != nil {
		return nil, fmt.Errorf("renewing the certificate: %w", err)
	}
	defer c.Close()
	c.TrustDigest = stepapi.TrustDigest(cur.roots)
	chain, err := c.Rekey(ctx, csr)
	if err != nil {
		return nil, err
	}
	return s.successor(ctx, cur, chain, key)
}

// newRekey makes a key, and a CSR (PEM) for it with the names of cur.
func (s *Source) newRekey(cur *identity) (crypto.Signer, []byte, error) {
	key, err := s.keyType(cur).generate()
	if err != nil {
		return nil, nil, fmt.Errorf("renewing the certificate: making a key: %w", err)
	}
	csr, err := rekeyRequest(key, cur.leaf())
	if err != nil {
		return nil, nil, fmt.Errorf("renewing the certificate: %w", err)
	}
	return key, csr, nil
}

// successor makes an identity of a chain that the authority has issued as a successor of
// cur, and verifies it.
func (s *Source) successor(ctx context.Context, cur *identity, chain []*x509.Certificate, key crypto.Signer) (_ *identity, err error) {
	i := &identity{chain: chain, key: key, roots: cur.roots}
	if i.verify(s.wallNow()) == nil {
		i.roots = nil // carryOver sets them: the bundle may have been refreshed meanwhile
		return i, nil
	}
	// The chain may end at a root that was added after the bundle was fetched.
	if i.roots, err = s.bundle(ctx, cur.roots); err != nil {
		return nil, fmt.Errorf("renewing the certificate: its chain does not end at a known root: %w", err)
	}
	if err := i.verify(s.wallNow()); err != nil {
		return nil, fmt.Errorf("renewing the certificate: %w", err)
	}
	return i, nil
}
