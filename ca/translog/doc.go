// Package translog is the arithmetic of the authority's log: the encoding of an entry, the
// Merkle tree over entries, and the signed head. It reads no database.
//
//	leaf := translog.Entry{At: now, Kind: "issued", Serial: "7", Subject: digest}.Leaf()
//	tree.Append(leaf, nil)
//	text, err := key.Sign(translog.Head{Size: tree.Size(), Root: tree.Root(), Time: now})
//	head, err := verifier.Open(text)
//
// Invariants:
//
//   - An entry has one encoding, and two different entries never have the same leaf
//     (TestEveryFieldCounts, FuzzParseEntry).
//   - The tree is that of RFC 6962 §2.1, so golang.org/x/mod/sumdb/tlog makes and checks
//     its proofs (TestTreeAgreesWithTheLibrary).
//   - A head is a signed note as in c2sp.org/tlog-checkpoint, and only a signature of the
//     key of the log is accepted (TestHead, TestHeadRefused).
//
// A head fixes the first entries of the log and their order. Somebody who has the log key can
// sign another history, but no history that agrees with a head that somebody else kept.
package translog
