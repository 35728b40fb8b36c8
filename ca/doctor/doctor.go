// Package doctor looks at the state directory and the record of an authority, and
// reports each thing that it looked at, good or bad.
//
//	for _, d := range doctor.Run(ctx, doctor.Options{Dir: dir}) {
//		fmt.Println(d.Severity, d.Check, d.Text)
//	}
//
// It needs the key password, because it opens each issuing key. It runs as the user
// of the authority or as root: another user cannot read the secrets, and each of them
// would be an error. Only [Options.Get] uses the network, besides a record in
// PostgreSQL.
//
// Invariants:
//
//   - It changes nothing: no file is written and no schema is migrated
//     (TestDoctorChangesNothing), so it may run beside an authority.
//   - A sound authority has no error (TestDoctorOnARunningAuthority), and each fault
//     is one that names the file or the certificate (TestDoctor, TestDoctorOnTrust).
//   - Other users who can read secrets or replace files are found, also through a
//     directory above (TestDoctorOwners).
package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/enrolkey"
	"github.com/artstore/artstore-pki/ca/internal/keystore"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/internal/validity"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/secret"
)

// Severities of a [Diagnosis], worst last.
const (
	OK      = "ok"
	Warning = "warning" // the authority works, and somebody should act before it does not
	Error   = "error"   // the authority cannot issue, or is not safe
)

// Diagnosis is one thing that [Run] looked at.
type Diagnosis struct {
	// Check is one of configuration, permissions, trust, keys, record, clock, log, crl.
	Check    string `json:"check"`
	Severity string `json:"severity"` // [OK], [Warning] or [Error]
	Text     string `json:"text"`     // for people, without secrets
}

// Options say where to look.
type Options struct {
	Dir string // state directory
	// Password decrypts the keys. Empty reads PasswordFile, as in [ca.Options].
	Password secret.String
	// PasswordFile is read if Password is empty, and its mode is checked. Default
	// secrets/password in Dir.
	PasswordFile string
	// Log compares the record with its log, which reads all of it. It is left out if
	// the schema of the record is not the one of this program.
	Log bool
	// Get sends the request for crl_url of pki.yaml, as [http.Client.Do] does. nil
	// leaves the check out.
	Get func(*http.Request) (*http.Response, error)
}

const (
	soonExpires = 30 * 24 * time.Hour // a CA certificate that ends within it is a warning
	clockLeeway = time.Minute         // how far the record may be ahead of the clock
	crlWait     = 5 * time.Second     // for the answer of crl_url
	entrySize   = 54                  // bytes of DER of a revoked certificate (RFC 5280 §5.3), see [stepapi.MaxRevoked]
)

// Run looks at a state directory and its record, in an order in which later checks
// need what earlier ones have read. A check that is not possible because an earlier
// one has failed is left out. Errors are diagnoses, also those of ctx.
func Run(ctx context.Context, opt Options) []Diagnosis {
	d := &doctor{opt: opt, files: statedir.Dir{Path: opt.Dir, Password: opt.Password, PasswordFile: opt.PasswordFile}}
	cfg, err := policy.Load(opt.Dir)
	if errors.Is(err, statedir.ErrWaiting) {
		err = fmt.Errorf("%w: have it signed by the root, then: artstore-pki init --dir %s --intermediate-cert CHAIN", err, opt.Dir)
	}
	if !d.addResult("configuration", err, "pki.yaml is valid: %d profiles, %d provisioners", len(cfg.Profiles), len(cfg.Provisioners)) {
		return d.out
	}
	d.profiles(cfg)
	d.permissions(cfg)
	roots, intermediates, err := d.files.ReadTrust()
	if d.addResult("trust", err, "%d roots, %d intermediates", len(roots), len(intermediates)) {
		d.trust(roots, intermediates)
		d.constraints(cfg, roots, intermediates[0])
		d.keys(cfg, roots, intermediates)
	}
	if d.record(ctx, cfg) && opt.Log {
		d.log(ctx)
	}
	if cfg.CRLURL != "" && opt.Get != nil && len(intermediates) > 0 {
		next, err := fetchCRL(ctx, opt.Get, cfg.CRLURL, intermediates[0])
		d.addResult("crl", err, "the list at %s is good until %s", cfg.CRLURL, validity.Stamp(next))
	}
	return d.out
}

