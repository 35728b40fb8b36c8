package ca

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/smallstep/certificates/authority"

	"github.com/artstore/artstore-pki/ca/internal/acmesrv"
	"github.com/artstore/artstore-pki/ca/internal/acmestore"
	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/crl"
	"github.com/artstore/artstore-pki/ca/internal/enrolkey"
	"github.com/artstore/artstore-pki/ca/internal/lru"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/internal/throttle"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/secret"
)

// Options open an authority.
type Options struct {
	// Dir is the state directory that Init made.
	Dir string
	// Password decrypts the keys. Empty reads PasswordFile.
	Password secret.String
	// PasswordFile is read whenever a key is: at Open, at Reload and by rotations.
	// Empty is secrets/password, which is there only if Init generated it.
	PasswordFile string
	// AuditLog replaces audit_log of pki.yaml, if it is not empty.
	AuditLog string
	// Logger nil means slog.Default.
	Logger *slog.Logger
	// Registerer nil means no metrics.
	Registerer prometheus.Registerer
}

// Errors of reading keys, for callers that know where the password comes from.
var (
	ErrWrongPassword = statedir.ErrWrongPassword
	ErrNoPassword    = statedir.ErrNoPassword
)

// Authority issues and records. It is safe for concurrent use; it starts no goroutines.
type Authority struct {
	files      statedir.Dir
	record     *store.Store
	acmeRecord *acmestore.Store // the part of the record that ACME works on
	logger     *slog.Logger
	metrics    *metrics
	auditMu    sync.RWMutex // held by who writes to audit, so that a reload closes none in use
	audit      *auditLog
	auditPath  string          // of Options
	life       context.Context //nolint:containedctx // validations of ACME challenges go on when the request that asked for them has ended, and end with the authority
	end        context.CancelFunc
	state      atomic.Pointer[state]
	changeSem  chan struct{} // held to change the state; a channel, because the holder does I/O and waiters must be able to leave
	refusals   quota
	soundKeys  struct { // RSA keys that validateKey has let pass
		sync.Mutex
		lru.Cache[[sha256.Size]byte, struct{}]
	}
	swept            throttle.Throttle // of sweeps of spent tokens
	lists            *crl.Lists
	live             liveCounts
	full             fullLineages
	revoked          atomic.Pointer[revokedAnswer]
	revokes          broadcast // wakes Watch when this process revokes
	logKey           *translog.Key
	head             atomic.Pointer[signedHead] // newest signed head of the log, nil before the first entry
	marker           marker
	sequencingFailed atomic.Bool // the log could not be extended the last time
}

// state is everything that a request needs, as one immutable value. Rotation and
// reload publish a new one; a request that began with the old one ends with it.
type state struct {
	config        policy.Config
	rules         *policy.Rules
	roots         []*x509.Certificate          // the signing one first
	intermediates []*x509.Certificate          // the issuing one first; older ones while leaves of theirs live
	issuerPEM     map[*x509.Certificate]string // intermediates in PEM: nearly every answer has one
	signer        crypto.Signer                // of intermediates[0]
	digest        string                       // stepapi.TrustDigest of roots
	smallstep     *authority.Authority
	acme          *acmesrv.Server
	enrolmentKeys map[string]enrolkey.Key // enrolment keys for tokens of enrollers, by the service that they are for
	rootLists     map[string]*crl.List    // by subject key id, see crl.WriteRoot
	limits        *limits                 // carried over while its configuration stays
	superseded    chan struct{}           // closed when a newer state has been published
}

