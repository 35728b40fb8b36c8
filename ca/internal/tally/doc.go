// Package tally keeps what follows from the log and would take a scan of the record to find out:
// how many events there were in each hour, how many certificates end in each hour, which
// certificate of each lineage is the newest, and which certificate has a fingerprint. The
// dashboard reads it.
//
//	t := tally.New(db)
//	more, err := t.Fold(ctx, time.Now()) // after the sequencer, until more is false
//
// [Tally.Fold] takes the entries of the log in their order, some hundreds in one transaction,
// together with the number of entries that are counted in. It comes after the sequencer and not
// in the transaction of each certificate: there, all callers of PostgreSQL would wait for each
// other to count in the same row. A record of before, and entries that an older program has
// sequenced meanwhile, are counted in by the same loop.
//
// A crash leaves the number of entries and what was counted in together, as of the last commit.
// Nothing here decides anything: a record without these tables issues the same certificates, and a
// fault in them stops neither issuing nor the log.
//
// Invariants:
//
//   - After Fold has nothing more to do, the tables are what a count of all rows gives
//     (TestFoldFollowsTheRecord).
//   - Each entry is counted once, whatever ends between (TestFoldIsCountedOnce), also if several
//     processes fold one record (TestFoldOfTwo).
//   - An entry whose rows are gone or cannot be read does not stop Fold (TestFoldOfWhatIsGone).
package tally
