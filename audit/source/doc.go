// Package source finds certificates for an audit: in files and directories, and at
// servers.
//
//	targets := source.Targets{Names: []string{"/etc/artstore/tls", "storage:8010"}, Bundle: roots}
//	targets.Collect(ctx, func(s audit.Subject) { fmt.Println(s.Place, s.Err) })
//
// Files come before servers, and both in the order in which they were named. A
// directory is read in pieces side by side, and what it holds is yielded in the order
// of names. Nothing is written, no key leaves the process, and no file costs more than
// its size.
package source
