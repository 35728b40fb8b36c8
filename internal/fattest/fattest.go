//go:build unix

// Package fattest mounts real FAT and exFAT file systems for tests: each on an image of its own,
// behind a loop device, which is removed with the test. Only tests import it. Neither has
// links or modes of files, so code that relies on them fails there.
//
//	dir := fattest.Mount(t, "exFAT")
//
// Mounting needs root, and the driver of the kernel or the one for FUSE. A test whose file system
// cannot be mounted is skipped with the reason, unless ARTSTORE_FAT=required, as in .ci/run: then
// it fails.
package fattest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	// required is a variable. Its value "required" makes a failure of a mount that fails.
	required = "ARTSTORE_FAT"
	// imageSize is in bytes. mkfs.vfat makes FAT16 of an image of this size.
	imageSize = 32 << 20
)

// Kinds returns the file systems that [Mount] knows.
func Kinds() []string { return []string{"FAT", "exFAT"} }

// kinds says how each file system is made and mounted. Of the mounts the first one that works is
// used. In the commands, IMAGE, DEVICE and DIR stand for paths.
var kinds = map[string]struct {
	format []string
	mounts [][]string
}{
	"FAT": {[]string{"mkfs.vfat", "IMAGE"}, [][]string{
		{"mount", "-t", "vfat", "DEVICE", "DIR"},
		{"fusefat", "-o", "rw+", "IMAGE", "DIR"},
	}},
	"exFAT": {[]string{"mkfs.exfat", "IMAGE"}, [][]string{
		{"mount", "-t", "exfat", "-i", "DEVICE", "DIR"},
		{"mount.exfat-fuse", "DEVICE", "DIR"},
	}},
}

// Mount returns the root of a new, empty file system of one of [Kinds]. It is unmounted at the end
// of the test; a file that the test has left open there is then an error of the test.
func Mount(t testing.TB, kind string) string {
	t.Helper()
	dir, unmount, err := Open(kind)
	switch {
	case err == nil:
	case Required():
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := unmount(); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Required reports whether a file system that cannot be mounted is a failure.
func Required() bool { return os.Getenv(required) == "required" }

// Open is [Mount] for tests that are scripts. The caller calls unmount, unless there is an error,
// which says what is missing on this machine.
func Open(kind string) (dir string, unmount func() error, err error) {
	if os.Getuid() != 0 {
		return "", nil, fmt.Errorf("mounting %s: only root can", kind)
	}
	work, err := os.MkdirTemp("", "fattest-")
	if err != nil {
		return "", nil, err
	}
	m := &mounted{fill: map[string]string{"IMAGE": filepath.Join(work, "image"), "DIR": filepath.Join(work, "disk")}}
	m.undo = append(m.undo, func() error { return os.RemoveAll(work) })
	if err := m.mount(kind); err != nil {
		return "", nil, errors.Join(fmt.Errorf("mounting %s (packages dosfstools, exfatprogs, fusefat, exfat-fuse): %w", kind, err), m.close())
	}
	return m.fill["DIR"], m.close, nil
}

// mounted is a file system with the steps that remove it.
type mounted struct {
	fill map[string]string // the paths of IMAGE, DEVICE and DIR
	undo []func() error    // in the order of the steps
}

// close undoes the steps, the last one first, and stops at one that fails: an image must not be
// removed while it is mounted.
func (m *mounted) close() error {
	for i := len(m.undo) - 1; i >= 0; i-- {
		if err := m.undo[i](); err != nil {
			return err
		}
	}
	return nil
}

// mount makes the image, formats it, and mounts it over a loop device. After an error, close
// undoes the steps before it.
func (m *mounted) mount(kind string) error {
	how := kinds[kind]
	image, err := os.OpenFile(m.fill["IMAGE"], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(image.Truncate(imageSize), image.Close(), os.Mkdir(m.fill["DIR"], 0o700)); err != nil {
		return err
	}
	if _, err := m.run(how.format); err != nil {
		return err
	}
	device, err := m.run([]string{"losetup", "--find", "--show", "IMAGE"})
	if err != nil {
		return err
	}
	m.fill["DEVICE"] = device
	m.undo = append(m.undo, func() error { _, err := m.run([]string{"losetup", "--detach", "DEVICE"}); return err })
	for _, args := range how.mounts {
		if _, err = m.run(args); err == nil {
			m.undo = append(m.undo, func() error { _, err := m.run([]string{"umount", "DIR"}); return err })
			return nil
		}
	}
	return err
}

// run runs a command with the paths filled in, and returns its output without the last line
// break. The error has the output in it.
func (m *mounted) run(args []string) (string, error) {
	filled := slices.Clone(args)
	for i, a := range args {
		if value, ok := m.fill[a]; ok {
			filled[i] = value
		}
	}
	out, err := exec.Command(filled[0], filled[1:]...).CombinedOutput() //nolint:noctx,gosec // names of this file; they end at once
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", filled[0], err, strings.TrimSpace(string(out)))
	}
	return strings.TrimSpace(string(out)), nil
}
