package eventlog_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/internal/eventlog"
	"github.com/artstore/artstore-pki/ca/internal/storetest"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/store"
	"github.com/artstore/artstore-pki/ca/translog"
)

// TestLogFindings is what the log is for: whatever an attacker with the database
// and without the log key does, is found and named.
func TestLogFindings(t *testing.T) { postgres.Engines(t, logFindings) }

func logFindings(t *testing.T, where string) {
	const day = `86400000`
	w := storetest.NewLog(t, where)
	w.Issue(300)
	kept := w.Head()
	w.Revoke("1005")
	w.Issue(3)
	if err := w.Store.Refuse(t.Context(), record.Event{At: w.Start.Add(310 * time.Second), Caller: "someone", Rule: "names", Detail: "sign"}); err != nil {
		t.Fatal(err)
	}
	w.Sequence()
	if report := w.Verify(kept); len(report.Findings) > 0 || report.Checked != 305 {
		t.Fatalf("untouched: %+v", report)
	}
	foreign := w.Sign(&x509.Certificate{SerialNumber: big.NewInt(1008), NotAfter: time.Now()}, nil)
	type finding struct {
		fault, serial string
		index         int64
		text          string // part of it
	}
	for i, tc := range []struct {
		name, tamper string
		blobs        [][]byte
		want         []finding
	}{
		{"not_after", `UPDATE certificates SET not_after = not_after + ` + day + ` WHERE serial = '1008'`, nil,
			[]finding{{eventlog.FaultAltered, "1008", 7, "not_after was"}}},
		{"not_before", `UPDATE certificates SET not_before = 0 WHERE serial = '1008'`, nil,
			[]finding{{eventlog.FaultAltered, "1008", 7, "not_before was"}}},
		{"issued_at", `UPDATE certificates SET issued_at = issued_at - ` + day + ` WHERE serial = '1008'`, nil,
			[]finding{{eventlog.FaultBackdated, "1008", 7, "issued_at was"}}},
		{"event's time", `UPDATE events SET at = at - ` + day + ` WHERE serial = '1008'`, nil,
			[]finding{{eventlog.FaultBackdated, "1008", 7, "the event's at was"}}},
		{"both times", `UPDATE events SET at = at - ` + day + ` WHERE serial = '1008'; UPDATE certificates SET issued_at = issued_at - ` + day + ` WHERE serial = '1008'`, nil,
			[]finding{{eventlog.FaultBackdated, "1008", 7, "before the certificate begins"}}},
		{"time of a refusal", `UPDATE events SET at = at - ` + day + ` WHERE kind = 'refused'`, nil,
			[]finding{{eventlog.FaultBackdated, "", 304, "before that of an earlier entry"}}},
		{"time put forward", `UPDATE events SET at = at + ` + day + ` WHERE serial = '1008'`, nil,
			[]finding{{eventlog.FaultAltered, "1008", 7, "the event's at was"}}},
		{"der", `UPDATE certificates SET der = %s WHERE serial = '1008'`, [][]byte{foreign.Raw},
			[]finding{{eventlog.FaultAltered, "1008", 7, "der was changed: it is not what the row says"}}},
		{"chain", `UPDATE chains SET der = %s`, [][]byte{foreign.Raw}, []finding{{eventlog.FaultAltered, "1008", 7, "der or chain was changed"}}},
		{"der is another's", `UPDATE certificates SET der = (SELECT der FROM certificates WHERE serial = '1009') WHERE serial = '1008'`, nil,
			[]finding{{eventlog.FaultAltered, "1008", 7, "it is not this certificate"}}},
		{"names", `UPDATE certificates SET names = '["admin"]' WHERE serial = '1008'`, nil, []finding{{eventlog.FaultAltered, "1008", 7, "names was changed"}}},
		{"names that are none", `UPDATE certificates SET names = '[' WHERE serial = '1008'`, nil, []finding{{eventlog.FaultAltered, "1008", 7, "cannot be read"}}},
		{"issuer that is none", `UPDATE certificates SET issuer = 99 WHERE serial = '1008'`, nil, []finding{{eventlog.FaultAltered, "1008", 7, "cannot be read"}}},
		{"a leaf that is none", `UPDATE log_entries SET leaf = %s WHERE idx = 302`, [][]byte{{1}},
			[]finding{{eventlog.FaultAltered, "1302", 302, "not what was logged"}, {eventlog.FaultAltered, "", -1, "the leaves are not those"}}},
		{"service", `UPDATE certificates SET service = 'admin' WHERE serial = '1008'`, nil, []finding{{eventlog.FaultAltered, "1008", 7, "service was changed"}}},
		{"caller of the event", `UPDATE events SET caller = 'me' WHERE serial = '1008'`, nil, []finding{{eventlog.FaultAltered, "1008", 7, "the event's caller"}}},
		{"lineage", `UPDATE certificates SET lineage = '1' WHERE serial = '1008'`, nil, []finding{{eventlog.FaultAltered, "1008", 7, "lineage"}}},
		{"provisioner", `UPDATE certificates SET provisioner = 'x' WHERE serial = '1008'`, nil, []finding{{eventlog.FaultAltered, "1008", 7, "not what was logged"}}},
		{"end of a proof put there", `UPDATE certificates SET proof_until = not_after + ` + day + ` WHERE serial = '1008'`, nil,
			[]finding{{eventlog.FaultAltered, "1008", 7, "proof_until was changed"}}},
		{"end of a proof put off", `UPDATE certificates SET proof_until = proof_until + ` + day + ` WHERE serial = '1009'`, nil,
			[]finding{{eventlog.FaultAltered, "1009", 8, "proof_until was"}}},
		{"end of a proof taken away", `UPDATE certificates SET proof_until = 0 WHERE serial = '1009'`, nil,
			[]finding{{eventlog.FaultAltered, "1009", 8, "proof_until was"}}},
		{"detail of a refusal", `UPDATE events SET detail = 'x' WHERE kind = 'refused'`, nil, []finding{{eventlog.FaultAltered, "", 304, "not what was logged"}}},
		{"reason", `UPDATE revocations SET reason = 0`, nil, []finding{{eventlog.FaultAltered, "1005", 300, "not what was logged"}}},
		{"revoked_at", `UPDATE revocations SET revoked_at = revoked_at - ` + day, nil, []finding{{eventlog.FaultBackdated, "1005", 300, "revoked_at was"}}},
		{"end of a revocation", `UPDATE revocations SET not_after = 0`, nil, []finding{{eventlog.FaultAltered, "1005", 300, ""}}},
		{"note", `UPDATE revocations SET note = ''`, nil, []finding{{eventlog.FaultAltered, "1005", 300, "note was changed"}}},
		{"mark of a revocation", `UPDATE revocations SET mark = 0`, nil, []finding{{eventlog.FaultAltered, "1005", 300, ""}}},
		{"a name that is not found", `DELETE FROM certificate_names WHERE id = (SELECT id FROM certificates WHERE serial = '1008')`, nil,
			[]finding{{eventlog.FaultAltered, "", -1, "table of names is not what the certificates say: it has 302 rows, they have 303 names"}}},
		{"a name that is another's", `UPDATE certificate_names SET name = 'admin' WHERE id = (SELECT id FROM certificates WHERE serial = '1008')`, nil,
			[]finding{{eventlog.FaultAltered, "", -1, "table of names"}}},
		{"revocation gone", `DELETE FROM revocations`, nil, []finding{{eventlog.FaultDeleted, "1005", 300, "the revocation is gone"}}},
		{"certificate gone", `DELETE FROM certificates WHERE serial = '1008'`, nil, []finding{{eventlog.FaultDeleted, "1008", 7, "the certificate is gone"}}},
		{"event gone", `DELETE FROM events WHERE serial = '1008'`, nil,
			[]finding{{eventlog.FaultDeleted, "", 7, "event 8 is gone"}, {eventlog.FaultInserted, "1008", -1, "the certificate was never logged"}}},
		{"newest events gone", `DELETE FROM events WHERE id > 303`, nil,
			[]finding{{eventlog.FaultDeleted, "", 303, ""}, {eventlog.FaultDeleted, "", 304, ""}, {eventlog.FaultInserted, "1303", -1, ""}}},
		{"newest entries gone", `DELETE FROM log_entries WHERE idx > 302`, nil,
			[]finding{{eventlog.FaultDeleted, "", 303, "entries 303 to 304"}, {eventlog.FaultInserted, "1303", -1, "event"}, {eventlog.FaultInserted, "", -1, "event"}}},
		{"an entry gone", `DELETE FROM log_entries WHERE idx = 9; DELETE FROM events WHERE serial = '1010'; DELETE FROM certificates WHERE serial = '1010'`, nil,
			[]finding{{eventlog.FaultDeleted, "", 9, "entries 9 to 9"}}},
		{"swapped", `UPDATE events SET id = 100000 WHERE id = 8; UPDATE events SET id = 8 WHERE id = 9; UPDATE events SET id = 9 WHERE id = 100000`, nil,
			[]finding{{eventlog.FaultMoved, "1009", 7, "those of entry 8"}, {eventlog.FaultMoved, "1008", 8, "those of entry 7"}}},
		{"planted certificate", `INSERT INTO certificates SELECT 100000, '99', service, kind, provisioner, caller, '99', previous, issuer, chain, key_hash, names, not_before, not_after, issued_at, der, 0 FROM certificates WHERE serial = '1008'`, nil,
			[]finding{{eventlog.FaultInserted, "99", -1, "the certificate was never logged"}}},
		{"planted event", `INSERT INTO events SELECT 100000, at, kind, caller, service, serial, rule, detail FROM events WHERE id = 8`, nil,
			[]finding{{eventlog.FaultInserted, "1008", -1, "the event was never logged"}}},
		{"row and leaf", `UPDATE events SET detail = 'x' WHERE kind = 'refused'; UPDATE log_entries SET leaf = %s WHERE idx = 304`,
			[][]byte{refusalLeaf(w, "x")}, []finding{{eventlog.FaultAltered, "", -1, "rows and leaves were changed together"}}},
		{"leaf in a complete block", `UPDATE log_entries SET leaf = (SELECT leaf FROM log_entries WHERE idx = 1) WHERE idx = 7`, nil,
			[]finding{{eventlog.FaultAltered, "1008", 7, "not what was logged"}, {eventlog.FaultAltered, "", -1, "look among entries 0 to 255"},
				{eventlog.FaultRolledBack, "", -1, "the first 300 entries"}}},
		{"passed off as pruned", `UPDATE log_entries SET pruned = 4 WHERE idx = 7; DELETE FROM events WHERE serial = '1008'; DELETE FROM certificates WHERE serial = '1008'`, nil,
			[]finding{{eventlog.FaultDeleted, "", 7, "no prune tells of it"}}},
		{"the head", `UPDATE log_state SET head = 'x'`, nil, []finding{{eventlog.FaultUnsigned, "", -1, "the newest head"}}},
	} {
		if i%8 > 0 && strings.HasPrefix(where, "postgres") {
			continue // a database each takes its time; the program runs the same statements on both
		}
		t.Run(tc.name, func(t *testing.T) {
			place := t.TempDir() + "/copy.db"
			if strings.HasPrefix(where, "postgres") {
				place = postgres.Database(t)
			}
			copied := w.CopyTo(t, place)
			copied.Tamper(tc.tamper, tc.blobs...)
			report := copied.Verify(kept)
			for _, want := range tc.want {
				found := false
				for _, f := range report.Findings {
					found = found || f.Fault == want.fault && f.Index == want.index && f.Serial == want.serial && strings.Contains(f.Text, want.text)
				}
				if !found {
					t.Errorf("want %+v in %+v", want, report.Findings)
				}
			}
			if len(report.Findings) > len(tc.want)+2 && tc.name != "chain" && tc.name != "the head" && tc.name != "leaf in a complete block" {
				t.Errorf("too much: %+v", report.Findings)
			}
		})
	}
}

