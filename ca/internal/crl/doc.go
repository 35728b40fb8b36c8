// Package crl makes the revocation lists of an authority (RFC 5280 §5): it encodes
// and signs them, keeps the newest of each issuer, and decides when the next one is made.
//
//	lists := crl.New(crl.Config{Record: store, Key: keyOf, Logger: logger})
//	list, err := lists.Get(ctx, intermediate, signer, true)
//	w.Write(list.DER())
//
// Invariants:
//
//   - A list is, byte for byte, what the standard library would have signed
//     (TestCRLIsTheStandardLibrarys).
//   - An exact list has every revocation that was committed before the call; any other
//     list misses those of the last second at most (TestLongListsArePaced).
//   - A revocation that is in no list yet because signing failed is in the next one
//     (TestListsAfterAFailure).
//   - An entry leaves a list only after its certificate has expired
//     (TestCRLIsTheStandardLibrarys). An entry of the list of a root never does
//     (TestRootListGrows).
package crl
