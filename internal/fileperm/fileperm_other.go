//go:build !unix

package fileperm

import "io/fs"

func owner(fs.FileInfo) (int, bool)         { return 0, false }
func foreign(fs.FileInfo, []int) string     { return "" }
func exceeds(fs.FileInfo, fs.FileMode) bool { return false }

func exceedsMode(fs.FileMode, fs.FileMode, bool) bool { return false }
func writable(fs.FileInfo) bool                       { return false }
func modes(fs.FileInfo, fs.FileMode) string           { return "" }
