// Package ca is the authority: who may get which certificate, the issuing, and
// the record of it. It speaks the step-ca HTTP API, so the step CLI works
// unchanged.
//
//	_, err := ca.Init(ctx, ca.InitOptions{Dir: dir})
//	a, err := ca.Open(ctx, ca.Options{Dir: dir})
//	go a.Watch(ctx, serverCertificateChanged) // its own certificate, for the listener
//	http.Handler(a.Handler())                 // behind TLS 1.3, client certificates optional
//	token, err := ca.NewToken(ctx, ca.TokenOptions{Dir: dir, Service: "ingester"})
//	defer a.Close()
//
// Promises:
//
//   - Deny by default: a service obtains the names that its profile lists, for as
//     long as its profile says, also when it renews; a refusal names the rule.
//   - Nothing is stored before it is verified, and no certificate leaves before
//     it is committed: every certificate that any client ever received is in the
//     record.
//   - A token is used once. The same token with the same key gets the same
//     certificate again, because an answer can be lost.
//   - No certificate outlives its issuer, and none in the lineage of a revoked
//     one is renewed.
//   - Roots, intermediates and configuration change without a restart: all that a
//     request needs is one immutable value behind one atomic pointer. A file that
//     is not valid changes nothing.
//
// smallstep's authority is embedded for its provisioners, which check tokens.
// Its signing path is not used: it spends a token before it has checked it, and
// stores token and certificate in two steps.
//
// Whoever holds the state directory and the key password is the authority.
// Private keys of services never come near it.
package ca
