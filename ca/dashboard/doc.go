// Package dashboard shows the record of an authority to people: what ends next and who renews it, who
// holds what, what was issued and refused, how far a change of roots is, and whether the log is in order.
//
//	d, err := dashboard.Open(ctx, dashboard.Options{Dir: "/var/lib/artstore-pki"})
//	defer d.Close()
//	err = httpserver.Serve(ctx, ln, httpserver.Config{Handler: d.Handler(), Server: server})
//
// It reads the state directory and the database with connections of its own, beside the authority or
// without one, and needs no password. Who may connect is the business of the caller: a server with
// mutual TLS and a list of names, a Unix socket, or loopback.
//
// Invariants:
//
//   - There is no way to change anything: only GET and HEAD are answered, and the connections to the
//     database refuse to write (TestOnlyReads).
//   - Pages come from ranges of indexes and from counts, whatever the size of the record
//     (TestNoScans in internal/query, TestDashboardAtSize).
//   - Names, notes and all else that services choose are text in a page, and never markup
//     (TestHostileRecord).
//   - No page has a secret (TestNoSecretInAnyOutput in cmd/artstore-pki).
//   - A page of a website cannot read the dashboard on loopback by a name of its own, and cannot frame
//     it (TestForeignHosts, TestHeaders).
package dashboard
