// Package fileperm says who besides the owner can read or change what is on disk.
//
// A file is safe if it belongs to this user or to root, if its mode gives others
// no more than it has to, and if nobody else can replace it or a directory above
// it. Directories with the sticky bit, such as /tmp, let everybody make files and
// nobody replace those of others. Access control lists are not looked at.
//
// All findings are sentences for an operator. Where there are no owners and modes
// there are no findings.
package fileperm

import (
	"io/fs"
	"os"
	"path/filepath"
)

// Secret is the most that the mode of a secret may give, as in libpq: a group may
// read one that belongs to root, because that is how Kubernetes mounts secrets
// for a pod with an fsGroup.
const Secret fs.FileMode = 0o600

// Exposed reports whether the mode of a secret gives others too much.
func Exposed(info fs.FileInfo) bool { return exceeds(info, Secret) }

// ExposedMode is [Exposed] for a mode alone, where it is known whether the file belongs to root.
func ExposedMode(mode fs.FileMode, ofRoot bool) bool { return exceedsMode(mode, Secret, ofRoot) }

// Owner returns the user that a file belongs to, and false where there is none.
func Owner(info fs.FileInfo) (uid int, ok bool) { return owner(info) }

// File judges the owner and mode of one file or directory; most is what the mode
// may give. Files may belong to this user, to root and to the owners. One that is
// not there or cannot be looked at has no findings: reading it will say why.
func File(path string, most fs.FileMode, owners ...int) (findings []string) {
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	if text := foreign(info, owners); text != "" {
		findings = append(findings, path+" "+text)
	}
	if exceeds(info, most) {
		findings = append(findings, path+" "+modes(info, most))
	}
	return findings
}

// Parents judges the directories above path, and those above what a symbolic link
// on the way leads to: who can write to one of them can put something else in its place.
func Parents(path string, owners ...int) (findings []string) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil
	}
	seen := map[string]bool{}
	for _, start := range []string{path, resolved(path)} {
		for dir := filepath.Dir(start); !seen[dir]; dir = filepath.Dir(dir) {
			seen[dir] = true
			info, err := os.Lstat(dir)
			if err != nil {
				continue
			}
			if text := foreign(info, owners); text != "" {
				findings = append(findings, dir+" "+text+", who can replace what is below")
			}
			if writable(info) {
				findings = append(findings, dir+" "+modes(info, 0o755)+": others can replace what is below")
			}
		}
	}
	return findings
}

// SecretFile is what [File] and [Parents] find about a secret.
func SecretFile(path string) []string {
	return append(File(path, Secret), Parents(path)...)
}

func resolved(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	return path
}
