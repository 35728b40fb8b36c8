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
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/smallstep/certificates/authority"

	"github.com/artstore/artstore-pki/ca/internal/acmesrv"
	"github.com/artstore/artstore-pki/ca/internal/acmestore"
	"github.com/artstore/artstore-pki/ca/internal/auditlog"
	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/crl"
	"github.com/artstore/artstore-pki/ca/internal/enrolkey"
	"github.com/artstore/artstore-pki/ca/internal/livelimit"
	"github.com/artstore/artstore-pki/ca/internal/lru"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/internal/tally"
	"github.com/artstore/artstore-pki/ca/internal/throttle"
	"github.com/artstore/artstore-pki/ca/internal/trust"
	"github.com/artstore/artstore-pki/ca/internal/truststore"
	"github.com/artstore/artstore-pki/ca/internal/validity"
	"github.com/artstore/artstore-pki/ca/internal/watch"
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
	// Dir is the state directory, as package ca/setup makes it.
	Dir string
	// Password decrypts the keys. Empty reads PasswordFile.
	Password secret.String
	// PasswordFile is read each time that a key is read: by Open, Reload and rotations.
	// Default secrets/password, which exists only if the password was generated.
	PasswordFile string
	// RootPasswordFile has the password of the keys of roots, if that is another one. It is
	// read by what signs with a root, and need not be there otherwise. Default Password.
	RootPasswordFile string
	// AuditLog replaces audit_log of pki.yaml, if it is not empty. It is relative to the
	// working directory.
	AuditLog string
	// Logger gets what operators must know. nil means slog.Default.
	Logger *slog.Logger
	// Registerer gets the metrics artstore_ca_…. nil registers none.
	Registerer prometheus.Registerer
}

// Errors of reading keys, for callers that know where the password comes from.
var (
	ErrWrongPassword = statedir.ErrWrongPassword
	ErrNoPassword    = statedir.ErrNoPassword
)

// Authority issues certificates and records them. It is safe for concurrent use and
// starts no goroutines: the caller runs [Authority.Watch], [Authority.KeepLog]
// and [Authority.KeepWatchers].
type Authority struct {
	files       statedir.Dir
	record      *store.Store
	acmeRecord  *acmestore.Store  // the part of the record that ACME works on
	trustRecord *truststore.Store // the part of it that is about trust
	tallies     *tally.Tally      // the part of it that is counted for the dashboard
	logger      *slog.Logger
	metrics     *metrics
	auditMu     sync.RWMutex // guards audit; a writer holds it for reading, so that a reload closes no log in use
	audit       *auditlog.Log
	auditPath   string          // of Options
	life        context.Context //nolint:containedctx // ends with the authority; validations of ACME challenges outlive their requests
	end         context.CancelFunc
	state       atomic.Pointer[state]
	changeSem   chan struct{} // of one, held while the state changes; a channel, because the holder does I/O and a waiter must be able to give up
	refusals    quota
	soundKeys   struct { // RSA keys that validateKey has let pass
		sync.Mutex
		lru.Cache[[sha256.Size]byte, struct{}]
	}
	swept            throttle.Throttle // of sweeps of spent tokens
	lists            *crl.Lists
	live             livelimit.Counts
	full             livelimit.Full
	revoked          atomic.Pointer[revokedAnswer]
	revokes          broadcast // wakes Watch and KeepWatchers when this process revokes
	ordered          broadcast // wakes KeepWatchers when this process orders a renewal
	watchers         *watch.Hub
	logKey           *translog.Key
	head             atomic.Pointer[signedHead] // newest signed head of the log, nil before the first entry
	marker           marker
	sequencingFailed atomic.Bool // the log could not be extended the last time
	foldingFailed    atomic.Bool // events could not be counted for the dashboard the last time
	uncopied         atomic.Bool // current.json lags behind the trust of the record
}

