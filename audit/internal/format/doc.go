// Package format reads the files in which certificates are kept: PEM, DER, PKCS #7
// and #12, stores of Java, manifests of Kubernetes, and other files that may hold one.
//
//	with := &format.Context{Known: &cert.Cache{}, Passwords: passwords}
//	for _, part := range with.ParseFile(path, data, format.Expects(path)) {
//		// part.Cert, part.Key, part.Document, or part.Err
//	}
//
// The file is the input of a stranger: its parser may not panic, take long, or quote a
// secret in an error. A parser goes on after a part that it cannot read, because the
// next certificate of the same file may be the one that has expired.
//
// Invariants:
//
//   - A block that is labelled as a certificate is never passed over without a [Part]
//     (FuzzParse), and neither is a certificate in any other known form (TestWrappings).
//   - A certificate that crypto/x509 refuses has its reason beside it (FuzzParse).
//   - The size of a file bounds the time for it (TestHostileFiles), also for a manifest
//     with aliases (TestHostileManifests).
//   - No signature is checked with a key that is too long to compute with
//     (TestOversizedKeys).
//   - Nothing of a token but its known claims is shown (TestToken), and an error of a
//     manifest quotes none of its values (TestHostileManifests).
package format
