package ca

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/acmestore"
	"github.com/artstore/artstore-pki/ca/internal/auditlog"
	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/reasons"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// Record is the record of an authority for its operator, who reads it and revokes. It can
// be open beside a running authority, which has each revocation in its next list.
type Record struct {
	store     *store.Store
	acme      *acmestore.Store
	dir       StateDir
	auditPath string
}

// RecordError says why a record is not opened: it is missing, it is that of another
// authority, or it is older than the marker in the state directory. Nothing was made or
// changed.
type RecordError = statedir.RecordError

// OpenRecord opens the record of the directory. No password is needed. A record
// that [Open] would refuse is a [RecordError] here as well.
func (d StateDir) OpenRecord(ctx context.Context) (*Record, error) {
	cfg, err := policy.Load(string(d))
	if err != nil {
		return nil, err
	}
	v, err := d.LogVerifier()
	if err != nil {
		return nil, err
	}
	in, err := statedir.OpenRecord(ctx, string(d), cfg.Database, v)
	if err != nil {
		return nil, err
	}
	return &Record{store: in.Store, acme: acmestore.New(in.DB), dir: d, auditPath: cfg.AuditLog}, nil
}

// VerifyLog is [Record.VerifyLog] for a record that [StateDir.OpenRecord] may refuse: the
// marker is compared like a head that was kept elsewhere, so a difference is a finding.
// If there is no record, the error is a [RecordError].
func (d StateDir) VerifyLog(ctx context.Context, opt LogOptions) (report translog.Report, err error) {
	cfg, err := policy.Load(string(d))
	if err != nil {
		return report, err
	}
	v, err := d.LogVerifier()
	if err != nil {
		return report, err
	}
	marker, ok, err := statedir.ReadMarker(string(d), v)
	if err != nil {
		return report, err
	}
	where := statedir.Database(string(d), cfg.Database)
	s, err := store.Open(ctx, where)
	if errors.Is(err, store.ErrNoRecord) {
		return report, &RecordError{Where: sqldb.Name(where), Known: marker, Err: err}
	}
	if err != nil {
		return report, err
	}
	r := &Record{store: s, dir: d}
	defer func() { err = errors.Join(err, r.Close()) }()
	var known []translog.Head
	if ok && marker.Size > 0 {
		known = append(known, marker)
	}
	return r.verifyLog(ctx, v, opt, known)
}

// Authorities returns the certificates of the authority: the roots of its trust
// bundle, and the others in the state directory, which are intermediates and certificates
// that a rotation has taken out of use. Errors are those of reading the files.
func (r *Record) Authorities() (roots, others []*x509.Certificate, err error) {
	return statedir.Dir{Path: string(r.dir)}.Authorities()
}

// List returns one page and the cursor of the next page, "" after the last one.
func (r *Record) List(ctx context.Context, q record.Query) ([]record.Certificate, string, error) {
	if q.Name != "" {
		name, err := names.Canonical(q.Name)
		if err != nil {
			return nil, "", err
		}
		q.Name = name
	}
	return r.store.List(ctx, q)
}

// Search returns one page of the certificates with a name that begins with the prefix,
// and the cursor of the next page, see [store.Store.Search].
func (r *Record) Search(ctx context.Context, q record.Search) ([]record.Certificate, string, error) {
	q.Prefix = strings.ToLower(q.Prefix)
	return r.store.Search(ctx, q)
}

// Show returns one certificate. The serial may be decimal, hex after 0x, or hex
// with colons; an unknown one is [record.ErrNotFound].
func (r *Record) Show(ctx context.Context, serial string) (record.Certificate, error) {
	serial, err := certs.ParseSerial(serial)
	if err != nil {
		return record.Certificate{}, err
	}
	return r.store.Get(ctx, serial)
}

// Revoke revokes one certificate in the name of the operator. reason is one of
// RFC 5280 §5.3.1. Errors: [record.ErrNotFound], [store.ErrAlreadyRevoked].
func (r *Record) Revoke(ctx context.Context, serial string, reason int, note string) error {
	serial, err := certs.ParseSerial(serial)
	if err != nil {
		return err
	}
	if err := reasons.Check(reason); err != nil {
		return fmt.Errorf("revoking %s: %w", serial, err)
	}
	_, err = r.revokeAudited(auditlog.Line{Serial: serial}, func() (int, error) {
		return 1, r.store.Revoke(ctx, store.RevokeRequest{Revocation: record.Revocation{
			Serial: serial, RevokedAt: time.Now(), Reason: reason, Note: clip(note), Caller: operator,
		}})
	})
	return err
}

// Selected returns the certificates that RevokeSet would revoke, see
// [store.Store.Selected]. If there is none, the error is [record.ErrNotFound].
func (r *Record) Selected(ctx context.Context, sel record.Selection) ([]record.Certificate, error) {
	resolved, err := r.resolve(ctx, sel)
	if err != nil {
		return nil, err
	}
	list, err := r.store.Selected(ctx, resolved)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("revoking %s: %w", cmp.Or(sel.Service, sel.Lineage), record.ErrNotFound)
	}
	return list, err
}

// RevokeSet revokes in one transaction, in the name of the operator, all certificates of a
// service, or of the lineage to which a serial belongs, that are valid or could still be
// renewed in the grace after their end. It returns how many; if there is none, the error
// is [record.ErrNotFound].
func (r *Record) RevokeSet(ctx context.Context, sel record.Selection, reason int, note string) (int, error) {
	if err := reasons.Check(reason); err != nil {
		return 0, fmt.Errorf("revoking certificates: %w", err)
	}
	sel, err := r.resolve(ctx, sel)
	if err != nil {
		return 0, err
	}
	return r.revokeAudited(auditlog.Line{Service: sel.Service, Serial: sel.Lineage}, func() (int, error) {
		return r.store.RevokeSet(ctx, sel, record.Revocation{RevokedAt: time.Now(), Reason: reason, Note: clip(note), Caller: operator})
	})
}

