// Package audit finds certificates on disk, at servers and in the record of an authority, and
// reports when they end and what is wrong with them.
//
//	out, err := report.New("table", os.Stdout, report.Terminal{})
//	summary, err := audit.Run(ctx, audit.Config{Report: out, Sources: []audit.Source{
//		source.Targets{Names: []string{"/etc/artstore/tls", "storage:8010"}, Bundle: roots},
//	}})
//
// It is a pipeline of three parts that know nothing of each other: a [Source]
// finds certificates and yields each as a [Subject], the table of checks turns
// a subject into findings, a [Renderer] writes the report. Package source has the
// source for files and servers, package report the renderers, and package cert the
// facts about one certificate. [Record] is the source for the record of an authority.
//
// An audit writes no file, and no private key leaves its process. It never switches a
// verification off: the certificate of a refused server is read from the error.
//
// Invariants, with the tests of this package and of its rooms:
//
//   - Each certificate below a directory is in a row (TestEachCertificateIsInTheReport).
//     A file that cannot be read is a row with the reason (TestUnreadable, TestTooLarge),
//     and so is a server that cannot be reached (TestEndpoints). Neither ends the audit.
//   - A certificate that crypto/x509 refuses has its dates judged, and its row has the
//     reason (TestRefused).
//   - Certificates that programs renew are judged by whether they were renewed, and those
//     that people renew by the time that is left, measured against the whole life
//     (TestDatesAndRenewal).
//   - The verdicts on a table of cases are those of OpenSSL and curl. A case with another
//     verdict needs a reason in the table (TestVerdictsOfFiles, TestVerdictsOfServers).
//   - Rows come in the order of the sources, although they are judged in parallel
//     (TestOrder).
//   - A certificate counts once in the summary, and the parts of the summary add up
//     (TestSummaryAddsUp).
//   - An audit that is interrupted finishes its report, which says that it is not
//     complete (TestInterruptedReport). A report that cannot be written ends the audit
//     (TestBrokenReport).
//   - A config that would judge nothing is refused (TestRunRefuses).
package audit