// Open opens the state directory that [Init] made: configuration, trust, keys and
// record. Close it after its users are done.
func Open(ctx context.Context, opt Options) (_ *Authority, err error) {
	cfg, err := policy.Load(opt.Dir)
	if err != nil {
		return nil, err
	}
	f := statedir.Dir{Path: opt.Dir, Password: opt.Password, PasswordFile: opt.PasswordFile}
	a := &Authority{logger: opt.Logger, auditPath: opt.AuditLog, changeSem: make(chan struct{}, 1)}
	if a.logger == nil {
		a.logger = slog.Default()
	}
	a.life, a.end = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	roots, intermediates, err := f.ReadTrust()
	if err != nil {
		return nil, err
	}
	signer, err := f.ReadKey(intermediates[0], "")
	if err != nil {
		return nil, err
	}
	if f.Plain, err = f.KeptPlain(intermediates[0]); err != nil {
		return nil, err
	}
	a.files = f
	if err := a.openRecord(ctx, cfg); err != nil {
		return nil, err
	}
	a.lists = crl.New(crl.Config{Record: a.record, Logger: a.logger, Key: func(c *x509.Certificate) (crypto.Signer, error) { return f.ReadKey(c, "") }})
	audit, err := a.openAudit(cfg)
	if err != nil {
		return nil, err
	}
	a.audit = audit
	st := &state{config: cfg, roots: roots, intermediates: intermediates, signer: signer}
	if err := a.publish(st); err != nil {
		return nil, err
	}
	a.warn(ctx, st)
	a.warnOfExposure(ctx, cfg)
	a.warnOfSharedNames(ctx, st.rules)
	// A crash between the commit of a rotation and its copies is healed here.
	a.copyTrust(ctx, st)
	a.metrics, err = newMetrics(opt.Registerer, a)
	return a, err
}

// publish completes a state (rules, embedded authority) and makes it current. On
// an error the old one stays.
func (a *Authority) publish(st *state) (err error) {
	if st.rules, err = st.config.Parse(); err != nil {
		return err
	}
	for _, i := range st.intermediates {
		if cacert.RootOf(i, st.roots) == nil {
			return fmt.Errorf("intermediate %q was signed by none of the roots", i.Subject.CommonName)
		}
	}
	if st.rootLists, err = crl.ReadRoots(a.files.Path, st.roots); err != nil {
		return err
	}
	if st.smallstep, err = a.embedSmallstep(st); err != nil {
		return fmt.Errorf("building the embedded authority: %w", err)
	}
	if st.enrolmentKeys, err = enrolkey.ForEnrollers(a.files, st.rules); err != nil {
		return err
	}
	st.acme = a.newACME(st)
	if old := a.state.Load(); old != nil && old.limits.sameRates(st.rules.Limits) {
		st.limits = old.limits
	} else {
		st.limits = newLimits(st.rules.Limits)
	}
	st.issuerPEM = make(map[*x509.Certificate]string)
	for _, c := range st.intermediates {
		st.issuerPEM[c] = string(pemfile.EncodeCertificates([]*x509.Certificate{c}))
	}
	st.digest = stepapi.TrustDigest(st.roots)
	st.superseded = make(chan struct{})
	if old := a.state.Swap(st); old != nil {
		close(old.superseded)
	}
	return nil
}

// Roots are the current trust bundle, the root that signs first.
func (a *Authority) Roots() []*x509.Certificate { return slices.Clone(a.state.Load().roots) }

// Config is the configuration in effect. Its maps are shared: read only.
func (a *Authority) Config() policy.Config { return a.state.Load().config }

// Reload reads pki.yaml, the trust, the password file and the keys again, and
// opens the audit log anew. On an error the old state stays in effect, as a whole.
func (a *Authority) Reload(ctx context.Context) error {
	var audit *auditLog
	err := a.update(ctx, func(next *state) (err error) {
		before := next.config
		if next.config, err = policy.Load(a.files.Path); err != nil {
			return err
		}
		if err := before.CheckReload(next.config); err != nil {
			return err
		}
		if next.roots, next.intermediates, err = a.files.ReadTrust(); err != nil {
			return err
		}
		if next.signer, err = a.files.ReadKey(next.intermediates[0], ""); err != nil {
			return err
		}
		audit, err = a.openAudit(next.config)
		return err
	})
	if err != nil {
		return errors.Join(err, audit.Close())
	}
	a.warn(ctx, a.state.Load())
	a.warnOfExposure(ctx, a.state.Load().config)
	a.warnOfSharedNames(ctx, a.state.Load().rules)
	a.lists.Reset() // with the keys of retired issuers
	a.auditMu.Lock()
	audit, a.audit = a.audit, audit
	a.auditMu.Unlock()
	return audit.Close()
}

