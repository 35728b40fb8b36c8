// Package workload serves the identities of package rotation to other programs of the same
// machine: the SPIFFE Workload API (X.509-SVIDs and X.509 bundles) on a Unix socket.
//
//	var ids workload.Identities
//	ids.Put("storage", id) // a *rotation.Identity
//	var rules workload.Rules
//	err := rules.Set([]workload.Rule{{User: "storage", Identities: []string{"storage"}}})
//	ln, err := workload.Listen(ctx, workload.Socket{Path: "/run/artstore-pki/workload.sock"})
//	err = workload.Serve(ctx, ln, workload.Config{Identities: &ids, Rules: &rules})
//
// A program that uses the Workload API, for instance through workloadapi.NewX509Source of go-spiffe, gets
// its certificate, key and trust bundle at once, and again after each generation.
//
// Who gets what is decided by the kernel and the rules: the kernel records the user, the group
// and the process that has called connect, and [Rule] names them. A caller that no rule names
// gets nothing.
//
// Invariants:
//
//   - A caller gets the identities of its rules and nothing of others
//     (TestAnotherUserGetsNothing, TestExecutable).
//   - New rules take effect for open streams too, and no stream ends but that of a caller that
//     gets nothing any more (TestRulesChange, TestRulesRace).
//   - A message has the newest revocation list of each issuer, or none of them if they are too long
//     (TestRevocationLists).
//   - A stream has the newest generation after each change, without a new connection
//     (TestRotations). A reader that is slow skips generations: what waits for it is bounded, and
//     ends with the newest one (TestSlowReader).
//   - One message never mixes two generations of an identity (TestOneGenerationPerMessage).
//   - A call without the security header is refused with InvalidArgument (TestHeader), one of
//     a method that is not served with Unimplemented (TestMethods).
//   - A leaf that is no X509-SVID, or has expired, is not handed out; the status says why
//     (TestWhatIsNotServed).
//   - Callers of one rule, and callers without any, cannot take connections or streams from those
//     of another one (TestFloodOfAGroup, TestFloodOfStrangers). One user has a share of them
//     (TestFloodOfConnections, TestFloodOfStreams), and its calls come at a
//     bounded rate (TestFloodOfCalls).
//   - Keys are in messages and nowhere else (TestKeysAreInMessagesOnly).
//   - Serve ends soon after its context, whatever callers do, and joins everything
//     (TestStopWithSlowReaders).
//
// # Rules for callers
//
// The key of an identity leaves this process, so a key in hardware cannot be served. Each
// identity has one trust bundle, and it is sent as the bundle of the trust domain of the own
// SPIFFE ID; package spiffe says what follows from that. The lists of [Identities.SetRevoked] are
// verified by who sets them.
package workload