// state is all that a request needs, as one immutable value. Rotation and reload
// publish a new one; the state that a request works with does not change.
type state struct {
	config        policy.Config
	rules         *policy.Rules
	trust         *trust.Document              // which certificates are in use, and at which stage
	roots         []*x509.Certificate          // of trust; roots[0] signs new intermediates
	intermediates []*x509.Certificate          // of trust; intermediates[0] issues
	tried         *cacert.Issuer               // issues for the services that try the staged root; nil if none is staged
	issuerPEM     map[*x509.Certificate]string // intermediates in PEM, since nearly every answer has one
	signer        crypto.Signer                // of intermediates[0]
	digest        string                       // stepapi.TrustDigest of roots
	smallstep     *authority.Authority
	acme          *acmesrv.Server
	enrolmentKeys map[string]enrolkey.Key // enrolment keys for tokens of enrollers, by the service that they are for
	rootLists     crl.RootLists           // which name revoked intermediates
	limits        *limits                 // of the state before, if the configured rates are the same
	superseded    chan struct{}           // closed when a newer state has been published
}

// Open opens a state directory: configuration, trust, keys and record. A record that is
// missing, older than the marker or another authority's is a [RecordError]; a key that
// cannot be decrypted is [ErrWrongPassword] or [ErrNoPassword]. Call Close after the
// last request has ended.
func Open(ctx context.Context, opt Options) (_ *Authority, err error) {
	cfg, err := policy.Load(opt.Dir)
	if err != nil {
		return nil, err
	}
	f := statedir.Dir{Path: opt.Dir, Password: opt.Password, PasswordFile: opt.PasswordFile, RootPasswordFile: opt.RootPasswordFile}
	a := &Authority{logger: opt.Logger, auditPath: opt.AuditLog, changeSem: make(chan struct{}, 1)}
	if a.logger == nil {
		a.logger = slog.Default()
	}
	a.watchers = watch.New(a.maxWatchers)
	a.life, a.end = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	a.files = f
	doc, err := f.ReadDocument()
	if err != nil {
		return nil, err
	}
	st := &state{config: cfg}
	if err := a.load(st, doc); err != nil {
		return nil, err
	}
	if a.files.Plain, err = f.KeptPlain(st.intermediates[0]); err != nil {
		return nil, err
	}
	if err := a.openRecord(ctx, cfg); err != nil {
		return nil, err
	}
	if err := a.enterTrust(ctx, st); err != nil {
		return nil, err
	}
	a.lists = crl.New(crl.Config{Record: a.record, Logger: a.logger, Key: func(c *x509.Certificate) (crypto.Signer, error) { return f.ReadKey(c, "") }})
	audit, err := a.openAudit(cfg)
	if err != nil {
		return nil, err
	}
	a.audit = audit
	if err := a.publish(st); err != nil {
		return nil, err
	}
	a.warn(ctx, st)
	a.warnOfExposure(ctx, cfg)
	a.warnOfSharedNames(ctx, st.rules)
	// A process that was killed between the commit of a rotation and the copies has left
	// old copies. They are replaced here.
	a.copyTrust(ctx, st)
	a.metrics, err = newMetrics(opt.Registerer, a)
	return a, err
}

// publish fills in what follows from configuration, trust and signer, and makes the
// state current. On an error the old state stays.
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

// Roots returns the current trust bundle; the first root signs new intermediates.
func (a *Authority) Roots() []*x509.Certificate { return slices.Clone(a.state.Load().roots) }

// Config returns the configuration in effect. Its maps are shared and must not be
// changed.
func (a *Authority) Config() policy.Config { return a.state.Load().config }

