// Package trust has the document that says which roots and intermediates an authority uses,
// and at which stage each root is, and the steps that lead from one document to the next.
//
//	next, err := doc.Activate(fingerprint, time.Now())
//	text, err := trust.Sign(logKey, next)
//	doc, err := trust.Open(logKey.Verifier(), text)
//
// A document is a value: a step returns a new one, whose version is one higher, or the reason
// why the step makes no sense. Whether a step would cut off a service is not decided here: that
// takes the record (ca/trust.go).
//
// Certificates are named by the SHA-256 fingerprint of their DER, in lower-case hex.
//
// Invariants:
//
//   - In each document one root is active and signs the intermediate that issues; every other
//     root is staged or old (TestSteps, FuzzSteps).
//   - A rollback after a step leads to the roots, the issuing intermediate and the stages of
//     before (TestRollback, FuzzSteps).
//   - A document that the key of the log has not signed is not read, so whoever can only write
//     to the database cannot change the trust (TestOpen).
//   - A key in the database is encrypted by a secret that is not in the database, and bound to
//     its certificate (TestSeal).
package trust