// warn says what the configuration allows and its author may not have meant.
func (a *Authority) warn(ctx context.Context, st *state) {
	for _, text := range st.rules.Overlaps() {
		a.logger.WarnContext(ctx, "profiles overlap", "err", text)
	}
	for _, text := range st.rules.Unprovable() {
		a.logger.WarnContext(ctx, "ACME cannot prove a name", "err", text)
	}
}

// warnOfExposure says at each start and reload what others can read or change. It
// stops nothing: what could be read may have been read, and an authority that does
// not start takes the certificates of all services with it.
func (a *Authority) warnOfExposure(ctx context.Context, cfg policy.Config) {
	for _, e := range a.files.Exposures(cfg.RootKey, cfg.Database) {
		a.logger.ErrorContext(ctx, "others can read or change files of the authority", "err", e.Text)
	}
}

// warnOfSharedNames is for each load of the configuration.
func (a *Authority) warnOfSharedNames(ctx context.Context, r *policy.Rules) {
	for _, text := range r.SharedNames() {
		a.logger.WarnContext(ctx, "services share a name with the authority", "rule", "shared-name", "what", text)
	}
}

// openAudit opens the audit log that the options or else a configuration name.
func (a *Authority) openAudit(cfg policy.Config) (*auditLog, error) {
	if a.auditPath != "" {
		return openAuditLog("", a.auditPath) // relative to where the program runs, as flags are
	}
	return openAuditLog(a.files.Path, cfg.AuditLog)
}

// update runs one change of the state at a time: fn edits a copy, which is then
// published. If fn fails nothing has changed.
func (a *Authority) update(ctx context.Context, fn func(next *state) error) error {
	select {
	case a.changeSem <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-a.changeSem }()
	old := a.state.Load()
	next := &state{config: old.config, roots: old.roots, intermediates: old.intermediates, signer: old.signer}
	if err := fn(next); err != nil {
		return err
	}
	if err := a.publish(next); err != nil {
		return err
	}
	a.copyTrust(ctx, next)
	return nil
}

// copyTrust refreshes the copies of the trust in certs/. The change is committed
// already, and the next start tries again.
func (a *Authority) copyTrust(ctx context.Context, st *state) {
	if err := a.files.WriteCopies(st.roots, st.intermediates); err != nil {
		a.logger.WarnContext(ctx, "copies of the trust bundle not refreshed", "path", a.files.File("certs"), "err", err)
	}
}

// Ready returns why the authority cannot issue now, or nil.
func (a *Authority) Ready(ctx context.Context) error {
	st := a.state.Load()
	issuing := st.intermediates[0]
	if !certs.Fits(issuing, st.signer) {
		return fmt.Errorf("the key does not fit issuer %q", issuing.Subject.CommonName)
	}
	for _, c := range []*x509.Certificate{issuing, st.roots[0]} {
		if time.Now().After(c.NotAfter) {
			return fmt.Errorf("%q expired at %s", c.Subject.CommonName, c.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	for _, c := range st.intermediates { // makes the lists that are due, also when nobody asks for them
		if _, err := a.currentCRL(ctx, st, c, false); err != nil {
			return err
		}
	}
	return a.record.Ready(ctx)
}

// currentCRL returns the list of an issuer, see [crl.Lists.Get]. The key of the
// intermediate that issues is open already; that of a retired one is read.
func (a *Authority) currentCRL(ctx context.Context, st *state, issuing *x509.Certificate, exact bool) (*crl.List, error) {
	var signer crypto.Signer
	if issuing.Equal(st.intermediates[0]) {
		signer = st.signer
	}
	return a.lists.Get(ctx, issuing, signer, exact)
}

// Close brings log and marker up to the record and closes it. Requests still
// running fail; serve drains first.
func (a *Authority) Close() error {
	if a.record != nil && a.record.Intact() { // else somebody may have accepted the loss meanwhile
		a.markLast()
	}
	a.end()
	a.auditMu.RLock()
	err := a.audit.Close()
	a.auditMu.RUnlock()
	if a.record == nil {
		return err
	}
	return errors.Join(err, a.record.Close())
}
