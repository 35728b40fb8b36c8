//go:build unix

package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/rotation/agent"
)

// access returns owner, group, mode and the size of the ACL of the files in effect.
func access(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	for _, name := range []string{"current", "tls.key", "tls.pem", "tls.crt", "ca.crt"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		fmt.Fprintf(&b, "%s %d:%d %04o\n", name, st.Uid, st.Gid, info.Mode().Perm())
	}
	return b.String()
}

// TestAccessIsKept: ten rotations keep what the configuration says, and without it what the operator
// has set. As root with owners, as another user with modes only.
func TestAccessIsKept(t *testing.T) {
	t.Parallel()
	uid, gid := os.Geteuid(), os.Getegid()
	mine := fmt.Sprintf("%d:%d", uid, gid)
	configured := map[string]agent.Access{"ingester": {Mode: 0o640}, "admin-module": {Mode: 0o600}, "query-module": {}}
	owners := map[string]string{"ingester": mine, "admin-module": mine, "query-module": mine}
	if uid == 0 {
		configured["ingester"], owners["ingester"] = agent.Access{Owner: "root", Group: "1601", Mode: 0o640}, "0:1601"
		configured["admin-module"], owners["admin-module"] = agent.Access{Owner: "1602", Group: "1602", Mode: 0o600}, "1602:1602"
		owners["query-module"] = "1603:1604"
	}
	want := map[string]string{
		"ingester":     "current MINE 0755\ntls.key OWN 0640\ntls.pem OWN 0640\ntls.crt OWN 0644\nca.crt OWN 0644\n",
		"admin-module": "current MINE 0755\ntls.key OWN 0600\ntls.pem OWN 0600\ntls.crt OWN 0644\nca.crt OWN 0644\n",
		"query-module": "current OWN 0750\ntls.key OWN 0640\ntls.pem OWN 0600\ntls.crt OWN 0604\nca.crt OWN 0644\n",
	}
	w := newWorld(t, catest.Options{})
	for service := range configured {
		w.identity(service, func(i *agent.Identity) {
			i.Access, i.Formats = configured[service], []agent.Format{{Kind: "combined-pem", File: "tls.pem"}}
		})
	}
	a, stop := w.run()
	for service := range configured {
		w.await(a, service, "delivered", delivered)
	}
	byHand := filepath.Join(w.dir, "query-module")
	for name, mode := range map[string]os.FileMode{"current": 0o750, "tls.key": 0o640, "tls.pem": 0o600, "tls.crt": 0o604, "ca.crt": 0o644} {
		if uid == 0 {
			if err := os.Chown(filepath.Join(byHand, name), 1603, 1604); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(filepath.Join(byHand, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string) {
		t.Helper()
		for service := range configured {
			if got, want := access(t, filepath.Join(w.dir, service)), strings.NewReplacer("OWN", owners[service], "MINE", mine).Replace(want[service]); got != want {
				t.Errorf("%s, %s:\n%swant\n%s", service, when, got, want)
			}
		}
	}
	check("at the beginning")
	for n := range 10 {
		for service := range configured {
			if err := a.Renew(t.Context(), service); err != nil {
				t.Fatal(err)
			}
		}
		check(fmt.Sprint("after rotation ", n+1))
	}
	stop()
	// Another configuration takes effect at the next start, without a new certificate.
	for n := range w.cfg.Identities {
		i := &w.cfg.Identities[n]
		i.Access.Mode, i.Formats = 0o400, []agent.Format{{Kind: "sec1", File: "old.key"}}
	}
	a, _ = w.run()
	for service := range configured {
		dir := filepath.Join(w.dir, service)
		w.await(a, service, "delivered", delivered)
		for _, name := range []string{"tls.key", "old.key"} {
			if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o400 {
				t.Errorf("%s/%s: %v, %v", service, name, info, err)
			}
		}
		if _, err := os.Lstat(filepath.Join(dir, "tls.pem")); err == nil {
			t.Errorf("%s: the file of a format that is not configured any more is there", service)
		}
	}
}