type doctor struct {
	opt   Options
	files statedir.Dir
	out   []Diagnosis
}

func (d *doctor) add(check, severity, format string, args ...any) {
	d.out = append(d.out, Diagnosis{check, severity, fmt.Sprintf(format, args...)})
}

// addResult adds an [Error] with the text of err, or an [OK] with the formatted text
// if err is nil. It reports whether err is nil.
func (d *doctor) addResult(check string, err error, format string, args ...any) bool {
	if err != nil {
		d.add(check, Error, "%v", err)
		return false
	}
	d.add(check, OK, format, args...)
	return true
}

// profiles warns of what is valid and rarely meant: names that two services can
// obtain, names of the authority itself, and names that ACME cannot prove.
func (d *doctor) profiles(cfg policy.Config) {
	r, err := cfg.Parse()
	if err != nil { // Load parsed it
		d.add("configuration", Error, "%v", err)
		return
	}
	for _, text := range slices.Concat(r.Overlaps(), r.SharedNames()) {
		d.add("configuration", Warning, "%s", text)
	}
	for _, text := range r.Unprovable() {
		d.add("configuration", Warning, "%s", text)
	}
}

// trust looks at the dates of the CA certificates, and whether a root of the bundle
// signed each intermediate. The authority dates its certificates back, so one that
// begins in the future means that the clock of this machine is behind.
func (d *doctor) trust(roots, intermediates []*x509.Certificate) {
	now := time.Now()
	for i, list := range [][]*x509.Certificate{roots, intermediates} {
		role := []string{"root", "intermediate"}[i]
		for _, c := range list {
			name := c.Subject.CommonName
			switch {
			case role == "intermediate" && cacert.RootOf(c, roots) == nil:
				d.add("trust", Error, "%s %q was signed by none of the roots", role, name)
			case now.Before(c.NotBefore):
				d.add("clock", Error, "%s %q begins at %s: the clock is behind, it says %s", role, name, validity.Stamp(c.NotBefore), validity.Stamp(now))
			case now.After(c.NotAfter):
				d.add("trust", Error, "%s %q expired at %s", role, name, validity.Stamp(c.NotAfter))
			case c.NotAfter.Sub(now) < soonExpires:
				d.add("trust", Warning, "%s %q expires at %s", role, name, validity.Stamp(c.NotAfter))
			default:
				d.add("trust", OK, "%s %q is good until %s", role, name, validity.Stamp(c.NotAfter))
			}
		}
	}
}

// constraints compares the names of the configuration with the name constraints of the
// certificates that sign (RFC 5280 §4.2.1.10).
func (d *doctor) constraints(cfg policy.Config, roots []*x509.Certificate, issuing *x509.Certificate) {
	r, err := cfg.Parse()
	if err != nil { // Load parsed it
		return
	}
	chain := []*x509.Certificate{issuing}
	if root := cacert.RootOf(issuing, roots); root != nil {
		chain = append(chain, root)
	}
	for _, s := range append(slices.SortedFunc(maps.Values(r.Services), byName), r.Own) {
		outside, err := cacert.Outside(chain, s.Names)
		if err != nil {
			d.add("trust", Error, "%v", err)
			return
		}
		if len(outside) > 0 {
			d.add("trust", Warning, "service %s may have names that the CA certificates do not permit, so that clients refuse its certificates: %s", s.Name, strings.Join(outside, ", "))
		}
	}
}

func byName(a, b *policy.Service) int { return strings.Compare(a.Name, b.Name) }

