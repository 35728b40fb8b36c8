// Package source finds certificates for an audit: in files and directories, and at
// servers.
//
//	targets := source.Targets{Names: []string{"/etc/artstore/tls", "storage:8010"}, Bundle: roots}
//	targets.Collect(ctx, func(s audit.Subject) { fmt.Println(s.Place, s.Err) })
//
// Files come before servers, and both in the order in which they were named. A directory
// is read in parallel, and yielded in the order of names. Nothing is written, and no
// private key leaves the process.
//
// Invariants:
//
//   - Each certificate below a directory is yielded, whatever links there are, and the
//     walk ends (TestEachCertificateIsInTheReport, TestLinksToDirectories).
//   - A file whose name promises a certificate and that cannot be read is yielded with its
//     error (TestUnreadable, TestTooLarge). So is a server that cannot be reached or does
//     not speak TLS (TestEndpoints, TestSilentEndpoint).
//   - A set of files that is swapped during the walk is of one generation
//     (TestLiveDirectory), and replaced generations are no finding (TestGenerations).
//   - A server that keeps silent delays no other one (TestSilentHoldsNobodyUp), and no
//     more than Targets.Parallel servers are talked to at a time (TestTurns).
//   - A client certificate goes only to a server that the bundle verifies
//     (TestClientCertificateAndName).
package source
