// Package ca is the authority: who may get which certificate, the issuing, and
// the record of it. It speaks the step-ca HTTP API, so the step CLI works
// unchanged.
//
//	_, err := setup.Init(ctx, setup.Options{Dir: dir})
//	a, err := ca.Open(ctx, ca.Options{Dir: dir})
//	go a.Watch(ctx, serverIdentityChanged)    // its own certificate and the revoked lists, for the listener
//	go a.KeepLog(ctx)                         // signs the head of the log
//	go a.KeepWatchers(ctx)                    // lets services wait for changes
//	http.Handler(a.Handler())                 // behind TLS 1.3, client certificates optional
//	token, err := ca.StateDir(dir).NewToken(ctx, ca.TokenOptions{Service: "ingester"})
//	defer a.Close()
//
// Invariants:
//
//   - Deny by default: a service obtains the names that its profile allows, for as
//     long as its profile says (TestSign, TestPatternsDecide, TestDatesAsAsked), also
//     when it renews (TestPatternsHoldForRenewals). A refusal names the rule.
//   - No certificate leaves before it is committed (TestCommitFailure): every
//     certificate that any client has ever received is in the record (TestKill).
//   - A token is used once, also at replicas (TestReplicasSpendATokenOnce). The same
//     token with the same key gets the same certificate again, because an answer can
//     be lost (TestTokenReuse).
//   - No certificate outlives its issuer (TestLeafEndsWithItsIssuer), and none in the
//     lineage of a revoked one is renewed (TestRenewRekeyRevoke, TestLineageIsBounded).
//   - Every event is in a Merkle tree, whose signed heads leave with the certificates
//     (TestHeadsAreHandedOut). The authority signs nothing over a log that was changed
//     (TestLogThatCannotGoOn), and does not go on with a record that is older or another
//     one (TestLostRecord, TestRolledBackUnderServe).
//   - A revocation is in the lists at /revoked as soon as it is acknowledged
//     (TestReplicasSeeARevocationAtOnce).
//   - A client that asks too often, or with bad credentials, waits before anything of
//     its request is parsed; memory and record do not grow by it (TestFlood).
//   - Roots, intermediates and configuration change without a restart (TestTrustChange).
//     A file that is not valid changes nothing (TestReloadKeepsTheOldConfiguration).
//   - A service that waits is told of a change by any process within seconds, and only
//     whoever has a valid certificate can wait (TestWatchers, TestWatchReplicas).
//   - The embedded authority of smallstep stores nothing (TestNoDatabaseFailsClosed).
//
// All that a request needs is one immutable value behind one atomic pointer. Whatever
// the proof (an enrolment token, a certificate, an answered challenge), certificates
// come from one pipeline, and the profile decides.
//
// smallstep's authority is embedded for what it tells clients of provisioners. Its
// signing path is not used, nor its check of tokens: it spends a token before it has
// looked at the signature, parses it four times, and stores token and certificate in
// two steps. docs/design/0027-what-of-smallstep-runs.md has the list.
//
// [StateDir], [Record] and the packages ca/setup, ca/doctor and ca/backup are for
// operators. They work beside a running authority, and docs/operations.md says when.
//
// The state directory and the key password together are the authority: anybody who has
// both can issue. Private keys of services are made by the services, and the authority
// never receives one.
package ca
