//go:build unix

// Package fattest mounts real FAT and exFAT file systems for tests: an image of
// its own on a loop device, which is gone with the test. Only tests import it.
//
// It takes root, and for each of the two either the kernel's driver or the one
// for FUSE. What cannot be mounted is skipped and says so, unless
// ARTSTORE_FAT=required, as in .ci/run: then the test fails.
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
	required  = "ARTSTORE_FAT"
	imageSize = 32 << 20 // bytes; mkfs.vfat makes FAT16 of it
)

// Kinds are the file systems that [Mount] knows.
func Kinds() []string { return []string{"FAT", "exFAT"} }

// kinds says how each is made and mounted; the first way that works is taken.
var kinds = map[string]struct {
	format []string
	mounts [][]string // IMAGE, DEVICE and DIR are filled in
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

// Mount returns the root of a new, empty file system of that kind.
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

// Open is [Mount] for tests that are scripts. The error says what is missing here.
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

type mounted struct {
	fill map[string]string
	undo []func() error
}

// close undoes the steps, the last one first, and stops at one that fails: what
// is still mounted is not removed.
func (m *mounted) close() error {
	for i := len(m.undo) - 1; i >= 0; i-- {
		if err := m.undo[i](); err != nil {
			return err
		}
	}
	return nil
}

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

// run returns what the program printed, without the last line break.
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
