// Package audit says what expires when, and what is wrong with it: on disk, on
// the wire, and in the record of the authority.
//
//	out, err := report.New("table", os.Stdout, report.Terminal{})
//	summary, err := audit.Run(ctx, audit.Config{Report: out, Sources: []audit.Source{
//		source.Targets{Names: []string{"/etc/artstore/tls", "storage:8010"}, Bundle: roots},
//	}})
//
// It is a pipeline of three parts that know nothing of each other: a [Source]
// finds certificates and yields each as a [Subject], the table of checks turns
// a subject into findings, a [Renderer] writes the report. Package source has the
// source for files and servers, package report the renderers, package cert what is
// known of one certificate; [Record] is the source for the record of an authority.
//
// # Promises
//
//   - Everything that was looked at is a row. What cannot be read, parsed or
//     reached is a row too, with the reason; it ends nothing. A certificate that
//     crypto/x509 refuses has its dates judged beside the reason.
//   - What is far from its end depends on the life it has: a certificate for a
//     day is no alarm because it ends within 30 days. Certificates that programs
//     renew are judged by whether they were renewed, those that people renew by
//     the time that is left.
//   - Nothing is written, no key leaves the process, and no verification is
//     switched off: what a refused peer showed is read from the error that
//     refused it.
//   - Every string that comes from a certificate or a path is escaped for where it
//     goes: a terminal, JSON, a spreadsheet, a label of Prometheus.
//   - No file costs more than its size: none that is no regular file is opened, and
//     none above 32 MiB is read. A key that is too long to compute with is a finding,
//     and no signature is checked with it.
package audit