// Reload reads pki.yaml, the trust, the password file and the keys again, and
// opens the audit log anew. On an error all of the old state stays in effect. Other
// addresses or another database are an error: they take a restart.
func (a *Authority) Reload(ctx context.Context) error {
	var audit *auditlog.Log
	err := a.update(ctx, func(next *state) (err error) {
		before := next.config
		if next.config, err = policy.Load(a.files.Path); err != nil {
			return err
		}
		if err := before.CheckReload(next.config); err != nil {
			return err
		}
		doc, err := a.files.ReadDocument()
		if err != nil {
			return err
		}
		if err := a.load(next, doc); err != nil {
			return err
		}
		if err := a.catchUp(ctx, next); err != nil {
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
	a.lists.Reset() // they have keys of retired issuers, which the old password has opened
	a.auditMu.Lock()
	audit, a.audit = a.audit, audit
	a.auditMu.Unlock()
	return audit.Close()
}

// warn logs what is valid in the configuration and rarely meant.
func (a *Authority) warn(ctx context.Context, st *state) {
	for _, text := range st.rules.Overlaps() {
		a.logger.WarnContext(ctx, "profiles overlap", "err", text)
	}
	for _, text := range st.rules.Unprovable() {
		a.logger.WarnContext(ctx, "ACME cannot prove a name", "err", text)
	}
	// Without name constraints, Outside does nothing.
	for _, s := range st.rules.Services {
		outside, err := cacert.Outside(slices.Concat(st.roots[:1], st.intermediates[:1]), s.Names)
		if err != nil {
			a.logger.WarnContext(ctx, "name constraints not compared with profiles", "service", s.Name, "err", err)
		} else if len(outside) > 0 {
			a.logger.WarnContext(ctx, "the CA certificates do not permit names of a profile", "service", s.Name, "what", strings.Join(outside, ", "))
		}
	}
}

// warnOfExposure logs at each start and reload what other users can read or change. It
// is no reason to stop: somebody may have read the secrets before, and without the
// authority the certificates of all services expire.
// docs/design/0020-files-that-others-can-read.md
func (a *Authority) warnOfExposure(ctx context.Context, cfg policy.Config) {
	for _, e := range a.files.Exposures(cfg.RootKey, cfg.Database) {
		a.logger.ErrorContext(ctx, "others can read or change files of the authority", "err", e.Text)
	}
}

// warnOfSharedNames logs the services that can obtain a name of the authority.
func (a *Authority) warnOfSharedNames(ctx context.Context, r *policy.Rules) {
	for _, text := range r.SharedNames() {
		a.logger.WarnContext(ctx, "services share a name with the authority", "rule", "shared-name", "what", text)
	}
}

// openAudit opens the audit log that the options name, otherwise that of the
// configuration. It returns nil if neither names one.
func (a *Authority) openAudit(cfg policy.Config) (*auditlog.Log, error) {
	if a.auditPath != "" {
		return auditlog.Open("", a.auditPath) // relative to the working directory, as paths in flags are
	}
	return auditlog.Open(a.files.Path, cfg.AuditLog)
}

// update changes the state, one change at a time: fn edits a copy, which is then
// published. If fn or publish fails, the state is the old one.
func (a *Authority) update(ctx context.Context, fn func(next *state) error) error {
	select {
	case a.changeSem <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-a.changeSem }()
	old := a.state.Load()
	next := &state{config: old.config, rules: old.rules, trust: old.trust, roots: old.roots, intermediates: old.intermediates, signer: old.signer, tried: old.tried}
	if err := fn(next); err != nil {
		return err
	}
	if err := a.publish(next); err != nil {
		return err
	}
	a.copyTrust(ctx, next)
	return nil
}

// copyTrust refreshes the copies of the trust in certs/, which people and tools read. A
// failure is logged only, because the change is committed already; the next start tries
// again.
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
			return fmt.Errorf("%q expired at %s", c.Subject.CommonName, validity.Stamp(c.NotAfter))
		}
	}
	if at := st.rootLists.RevokedAt(issuing); !at.IsZero() {
		return fmt.Errorf("the issuer %q was revoked at %s", issuing.Subject.CommonName, validity.Stamp(at))
	}
	for _, c := range st.intermediates { // which makes the lists that are due, also when nobody asks for them
		if _, err := a.currentCRL(ctx, st, c, false); err != nil {
			return err
		}
	}
	return a.record.Ready(ctx)
}

// currentCRL returns the revocation list of an intermediate (RFC 5280 §5), see
// [crl.Lists.Get]. The key of intermediates[0] is open already; that of a retired issuer
// is read from the disk.
func (a *Authority) currentCRL(ctx context.Context, st *state, issuing *x509.Certificate, exact bool) (*crl.List, error) {
	var signer crypto.Signer
	if issuing.Equal(st.intermediates[0]) {
		signer = st.signer
	}
	return a.lists.Get(ctx, issuing, signer, exact)
}

// Close signs a last head over the log, writes the marker and closes the record. A
// request that still runs fails, so the caller drains its server first.
func (a *Authority) Close() error {
	if a.record != nil && a.record.Intact() { // if it was lost, an operator may have accepted that and written another marker
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
