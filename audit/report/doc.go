// Package report writes what an audit has found, for people and for programs.
//
//	out, err := report.New("json", os.Stdout, report.Terminal{})
//	summary, err := audit.Run(ctx, audit.Config{Report: out, Sources: sources})
//
// [Formats] lists the names that [New] takes. A stranger chooses the texts in certificates
// and some paths, and a report must not run them: they are escaped for the format, be that
// a terminal, JSON, a spreadsheet, a label of Prometheus or a page.
//
// Invariants:
//
//   - A text from a certificate or a path stays text: in tables and JSON
//     (TestHostileNames), in CSV and Prometheus (TestInjection), and in a page
//     (TestHTMLOfHostileText).
//   - SARIF and CBOM are valid by their schemas for any input (TestSchemas), JUnit has
//     only elements that servers know (TestJUnit), and a series of Prometheus comes once
//     (TestPrometheusNames).
//   - A name of 64 KiB makes no report for people long (TestLongNames), and a page has
//     50 000 rows at most, the worst ones (TestHTMLOfMoreThanItHolds).
//   - Times do not saturate, also for certificates without an end (TestWithoutEnd).
//   - Passwords in addresses are not shown (TestAboutWithoutPasswords).
//   - Formats for programs change on purpose only (TestGolden), and the documentation has
//     each field, metric and check (TestDocumented).
package report
