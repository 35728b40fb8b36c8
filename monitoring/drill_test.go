package monitoring

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the driver
)

// fault is something that goes wrong in a house, and the alert that must say so.
type fault struct {
	name        string
	alert       string // a selector of ALERTS, without the state
	page, words string // of the dashboard, and what it says meanwhile; "" for nothing
	cause, mend func()
}

// For each fault its alert fires by the second evaluation that sees it, and clears by itself when the cause is gone.
func TestFaultDrill(t *testing.T) {
	binary := house(t)
	s := newStack(t)
	s.limitDisk("ca")
	s.startHouse()
	s.startPrometheus(binary)
	s.await("all targets", func() bool { up := s.query(`up`); return len(up) > 0 && len(s.query(`up == 1`)) == len(up) })
	for _, f := range s.faults() {
		start := time.Now()
		f.cause()
		s.await(f.name+" to be alerted", func() bool { return s.firing(f.alert) })
		for labels, evaluations := range s.query(`count_over_time(ALERTS{alertstate="pending",` + f.alert + `}[10m])`) {
			// What the exporter finds has to stand for a minute, which is two evaluations by default.
			if n, err := strconv.Atoi(evaluations); err != nil || n > 2 && !strings.Contains(labels, "ArtstoreAudit") {
				t.Errorf("%s: %s waited for %s evaluations, %v", f.name, labels, evaluations, err)
			}
		}
		fired := time.Now()
		if f.page != "" {
			s.await("the dashboard to say "+f.words, func() bool { return strings.Contains(s.read("http://"+s.dashboard+f.page), f.words) })
		}
		f.mend()
		s.await(f.name+" to clear", func() bool { return !s.firing(f.alert) })
		t.Logf("%s: alerted after %s, cleared after %s", f.name, fired.Sub(start).Round(time.Second), time.Since(fired).Round(time.Second))
	}
}

// firing reports whether an alert fires.
func (s *stack) firing(alert string) bool {
	s.t.Helper()
	return len(s.query(`ALERTS{alertstate="firing",`+alert+`}`)) > 0
}

// faults returns the faults of the drill, in an order in which each can be mended before the next.
func (s *stack) faults() []fault {
	gateway, agent := s.processes["gateway"].Args, s.processes["agent"].Args
	return []fault{
		{
			name: "a log that cannot be extended", alert: `alertname="ArtstoreLogNotExtended"`,
			cause: func() {
				s.inRecord(`CREATE TRIGGER drill BEFORE UPDATE ON log_state BEGIN SELECT RAISE(ABORT, 'drill'); END`)
			},
			mend: func() { s.inRecord(`DROP TRIGGER drill`) },
		},
		{
			name: "a full disk", alert: `alertname="ArtstoreAuthorityNotReady"`,
			cause: s.fillDisk,
			mend: func() {
				if err := os.Remove(s.path("ca/filler")); err != nil {
					s.t.Fatal(err)
				}
			},
		},
		{
			name: "a service that stops during a rotation", alert: `alertname="ArtstoreTargetDown",job="artstore-proxy"`,
			page: "/trust", words: "gateway",
			cause: func() {
				s.stop("gateway")
				s.must(s.pki, "root", "add", "--dir", s.path("ca"))
				s.await("the root to wait for it", func() bool { return len(s.query(`artstore_ca_root_services_without{stage="staged"} == 1`)) == 1 })
			},
			mend: func() {
				s.start("gateway", gateway...)
				s.await("the root to wait for nobody", func() bool { return len(s.query(`artstore_ca_root_services_without{stage="staged"} == 0`)) == 1 })
			},
		},
		{
			name: "a server that is not reloaded", alert: `alertname="ArtstoreAuditWarning",check="replaced"`,
			cause: s.serveOld, mend: s.serveNew,
		},
		{
			name: "a revoked certificate", alert: `alertname="ArtstoreAuditCritical",check="revoked"`,
			page: "/revocations", words: "web",
			cause: func() { s.must(s.pki, "revoke", "--dir", s.path("ca"), "--file", s.path("web/tls.crt")) },
			mend: func() {
				before := s.content("web/tls.crt")
				s.newTokens("web")
				s.await("the agent to enrol anew", func() bool { return s.content("web/tls.crt") != before })
				s.serveNew()
			},
		},
		{
			name: "a renewer that stops", alert: `alertname="ArtstoreAuditCritical",name="prometheus"`,
			page: "/", words: "overdue",
			cause: func() { s.stop("agent") },
			mend: func() {
				s.newTokens("prometheus")
				s.start("agent", agent...)
			},
		},
	}
}

// serveOld starts a web server that reads its certificate once, has the exporter look at it, and renews that
// certificate on the disk.
func (s *stack) serveOld() {
	s.t.Helper()
	address := s.metrics("web server", "")
	s.startWebServer(address)
	s.reloadExporter("https://" + strings.Replace(address, "127.0.0.1", "localhost", 1))
	s.must(s.pki, "agent", "renew", "--socket", s.path("agent.sock"), "web")
}

// serveNew starts the web server again.
func (s *stack) serveNew() {
	s.t.Helper()
	s.stop("web")
	s.startWebServer(s.metrics("web server", ""))
}

func (s *stack) startWebServer(address string) {
	s.t.Helper()
	s.start("web", "openssl", "s_server", "-quiet", "-accept", address, "-cert", s.path("web/tls.crt"), "-cert_chain", s.path("web/tls.crt"), "-key", s.path("web/tls.key"))
	s.await("the web server", func() bool { return s.connects(address) })
}

// reloadExporter has the exporter look at other servers.
func (s *stack) reloadExporter(servers ...string) {
	s.t.Helper()
	s.configureExporter(servers...)
	if err := s.processes["exporter"].Process.Signal(syscall.SIGHUP); err != nil {
		s.t.Fatal(err)
	}
}

// content returns what a file of the stack has in it.
func (s *stack) content(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(s.path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// inRecord changes the database behind the back of the authority.
func (s *stack) inRecord(statement string) {
	s.t.Helper()
	db, err := sql.Open("sqlite", "file:"+s.path("ca/pki.db")+"?_pragma=busy_timeout(30000)")
	if err == nil {
		_, err = db.ExecContext(s.t.Context(), statement)
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// limitDisk makes a directory a file system of its own, which can be filled. Only root may.
func (s *stack) limitDisk(name string) {
	s.t.Helper()
	if os.Getuid() != 0 {
		s.t.Skip("only root may mount a small disk")
	}
	if err := os.Mkdir(s.path(name), 0o700); err != nil {
		s.t.Fatal(err)
	}
	s.must("mount", "-t", "tmpfs", "-o", "size=64m,mode=0700", "tmpfs", s.path(name))
	s.t.Cleanup(func() {
		if err := exec.CommandContext(context.WithoutCancel(s.t.Context()), "umount", s.path(name)).Run(); err != nil {
			s.t.Error(err)
		}
	})
}

// fillDisk takes all the room that is left on the disk of the authority.
func (s *stack) fillDisk() {
	s.t.Helper()
	f, err := os.OpenFile(s.path("ca/filler"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	for block := make([]byte, 1<<16); err == nil; {
		_, err = f.Write(block)
	}
	if closed := f.Close(); closed != nil || !errors.Is(err, syscall.ENOSPC) {
		s.t.Fatal(err, closed)
	}
}
