// Package trustplan makes the plan of one step of the trust: the next document, the CA
// certificates and lists that belong to it, and who would be cut off.
//
//	p, err := before.Plan(ctx, change)
//	err = p.Decide(fleet)
//	rows, err := p.Write(files, logKey)
//	// ... the document and the rows are committed ...
//	err = p.StoreLists(files)
//
// A plan is decided twice: before anything is written if it is a dry run, and otherwise in the
// transaction that commits it. The package keeps no state, and neither signs nor stores documents.
//
// Invariants:
//
//   - A step that would cut off a holder that was not accepted is a [CutOffError], and one that
//     makes no sense a [StepError] (TestTrustChange in ca).
//   - No step lets a certificate that has ended sign (TestActivateEnded in ca).
//   - A revocation list is written after its step is in the record only (TestTrustCrashes in
//     cmd/artstore-pki).
//   - An intermediate that would leave the list is in Retires, so that the transaction looks once
//     more for its leaves (TestIntermediateStaysWithItsFirstLeaf in ca).
package trustplan