// keys wants the key of every intermediate, because a retired one still signs its own
// revocation list (docs/design/0007-revocation-lists.md), and the enrolment keys for
// enrollers. It warns of a root key on this machine, of keys that are not encrypted,
// and of a password beside them.
func (d *doctor) keys(cfg policy.Config, roots, intermediates []*x509.Certificate) {
	for _, c := range intermediates {
		_, err := d.files.ReadKey(c, "")
		d.addResult("keys", err, "the key of %q fits", c.Subject.CommonName)
	}
	for _, c := range roots {
		path := d.files.KeyPath(certs.Fingerprint(c))
		if _, err := os.Stat(path); err == nil {
			d.add("keys", Warning, "the key of root %q is on this machine: move %s to a medium in a safe, and name it in root_key", c.Subject.CommonName, path)
			continue
		}
		if _, err := os.Stat(keystore.Path(cfg.RootKey)); err == nil {
			d.add("keys", Warning, "the key of root %q can be read at %s: take the medium out after a rotation", c.Subject.CommonName, keystore.Path(cfg.RootKey))
			continue
		}
		d.add("keys", OK, "the key of root %q is not here", c.Subject.CommonName)
	}
	d.enrolmentKeys(cfg)
	for _, name := range []string{"secrets/*.key", "secrets/*.jwe"} {
		paths, _ := filepath.Glob(d.files.File(name)) // the pattern is well formed
		for _, p := range paths {
			if encrypted, err := statedir.Encrypted(p); err == nil && !encrypted {
				d.add("keys", Warning, "%s is not encrypted", p)
			}
		}
	}
	if _, err := os.Stat(d.files.File(statedir.PasswordFile)); err == nil {
		d.add("keys", Warning, "the password is beside the keys, in %s: move it and name it with --password-file", d.files.File(statedir.PasswordFile))
	}
}

// enrolmentKeys wants each enrolment key that is here to be the one that pki.yaml names, and
// those for enrollers to be here: a token that another key has signed is refused.
func (d *doctor) enrolmentKeys(cfg policy.Config) {
	r, err := cfg.Parse()
	if err != nil {
		return // profiles has said so
	}
	for _, p := range r.JWKs {
		if _, err := os.Stat(d.files.JWEPath(p.Name)); err == nil {
			_, err := d.files.ReadJWK(p.Name, p.Key)
			d.addResult("keys", err, "the enrolment key of %s fits", p.Name)
		}
	}
	if len(r.Enrollers) > 0 {
		_, err := enrolkey.ForEnrollers(d.files, r)
		d.addResult("keys", err, "the enrolment keys for %d enrollers can be used", len(r.Enrollers))
	}
}

// fetchCRL asks for the list that new certificates name as their distribution point
// (RFC 5280 §4.2.1.13), as a peer would, and returns its nextUpdate. A list that is
// not signed by the issuing certificate, or whose nextUpdate has passed
// (RFC 5280 §5.1.2.5), is an error.
func fetchCRL(ctx context.Context, get func(*http.Request) (*http.Response, error), at string, issuing *x509.Certificate) (next time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, crlWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at+"?issuer="+cacert.KeyID(issuing), nil)
	if err != nil {
		return next, err
	}
	resp, err := get(req)
	if err != nil {
		return next, fmt.Errorf("fetching the list: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	der, err := io.ReadAll(io.LimitReader(resp.Body, stepapi.MaxRevoked))
	if err != nil {
		return next, fmt.Errorf("fetching the list: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return next, fmt.Errorf("fetching the list: %s answers %s", at, resp.Status)
	}
	list, err := x509.ParseRevocationList(der)
	if err == nil {
		err = list.CheckSignatureFrom(issuing)
	}
	if err != nil {
		return next, fmt.Errorf("the list at %s is none of %q: %s", at, issuing.Subject.CommonName, strings.TrimPrefix(err.Error(), "x509: "))
	}
	if time.Now().After(list.NextUpdate) {
		return next, fmt.Errorf("the list at %s was good until %s: whatever serves it is stale", at, validity.Stamp(list.NextUpdate))
	}
	return list.NextUpdate, nil
}

// permissions adds what other users can read or change. A directory that is another
// user's as a whole is only a warning, since root may run the doctor.
func (d *doctor) permissions(cfg policy.Config) {
	list := d.files.Exposures(cfg.RootKey, cfg.Database)
	for _, e := range list {
		severity := Error
		if e.Owner {
			severity = Warning
		}
		d.add("permissions", severity, "%s", e.Text)
	}
	if len(list) == 0 {
		d.add("permissions", OK, "secrets and record are the owner's alone")
	}
}
