package enroll_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/artstore/artstore-pki/rotation/enroll"
)

// readableBy returns an ACL (acl(5)) that lets its owner read and write, and a user read.
func readableBy(uid uint32) []byte {
	const version, none = 2, ^uint32(0)
	acl := binary.LittleEndian.AppendUint32(nil, version)
	for _, entry := range []struct {
		tag, perm uint16
		id        uint32
	}{{0x01, 6, none}, {0x02, 4, uid}, {0x04, 0, none}, {0x10, 4, none}, {0x20, 0, none}} {
		acl = binary.LittleEndian.AppendUint16(acl, entry.tag)
		acl = binary.LittleEndian.AppendUint16(acl, entry.perm)
		acl = binary.LittleEndian.AppendUint32(acl, entry.id)
	}
	return acl
}

// TestRenewalKeepsACLs expects that a user who was named in the ACL of a key can read the next
// keys, and nobody else can.
func TestRenewalKeepsACLs(t *testing.T) {
	const attribute = "system.posix_acl_access"
	dir := t.TempDir()
	if err := enroll.WriteFiles(dir, material(t, "x")); err != nil {
		t.Fatal(err)
	}
	want, key := readableBy(1600), filepath.Join(dir, "tls.key")
	if err := syscall.Setxattr(key, attribute, want, 0); errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("%s is on a file system without ACLs", dir)
	} else if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := enroll.WriteFiles(dir, material(t, "x")); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, 1024)
	n, err := syscall.Getxattr(key, attribute, got)
	if err != nil || !bytes.Equal(got[:n], want) {
		t.Errorf("ACL %x, %v; want %x", got[:max(n, 0)], err, want)
	}
	if _, err := syscall.Getxattr(filepath.Join(dir, "ca.crt"), attribute, got); !errors.Is(err, syscall.ENODATA) {
		t.Errorf("ca.crt got an ACL: %v", err)
	}
	if err := os.Chmod(key, 0o660); err != nil { // the mask of the ACL permits writing now
		t.Fatal(err)
	}
	if err := enroll.WriteFiles(dir, material(t, "x")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a mode that is too open: %v, %v", info.Mode(), err)
	}
}