// refusalLeaf is the leaf of the world's refusal with another detail.
func refusalLeaf(w *storetest.Log, detail string) []byte {
	leaf := translog.Entry{At: time.UnixMilli(w.Start.Add(310 * time.Second).UnixMilli()), Kind: "refused", Caller: "someone", Rule: "names", Detail: detail}.Leaf()
	return leaf[:]
}

// TestBackdatedThroughTheSequencer: an attacker who does all that the program
// does, and dates it back, has it signed; the entries before it give it away.
func TestBackdatedThroughTheSequencer(t *testing.T) {
	postgres.Engines(t, backdatedThroughTheSequencer)
}

func backdatedThroughTheSequencer(t *testing.T, where string) {
	w := storetest.NewLog(t, where)
	w.Issue(3)
	for i := range 2 {
		late := storetest.Entry(5000+i, "storage")
		late.IssuedAt = w.Start.Add(-24 * time.Hour)
		storetest.Commit(t, w.Store, late)
	}
	w.Issue(1)
	w.Sequence()
	report := w.Verify()
	if len(report.Findings) != 1 || report.Findings[0].Fault != eventlog.FaultBackdated || report.Findings[0].Index != 3 || !strings.Contains(report.Findings[0].Text, "24h0m3s before") {
		t.Errorf("%+v", report)
	}
}

