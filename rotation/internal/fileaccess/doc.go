// Package fileaccess has what differs between systems in who may do what with a file: it opens
// lock files, asks whether this user may write to a directory, and gives a new file owner,
// group, mode and ACL of the one that it replaces.
//
//	f, err := fileaccess.OpenLock(filepath.Join(dir, ".lock"))
//	lost, err := fileaccess.Keep(root, "old/tls.key", "new/tls.key", 0o640)
//
// Where a system has no owners and modes, everything is permitted and nothing is kept.
package fileaccess
