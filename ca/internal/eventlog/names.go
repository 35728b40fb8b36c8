package eventlog

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/translog"
)

// The table of names repeats the names of all certificates, for searching. A certificate
// whose row is missing there cannot be found by its name, so Verify compares the table with
// the certificates. It compares them as sets: their orders differ, and neither fits into
// memory.

// nameSet is a hash of a set that does not depend on the order of its members: the sum of
// their hashes, in four words without carry between them.
type nameSet struct {
	n   int64 // of members
	sum [4]uint64
}

func (s *nameSet) add(name string, notAfter, id int64) {
	hash := translog.NewFields("name").Text(name).Int(notAfter).Int(id).Digest()
	for i := range s.sum {
		s.sum[i] += binary.BigEndian.Uint64(hash[i*8:])
	}
	s.n++
}

func (s *nameSet) addAll(c *record.Certificate, id int64) {
	names := slices.Clone(c.Names)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		s.add(name, sqldb.Millis(c.NotAfter), id)
	}
}

// nameIndex compares the table of names with the certificates, unless something was found
// before: an altered certificate makes the sums differ too, and is reported already.
func (v *logVerifier) nameIndex(ctx context.Context) error {
	if len(v.report.Findings) > 0 {
		return nil
	}
	rows, err := v.q.QueryContext(ctx, `SELECT name, not_after, id FROM certificate_names`)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // rows.Err is checked below
	var index nameSet
	for rows.Next() {
		var name string
		var notAfter, id int64
		if err := rows.Scan(&name, &notAfter, &id); err != nil {
			return err
		}
		index.add(name, notAfter, id)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if index != v.names {
		v.add(translog.Finding{Fault: FaultAltered, Index: -1,
			Text: fmt.Sprintf("the table of names is not what the certificates say: it has %d rows, they have %d names", index.n, v.names.n)})
	}
	return nil
}
