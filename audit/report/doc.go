// Package report writes what an audit has found, for people and for programs.
//
//	out, err := report.New("json", os.Stdout, report.Terminal{})
//	summary, err := audit.Run(ctx, audit.Config{Report: out, Sources: sources})
//
// [Formats] lists the names that [New] takes. Every text that comes from a
// certificate or a path is escaped for the format it is written in: a terminal, JSON, a
// spreadsheet, a label of Prometheus, a page. Such texts are chosen by others, and a
// report must not run them.
package report
