package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ingestclient/spool"
	spoolstatus "github.com/artstore/artstore-pki/ingestclient/spool/status"
)

// fill puts files into dir, and returns their checksums by name.
func (w *killFixture) fill(t *testing.T, dir string, files int) map[string]string {
	t.Helper()
	want := map[string]string{}
	must(t, os.MkdirAll(filepath.Join(w.dir, dir), 0o700))
	for i := range files {
		name, content := fmt.Sprintf("%s-%d", dir, i), fmt.Appendf(nil, "%s, file %d", dir, i)
		must(t, os.WriteFile(filepath.Join(w.dir, dir, name), content, 0o600))
		digest := sha256.Sum256(content)
		want[name] = hex.EncodeToString(digest[:])
	}
	return want
}

// With too few file descriptors ingest says so. No file is lost, and the next start sends all of them.
func TestIngestWithFewDescriptors(t *testing.T) {
	long(t, "it uploads with few descriptors")
	t.Parallel()
	w := newKillFixture(t)
	for _, dialect := range []string{"python", "go"} {
		storage, dir := w.storage(t, dialect), "in-"+dialect
		want := w.fill(t, dir, 60)
		var out bytes.Buffer
		cmd := w.command(t.Context(), &out, nil)
		cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", `ulimit -n 16; exec "$@"`, "sh", w.program}, w.ingest(dir, dialect)...)
		if err := cmd.Run(); err == nil || !strings.Contains(out.String(), "too many open files") {
			t.Errorf("%s: with 16 descriptors: %v\n%s", dialect, err, &out)
		}
		must(t, w.command(t.Context(), &out, w.ingest(dir, dialect)).Run())
		storage.kill()
		w.compare(t, dialect, want)
		if strings.Contains(out.String(), "ambiguous 1") {
			t.Errorf("%s: a file is ambiguous that was never sent\n%s", dialect, &out)
		}
	}
}

// While the disk of an element is full, no file is lost, and uploads go on by themselves afterwards.
func TestIngestWaitsForSpace(t *testing.T) {
	long(t, "it waits for space on a full disk")
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=4m"); errors.Is(err, syscall.EPERM) {
		t.Skip("only root can make a small disk")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	t.Parallel()
	for _, dialect := range []string{"python", "go"} {
		w := newKillFixture(t)
		must(t, os.Mkdir(filepath.Join(disk, dialect), 0o700))
		must(t, os.Symlink(filepath.Join(disk, dialect), filepath.Join(w.dir, "storage-"+dialect)))
		storage, dir := w.storage(t, dialect), "in-"+dialect
		must(t, exec.CommandContext(t.Context(), "sh", "-c", `! cat /dev/zero 2>&1 >"$1/filler"`, "sh", disk).Run())
		want := w.fill(t, dir, 200)
		args := slices.DeleteFunc(w.ingest(dir, dialect), func(arg string) bool { return arg == "--once" })
		ingest := w.start(t, args...)
		w.until(t, dir, ingest, "it is paused", func(st *spoolstatus.Report) bool { return st.Last != nil && st.Last.State == "paused" })
		time.Sleep(5 * time.Second) // of a full disk, with some looks at it
		must(t, os.Remove(filepath.Join(disk, "filler")))
		w.until(t, dir, ingest, "nothing waits", func(st *spoolstatus.Report) bool { return len(st.Waiting)+len(st.Claimed) == 0 })
		ingest.kill()
		st, err := spool.ReadStatus(t.Context(), spool.Config{Dir: filepath.Join(w.dir, dir)})
		must(t, err)
		if len(st.Ambiguous) > 1 {
			t.Errorf("%s: %d files are ambiguous\n%s", dialect, len(st.Ambiguous), ingest.out)
		}
		storage.kill()
		w.compare(t, dialect, want)
	}
}

// until waits for what the status of the spool says.
func (w *killFixture) until(t *testing.T, dir string, p *process, what string, reached func(*spoolstatus.Report) bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Minute)
	for {
		st, err := spool.ReadStatus(t.Context(), spool.Config{Dir: filepath.Join(w.dir, dir)})
		if err == nil && reached(st) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within five minutes: %s (%v)\n%s", what, err, p.out)
		}
		time.Sleep(50 * time.Millisecond) // another process
	}
}
