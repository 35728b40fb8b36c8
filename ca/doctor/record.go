package doctor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/internal/crl"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/internal/trust"
	"github.com/artstore/artstore-pki/ca/internal/truststore"
	"github.com/artstore/artstore-pki/ca/internal/validity"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// record looks at the record without opening it for writing. It reports whether the
// schema is the one of this program: only then is the log compared, because opening
// an older record migrates it.
func (d *doctor) record(ctx context.Context, cfg policy.Config) (current bool) {
	where := statedir.Database(d.opt.Dir, cfg.Database)
	in, err := store.Inspect(ctx, where)
	if errors.Is(err, store.ErrNoRecord) {
		err = fmt.Errorf("%w; "+lossRemedy, err)
	}
	if !d.addResult("record", err, "%d certificates, schema version %d", in.Rows, in.Schema) {
		return false
	}
	d.marker(ctx, where)
	for _, p := range in.Problems {
		d.add("record", Error, "it is damaged: %s; restore a backup", p)
	}
	switch {
	case in.Schema > in.Known:
		d.add("record", Error, "its schema version %d is newer than %d, the newest that this program knows", in.Schema, in.Known)
	case in.Schema < in.Known:
		d.add("record", Warning, "its schema version %d becomes %d at the next start", in.Schema, in.Known)
	}
	if ahead := time.Until(in.Newest); ahead > clockLeeway {
		d.add("clock", Error, "the last certificate was issued at %s, in %s: the clock is behind now, or was ahead then", validity.Stamp(in.Newest), ahead.Round(time.Second))
	} else {
		d.add("clock", OK, "it says %s, and nothing in the record is later", validity.Stamp(time.Now()))
	}
	if size := crl.AnswerSize(in.Revoked * entrySize); size > stepapi.MaxRevoked/2 {
		d.add("crl", Warning, "%d certificates are revoked and have not expired: GET /revoked is some %d bytes long, and clients read at most %d; shorter lifetimes make it shorter",
			in.Revoked, size, stepapi.MaxRevoked)
	}
	d.lineages(ctx, cfg)
	if in.Schema != in.Known {
		return false
	}
	d.trustOfRecord(ctx, where)
	return true
}

// trustOfRecord reads the newest version of the trust in the record, as the next start does. If
// the key of the log has not signed it for its number, the authority neither issues nor starts.
func (d *doctor) trustOfRecord(ctx context.Context, where string) {
	v, err := statedir.LogVerifier(d.opt.Dir)
	if err != nil {
		return // marker has told of it
	}
	version, err := newestTrust(ctx, where)
	if err != nil {
		d.add("trust", Error, "%v", err)
		return
	}
	if version.Number == 0 {
		return // a new record gets the trust of the directory at the next start
	}
	document, err := trust.Open(v, version.Document)
	if err == nil && document.Version != version.Number {
		err = fmt.Errorf("it is that of version %d", document.Version)
	}
	if err != nil {
		err = fmt.Errorf("version %d of the trust in the record was written by a stranger or is damaged, and nothing is issued: %w; find out who can write to the database, "+
			"and delete this row of trust_versions or restore a backup", version.Number, err)
	}
	d.addResult("trust", err, "version %d in the record is signed by this authority", version.Number)
	here, readErr := d.files.ReadDocument()
	if err == nil && readErr == nil && here.Version < version.Number { // another fault of the file was told before
		d.add("trust", Warning, "certs/current.json has version %d, and the record %d, which is in effect: the authority does not run, or cannot write to the directory (see its log)", here.Version, version.Number)
	}
}

func newestTrust(ctx context.Context, where string) (v truststore.Version, err error) {
	db, err := sqldb.OpenAsIs(ctx, where)
	if err != nil {
		return v, fmt.Errorf("reading the trust of the record: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return truststore.New(db).Newest(ctx)
}

// lossRemedy ends the text of each fault that the marker has found.
const lossRemedy = "bring it back, restore a backup, or accept the loss with: artstore-pki record accept"

// marker compares the record with the marker in the directory, as the next start
// does: the log must be signed by the key of this directory and contain the head of
// the marker (docs/design/0014-the-record-is-never-replaced.md).
func (d *doctor) marker(ctx context.Context, where string) {
	v, err := statedir.LogVerifier(d.opt.Dir)
	if err != nil {
		d.add("record", Error, "%v", err)
		return
	}
	known, marked, err := statedir.ReadMarker(d.opt.Dir, v)
	if err != nil {
		d.add("record", Error, "%v; "+lossRemedy, err)
		return
	}
	newest, err := store.Look(ctx, where, v, known)
	if err != nil {
		err = fmt.Errorf("%w; "+lossRemedy, &statedir.RecordError{Where: sqldb.Name(where), Known: known, Err: err})
	}
	if d.addResult("record", err, "its log has %d entries, and goes on from the %d of the marker", newest.Size, known.Size) && !marked {
		d.add("record", Warning, "there is no marker in %s; the next start makes one", d.files.File(statedir.MarkerFile))
	}
}

func (d *doctor) log(ctx context.Context) {
	report, err := ca.StateDir(d.opt.Dir).VerifyLog(ctx, ca.LogOptions{})
	if !d.addResult("log", err, "%d entries, %d made again from their rows, %d pruned", report.Size, report.Checked, report.Pruned) {
		return
	}
	for _, f := range report.Findings {
		d.add("log", Error, "%s", f.Text)
	}
}

// lineages warns of each lineage with as many live certificates as its profile allows
// (docs/design/0019-bounded-lineages.md): its next renewal is refused. It works on an
// older schema as well, because an upgrade may bring the limit for the first time.
func (d *doctor) lineages(ctx context.Context, cfg policy.Config) {
	r, err := cfg.Parse()
	if err != nil {
		return // profiles has said so
	}
	least := math.MaxInt
	for _, p := range r.Services {
		least = min(least, p.MaxLineage)
	}
	list, err := store.Crowded(ctx, statedir.Database(d.opt.Dir, cfg.Database), least, time.Now())
	if err != nil {
		d.add("record", Error, "%v", err)
	}
	for _, l := range list {
		if p := r.Services[l.Service]; p != nil && l.Live >= p.MaxLineage {
			d.add("record", Warning, "lineage %s of service %s has %d live certificates, and may have %d (profiles.%s.max_live_per_lineage): it does not renew; was its key copied?",
				certs.HexSerial(l.Lineage), l.Service, l.Live, p.MaxLineage, l.Service)
		}
	}
}
