// Package enroll obtains certificates from the authority and renews them. Its
// [Source] is a rotation.Source, so that this is a whole program:
//
//	src, err := enroll.New(enroll.Config{
//		URL:             "https://ca.example:8443",
//		RootFingerprint: "9f86d081884c7d65…",
//		Token:           enroll.TokenFile("/run/secrets/enrolment-token"),
//		Dir:             "/var/lib/ingester/identity",
//	})
//	identity, err := rotation.Open(ctx, rotation.Config{Source: src})
//
// The private key is made here and never leaves the machine. For the first certificate the
// authority gets a CSR (PKCS #10, RFC 2986) with a one-time token, for the later ones a CSR
// over mutual TLS with the certificate that is replaced. Every renewal makes a new key.
//
// Invariants:
//
//   - The first contact is verified by roots or by a fingerprint that the operator or the
//     token gives (TestBootstrap). No request goes over an unverified connection, and
//     the roots of the operating system are never used.
//   - Tokens and requests go to the authority and to no other server under the same roots
//     (TestServiceIsNotTheAuthority), and not to one whose certificate is revoked
//     (TestRevokedAuthorityIsRefused).
//   - After a restart a stored certificate that is valid is used, without a token and without
//     the authority (TestRestartReusesStored).
//   - A reader of the directory sees one generation, at any moment (TestWriteFilesIsOneStep),
//     with the files that [Config.Complete] adds (TestComplete).
//     If the gate refuses an identity, the one before is on disk again (TestRefusedYield).
//   - The key of an enrolment is on disk before the token is sent. If the answer is lost,
//     the same token with the same key gets the same certificate (TestRealLostAnswer).
//   - A token is not sent if its certificate could not be stored (TestIssueSparesTheToken), and
//     not by [Issue] if the revoked lists could not be stored with it (TestIssueHasLists).
//   - Renewal begins between 0.60 and 0.70 of the life, at a random point
//     (TestRenewalPointsAreUniform), and is tried until it succeeds. While the authority is
//     away, an identity begins one request in 30 s at most (TestOutageIsPaced). After that the
//     requests of a fleet are spread (TestNoHerdAfterOutage): over 5 min for certificates
//     that have expired, and over 20 min for others.
//   - A machine that was suspended renews within 30 s of waking
//     (TestSuspendHealsWithinOneTick). A wrong clock here does no harm, because times
//     are compared by the clock of the authority too (TestClockSkew).
//   - An expired certificate is renewed without a token for as long as the authority
//     permits it (TestGraceNeedsNoToken).
//   - Certificate, trust bundle and revoked lists are refreshed independently: a failure of
//     one does not delay the others (TestJobsFailApart, TestListsFailApart).
//   - Where the authority holds requests, a change takes effect within seconds
//     (TestWatchTellsOfChanges, TestRealFleetIsTold); elsewhere with the next refresh, as
//     without them (TestWatchFallsBack). A change that cannot take effect here makes no loop
//     of requests (TestWatchMakesNoLoop), and an authority that restarts gets those of a
//     fleet over seconds (TestWatchNoHerd).
//   - What [Source.Delivered] is told reaches the authority within seconds, and nothing of it is a
//     password (TestRealDelivered, TestBareAddress).
//   - A certificate that a list has named stays refused until it has ended, whatever later
//     lists say, over a restart too (TestForgottenIsKept).
//   - No log line and no error has a key or a token (TestLogsHoldNoSecrets).
//   - A directory has one writer at a time: a second [Source], [Issue] or [Renew], in this
//     process or another, fails with [ErrBusy] (TestOneWriter).
package enroll

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/artstore/artstore-pki/internal/uuid"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/secret"
)

// TokenFile returns a function for [Config.Token] that reads the token from path at each
// use, by [secret.ReadFile]. So an operator can put a new token there while the service
// runs.
func TokenFile(path string) func(context.Context) (secret.String, error) {
	return func(context.Context) (secret.String, error) {
		t, err := secret.ReadFile(path)
		if err != nil {
			return t, fmt.Errorf("reading the enrolment token: %w", err)
		}
		return t, nil
	}
}

