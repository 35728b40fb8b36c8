// Package exporter audits its targets for months and serves what it finds: metrics for
// Prometheus, the page of the audit, and its report in JSON.
//
//	e, err := exporter.New(exporter.Options{ConfigFile: "/etc/artstore-pki/exporter.yaml"})
//	go e.Run(ctx)
//	httpserver.Serve(ctx, ln, httpserver.Config{Handler: e.Handler()})
//
// Files are read when they change, servers and the record by a schedule. A request runs an audit
// of what is known at this moment, with the checks of package audit: so the dates are always
// judged at the moment of the request, and the differences between disk, servers and record too.
// docs/exporter.md describes configuration and metrics, docs/design/0042-exporter.md says why.
//
// Invariants:
//
//   - The report is that of an audit of the same targets (TestServesWhatAuditReports).
//   - A changed file is in the metrics within seconds, and what is gone leaves them
//     (TestFollowsFiles).
//   - What fails keeps its results, which are marked (TestKeepsWhatFails).
//   - No series comes twice, there are not more than the setting allows, and no name of a
//     stranger does harm (TestHostileNames, TestMaxSeries).
//   - A bad configuration changes nothing, and is a metric and a line of the log with file and
//     line (TestReload).
//   - With 20 000 files and 200 servers it costs what the configuration promises
//     (TestLarge).
package exporter
