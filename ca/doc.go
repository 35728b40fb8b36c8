// Package ca is the authority: who may get which certificate, the issuing, and
// the record of it. It speaks the step-ca HTTP API, so the step CLI works
// unchanged.
//
//	_, err := setup.Init(ctx, setup.Options{Dir: dir})
//	a, err := ca.Open(ctx, ca.Options{Dir: dir})
//	go a.Watch(ctx, serverIdentityChanged)    // its own certificate and the revoked lists, for the listener
//	go a.KeepLog(ctx)                         // signs the head of the log
//	http.Handler(a.Handler())                 // behind TLS 1.3, client certificates optional
//	token, err := ca.StateDir(dir).NewToken(ctx, ca.TokenOptions{Service: "ingester"})
//	defer a.Close()
//
// Promises:
//
//   - Deny by default: a service obtains the names that its profile allows, for as
//     long as its profile says, also when it renews; a refusal names the rule.
//   - Nothing is stored before it is verified, and no certificate leaves before
//     it is committed: every certificate that any client ever received is in the
//     record.
//   - A token is used once. The same token with the same key gets the same
//     certificate again, because an answer can be lost.
//   - No certificate outlives its issuer, and none in the lineage of a revoked
//     one is renewed.
//   - What is in the record cannot be changed unseen: every event is in a Merkle
//     tree whose signed heads leave with the certificates.
//   - A revocation is in the lists of [Authority.Handler] at /revoked as soon as it
//     is acknowledged, and what it costs does not grow with their length.
//   - Who asks too often, or with bad credentials, waits before anything of a
//     request is parsed; memory and record do not grow by it.
//   - Roots, intermediates and configuration change without a restart: all that a
//     request needs is one immutable value behind one atomic pointer. A file that
//     is not valid changes nothing.
//
// smallstep's authority is embedded for what it tells clients of provisioners, and
// for its ACME server, orders and challenges. Its signing path is not used, nor its
// check of tokens: it spends a token before it has looked at the signature, parses
// it four times, and stores token and certificate in two steps. Whatever the proof (an enrolment token, a certificate, an answered
// challenge), certificates come from one pipeline, and the profile decides.
//
// [OpenRecord] and the packages ca/setup, ca/doctor and ca/backup are for operators: they work beside a
// running authority, and docs/operations.md says when.
//
// Whoever holds the state directory and the key password is the authority.
// Private keys of services never come near it.
package ca