// resolve returns the selection with the lineage of its serial. Certificates that ended
// before sel.Since are left out, by default those that ended longer ago than the longest
// grace.
func (r *Record) resolve(ctx context.Context, sel record.Selection) (record.Selection, error) {
	if (sel.Service == "") == (sel.Lineage == "") {
		return sel, errors.New("selecting certificates: want a service or a lineage")
	}
	if sel.Since.IsZero() {
		sel.Since = time.Now().Add(-lifetime.MaxGrace)
	}
	if sel.Lineage != "" {
		c, err := r.Show(ctx, sel.Lineage)
		if err != nil {
			return sel, err
		}
		sel.Lineage = c.Lineage
	}
	return sel, nil
}

// operator is the caller of events that a command on the state directory has caused.
const operator = "operator"

// Events returns up to limit events after the given id, the oldest first. kind "" returns
// all kinds.
func (r *Record) Events(ctx context.Context, kind string, after int64, limit int) ([]record.Event, error) {
	return r.store.Events(ctx, kind, after, limit)
}

// LatestEvents returns the newest events, limit of them at most, the oldest first. kind ""
// returns all kinds.
func (r *Record) LatestEvents(ctx context.Context, kind string, limit int) ([]record.Event, error) {
	return r.store.LatestEvents(ctx, kind, limit)
}

// leastFingerprint is how many digits of a fingerprint name a certificate, at least. The
// commands print 16.
const leastFingerprint = 8

// Issuer returns the subject key id of the intermediate that text names: by the common name
// of its certificate, or by the beginning of the key id or of the fingerprint in hex. It is an
// error if no intermediate or more than one has that name; the first is
// [record.ErrNotFound].
func (r *Record) Issuer(ctx context.Context, text string) (string, error) {
	ids, err := r.store.Issuers(ctx)
	if err != nil {
		return "", err
	}
	prefix := strings.ToLower(strings.NewReplacer(":", "", "0x", "").Replace(text))
	var found []string
	for _, id := range ids {
		if strings.HasPrefix(id, prefix) {
			found = append(found, id)
		}
	}
	fingerprint, _ := certs.ParseFingerprint(text) // "" for a text that is none, and no certificate has that
	if fingerprint == "" && len(prefix) >= leastFingerprint {
		fingerprint = prefix
	}
	paths, _ := filepath.Glob(statedir.Path(string(r.dir), "certs/*.crt")) // the pattern is well formed
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		list, _ := pemfile.Certificates(data) // a damaged one has no name, and doctor says so
		for _, c := range list {
			named := c.Subject.CommonName == text || fingerprint != "" && strings.HasPrefix(certs.Fingerprint(c), fingerprint)
			if named && !slices.Contains(found, cacert.KeyID(c)) {
				found = append(found, cacert.KeyID(c))
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fmt.Errorf("issuer %.80q: %w", text, record.ErrNotFound)
	}
	return "", fmt.Errorf("issuer %.80q is more than one: %s", text, strings.Join(found, ", "))
}

// Prunable returns how many certificates Prune would remove.
func (r *Record) Prunable(ctx context.Context, before time.Time) (int, error) {
	if err := checkPrune(before); err != nil {
		return 0, err
	}
	return r.store.Prunable(ctx, before)
}

// Prune removes the certificates that expired before a moment, with their revocations and
// events, and returns how many. The moment must be longer ago than the longest grace. A
// lineage stays as long as one of its certificates is younger. The hashes in the log stay,
// so the log still verifies. Prune works in batches: after an error it returns how many
// certificates are removed, and can be called again.
func (r *Record) Prune(ctx context.Context, before time.Time) (removed int, err error) {
	if err := checkPrune(before); err != nil {
		return 0, err
	}
	for {
		const batch = 500 // certificates in one transaction, for which other writers wait
		n, err := r.store.Prune(ctx, operator, before, batch)
		removed += n
		if err != nil || n < batch {
			return removed, err
		}
	}
}

// checkPrune refuses a moment after which an expired certificate can still be renewed.
func checkPrune(before time.Time) error {
	if time.Since(before) < lifetime.MaxGrace {
		return fmt.Errorf("pruning the record: certificates can be renewed up to %s after their end; nothing younger is removed", lifetime.MaxGrace)
	}
	return nil
}

// Close closes the record.
func (r *Record) Close() error {
	return r.store.Close()
}

// clip returns at most 500 bytes of a text that a client has chosen, and "…" if it was
// longer, so that a client cannot fill record and logs.
func clip(s string) string {
	const most = 500
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…" // without the rest of a character that was cut
}

// revokeAudited runs a revocation by a command, and writes it to the audit log. If the log
// cannot be opened, nothing is revoked: unlike a client, an operator can repair the log
// first.
func (r *Record) revokeAudited(line auditlog.Line, revoke func() (int, error)) (n int, err error) {
	log, err := auditlog.Open(string(r.dir), r.auditPath)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if n, err = revoke(); err != nil {
		return 0, err
	}
	line.Action, line.Outcome, line.Caller, line.Count = string(actRevoke), auditlog.Done, operator, n
	if err := log.Write(line); err != nil {
		return n, fmt.Errorf("revoked, but not told: %w", err)
	}
	return n, nil
}
