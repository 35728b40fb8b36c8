// Package translog is the arithmetic of the authority's log: how an entry is
// written so that it has one meaning, how a Merkle tree grows over entries, and
// how its root is signed. It reads no database and keeps nothing.
//
//	leaf := translog.Entry{At: now, Kind: "issued", Serial: "7", Subject: digest}.Leaf()
//	tree.Append(leaf, nil)
//	text, err := key.Sign(translog.Head{Size: tree.Size(), Root: tree.Root(), Time: now})
//	head, err := verifier.Open(text)
//
// Promises:
//
//   - Every entry has exactly one encoding, and every encoding at most one
//     entry: two different rows never share a leaf.
//   - The tree is that of RFC 6962 §2.1, so proofs are those of every other
//     transparency log (golang.org/x/mod/sumdb/tlog makes and checks them).
//   - A head is a signed note with a checkpoint in it, as c2sp.org/tlog-checkpoint
//     has it: other tools read, witness and compare it.
//
// A head says: the entries before this size are these, in this order. Whoever
// keeps one can tell for ever whether the log still agrees; whoever holds the log
// key can begin another history, but cannot make it fit a head that is kept.
package translog
