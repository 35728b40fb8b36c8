// Package fileperm finds files that other users than the owner can read or replace.
//
// A file is safe if it belongs to this user or to root, if its mode permits others no more
// than necessary, and if no other user can replace it or a directory above it. In a
// directory with the sticky bit, such as /tmp, each user can make files, and none can
// replace those of others. Access control lists are ignored.
//
// All findings are sentences for an operator. On systems without owners and modes there
// are none.
package fileperm

import (
	"io/fs"
	"os"
	"path/filepath"
)

// Secret is the widest mode of a file with a secret. As in libpq, a group may also read such
// a file if it belongs to root, because Kubernetes mounts secrets for a pod with an fsGroup
// in that way.
const Secret fs.FileMode = 0o600

// Exposed reports whether the mode of a secret gives others too much.
func Exposed(info fs.FileInfo) bool { return exceeds(info, Secret) }

// ExposedMode is [Exposed] for a mode alone, where it is known whether the file belongs to root.
func ExposedMode(mode fs.FileMode, ofRoot bool) bool { return exceedsMode(mode, Secret, ofRoot) }

// Owner returns the user that a file belongs to, or false on systems without owners.
func Owner(info fs.FileInfo) (uid int, ok bool) { return owner(info) }

// File judges the owner and the mode of one file or directory. most is the widest mode that
// is allowed. The file may belong to this user, to root and to the owners. A file that is
// absent or cannot be examined has no findings, because reading it will say why.
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

// Parents judges the directories above path, and those above the target of each symbolic link
// in it. A user who can write to one of them can replace the file.
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