// TestManyFindings: a report stays small whatever is wrong, and counts the rest.
func TestManyFindings(t *testing.T) {
	w := storetest.NewLog(t, t.TempDir()+"/pki.db")
	for i := range 1010 {
		c := storetest.Entry(5000+i, "storage")
		c.IssuedAt = w.Start
		storetest.Commit(t, w.Store, c)
	}
	text := w.Sequence()
	w.Tamper(`UPDATE certificates SET provisioner = 'x'`)
	if report := w.Verify(); len(report.Findings) != 1000 || report.More != 10 {
		t.Errorf("%d findings and %d more", len(report.Findings), report.More)
	}
	if _, err := w.Store.LogEntry(t.Context(), w.Seen, 5); !errors.Is(err, store.ErrLog) {
		t.Errorf("a proof of rows that were altered: %v", err)
	}
	if got, err := w.Store.LogHead(t.Context()); err != nil || !bytes.Equal(got, text) {
		t.Errorf("%q, %v", got, err)
	}
	w.Tamper(`DELETE FROM log_nodes; DELETE FROM log_entries WHERE idx = 7; UPDATE log_entries SET leaf = x'00' WHERE idx = 9`)
	for _, index := range []int64{3, 7, 9} {
		if _, err := w.Store.LogEntry(t.Context(), w.Seen, index); !errors.Is(err, store.ErrLog) {
			t.Errorf("a proof without its hashes, entry %d: %v", index, err)
		}
	}
	if err := w.Store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Store.LogHead(t.Context()); err == nil {
		t.Error("a closed record has a head")
	}
	if _, _, err := w.Store.Sequence(t.Context(), w.Key, w.Seen); err == nil {
		t.Error("a closed record was extended")
	}
	if _, err := w.Store.Prune(t.Context(), "x", storetest.Base, 1); err == nil {
		t.Error("a closed record was pruned")
	}
}