// Config says where certificates come from and where they are kept.
type Config struct {
	// URL of the authority, https://host[:port]. Required.
	URL string
	// Roots verify the first contact. If there are none, RootFingerprint does.
	Roots []*x509.Certificate
	// RootFingerprint is the SHA-256 of a root in hex, with or without colons. It is used
	// if Roots is empty. If it is empty too, the fingerprint in the token is used.
	RootFingerprint string
	// AuthorityName is for a stock step-ca, whose certificate lacks the extended key usage
	// of an authority, id-kp-cmcRA (RFC 6402 §2.10). A server without it is accepted if
	// its certificate has this DNS name or IP address. Then every service that can
	// obtain this name under the same root can pose as the authority. Default: no server
	// without the key usage is accepted.
	AuthorityName string
	// Token returns a one-time enrolment token, a JWT made by "artstore-pki token"; the
	// zero value means that there is none now. It is called for each enrolment: for the
	// first certificate, and when the authority does not accept the certificate any
	// more, expired or not. If Token is nil, only a stored certificate is renewed.
	Token func(context.Context) (secret.String, error)
	// Dir has the identity: tls.crt, tls.key (0600), ca.crt; crl.pem if the authority
	// has revoked lists; crl.kept (0600) if only earlier lists named some certificates;
	// log.head, the newest head of the authority's log; and authority.json, which
	// [ReadConfig] reads. It is made (0700) if absent. A renewal keeps owner, group, ACL and
	// mode of the files and directories, but resets a mode above 0640 of a secret file.
	// Required unless InMemory.
	Dir string
	// Complete adds files to a new generation, or changes owners and modes of its files. It is
	// called before the generation takes effect. dir has all its files, before is the directory
	// of the generation in effect, "" if there is none. An error keeps that one in effect.
	// Complete must sync what it writes, or a crash may lose it. Used with Dir only.
	Complete func(dir, before string, m rotation.Material) error
	// InMemory keeps nothing on disk. A restart then needs a new token.
	InMemory bool
	// KeyType of new keys. Empty means the type of the key that is replaced, and EC-P256
	// for the first one.
	KeyType KeyType
	// TrustRefresh is the time between two requests for the trust bundle, and for the
	// revoked lists. 0 means a sixth of the life of the certificate, at most 1 h.
	TrustRefresh time.Duration
	// PollOnly turns off the request that the authority holds until the trust bundle, a
	// revoked list or an order to renew changes. By default, changes take effect within
	// seconds where the authority knows that request, and with the next refresh elsewhere.
	PollOnly bool
	// Timeout bounds one request to the authority, a held one without the time in which it
	// is held. 0 means 30 s.
	Timeout time.Duration
	// Logger gets state changes and failures. New certificates are logged at debug level
	// only, because a [rotation.Identity] logs them when they come into effect. nil
	// means slog.Default.
	Logger *slog.Logger
	// DialContext makes TCP connections in place of net.Dialer, for tunnels and tests.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Source obtains, stores and renews one identity. It implements
// rotation.Source.
type Source struct {
	cfg          Config // with the defaults filled in
	pin          *fingerprint
	store        *store // nil when in memory
	pending      pendingKeys
	now          func() time.Time
	random       func() float64 // uniform in [0, 1)
	process      string         // random name, never stored; see reporter
	busy         atomic.Bool
	status       atomic.Pointer[Status]
	skew         atomic.Int64             // how far the authority's clock is ahead, in ns
	receivedHead atomic.Pointer[logHead]  // that came with a certificate and is not stored yet
	listHolder   atomic.Pointer[identity] // the authority is checked by its lists; nil before there is one
	delivery     atomic.Pointer[delivery] // nil before there is one
	deliveries   chan struct{}            // capacity 1: there is another delivery

	// These belong to the one Watch that runs.
	failed    int       // attempts to get a first identity, in a row
	notBefore time.Time // when the next of these attempts may begin
	kept      *identity // published last; without a directory, the next Watch begins with it
}

// New checks cfg. It uses neither disk nor network. All faults of cfg are in one error.
func New(cfg Config) (*Source, error) {
	s := &Source{cfg: cfg, now: time.Now, random: rand.Float64, process: uuid.New(), deliveries: make(chan struct{}, 1)}
	var problems []error
	if _, err := parseURL(cfg.URL); err != nil {
		problems = append(problems, err)
	}
	if cfg.RootFingerprint != "" {
		pin, err := parseFingerprint(cfg.RootFingerprint)
		if err != nil {
			problems = append(problems, err)
		}
		s.pin = pin
	}
	switch {
	case cfg.InMemory && cfg.Dir != "":
		problems = append(problems, errors.New("both Dir and InMemory are set"))
	case !cfg.InMemory && cfg.Dir == "":
		problems = append(problems, errors.New("no directory to keep the identity in (Dir, or InMemory by choice)"))
	case cfg.InMemory && cfg.Token == nil:
		problems = append(problems, errors.New("no token source, and nothing is stored in memory: there would be no way to a certificate"))
	case cfg.Dir != "":
		s.store = &store{dir: cfg.Dir, lost: s.lostAccess, complete: cfg.Complete}
		s.pending.dir = cfg.Dir
	}
	if err := checkAuthorityName(cfg.AuthorityName); err != nil {
		problems = append(problems, err)
	}
	if err := cfg.KeyType.check(); err != nil {
		problems = append(problems, err)
	}
	if cfg.TrustRefresh < 0 || cfg.Timeout < 0 {
		problems = append(problems, errors.New("a duration is negative"))
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("configuring enrolment: %w", errors.Join(problems...))
	}
	if s.cfg.Timeout == 0 {
		s.cfg.Timeout = defaultTimeout
	}
	if s.cfg.Logger == nil {
		s.cfg.Logger = slog.Default()
	}
	if s.cfg.DialContext == nil {
		s.cfg.DialContext = (&net.Dialer{Timeout: s.cfg.Timeout}).DialContext
	}
	return s, nil
}

// lostAccess logs that a file could not get owner, group or ACL of its predecessor.
func (s *Source) lostAccess(path string) {
	s.cfg.Logger.Warn("owner, group or ACL of a renewed file not kept", slog.String("path", path))
}

// wallNow returns the present without its monotonic reading: on Linux and macOS the monotonic
// clock stops while the machine is suspended, and a renewal would come too late.
func (s *Source) wallNow() time.Time { return s.now().Round(0) }

// maxAddress is the longest address that is reported, in bytes.
const maxAddress = 300

// delivery is what is reported to the authority of a certificate that is served. The zero value is
// no report.
type delivery struct {
	serial  string // decimal
	address string // of the first server
	servers int    // how many serve it
	since   int64  // Unix time in seconds
}

// Delivered tells the authority, with the request that it holds, that servers serve the
// certificate leaf of this identity. The caller has connected to them at the moment at, and
// addresses are theirs, HOST:PORT or a URL, of which only scheme, host and port are reported. The
// authority shows the report to operators. One that is older than this function ignores it, and
// so does one that holds no requests. Delivered returns at once, and without addresses does nothing.
func (s *Source) Delivered(leaf *x509.Certificate, addresses []string, at time.Time) {
	if len(addresses) == 0 {
		return
	}
	d := delivery{serial: leaf.SerialNumber.String(), address: bareAddress(addresses[0]), servers: len(addresses), since: at.Unix()}
	if d.address == "" {
		return
	}
	if old := s.delivery.Load(); old != nil && old.serial == d.serial && old.address == d.address && old.servers == d.servers {
		return // the first proof counts, and is reported
	}
	s.delivery.Store(&d)
	select {
	case s.deliveries <- struct{}{}:
	default: // the signal before has not been taken yet
	}
}

// bareAddress returns an address without what a URL may have besides: a password must not be
// reported. It returns "" if the rest is not printable ASCII, or too long.
func bareAddress(address string) string {
	if strings.Contains(address, "://") {
		u, err := url.Parse(address)
		if err != nil {
			return ""
		}
		address = u.Scheme + "://" + u.Host
	}
	if len(address) > maxAddress || strings.ContainsFunc(address, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return ""
	}
	return address
}

// delivered returns what was reported last.
func (s *Source) delivered() delivery {
	if d := s.delivery.Load(); d != nil {
		return *d
	}
	return delivery{}
}

// addTo adds the report to the query of a request. Times are sent as a duration, because the
// clock of the authority may be another one.
func (d delivery) addTo(query url.Values, now time.Time) {
	if d.serial == "" {
		return
	}
	query.Set("served", d.serial)
	query.Set("served_at", d.address)
	query.Set("servers", strconv.Itoa(d.servers))
	query.Set("served_for", strconv.FormatInt(max(0, now.Unix()-d.since), 10))
}
