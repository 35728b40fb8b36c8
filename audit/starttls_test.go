package audit_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
)

// mailServer speaks SMTP as far as STARTTLS, then TLS.
func mailServer(t *testing.T, config *tls.Config, replies map[string]string) (address string) {
	t.Helper()
	return accept(t, func(c net.Conn) {
		say := func(text string) { _, _ = io.WriteString(c, text) }
		say("220-mail.example ESMTP\r\n220 ready\r\n")
		in := bufio.NewReader(c)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			verb, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			if reply, special := replies[verb]; special {
				say(reply)
				continue
			}
			switch verb {
			case "EHLO":
				say("250-mail.example\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 HELP\r\n")
			case "STARTTLS":
				say("220 go ahead\r\n")
				_ = tls.Server(c, config).Handshake() // refusals are the point
				return
			default:
				say("500 what?\r\n")
			}
		}
	})
}

func TestSMTP(t *testing.T) {
	root, intermediate, leaf := hierarchy(t)
	config := &tls.Config{Certificates: []tls.Certificate{leaf.tls(intermediate)}}
	addresses := map[string]string{
		"fine":       mailServer(t, config, nil),
		"no TLS":     mailServer(t, config, map[string]string{"EHLO": "250 mail.example\r\n"}),
		"refuses":    mailServer(t, config, map[string]string{"STARTTLS": "454 not \x1b[2Jnow\r\n"}),
		"injects":    mailServer(t, config, map[string]string{"STARTTLS": "220 go\r\n250 done already\r\n"}),
		"not SMTP":   accept(t, func(c net.Conn) { _, _ = io.WriteString(c, "hello\r\n") }),
		"hangs up":   accept(t, func(net.Conn) {}),
		"says a lot": accept(t, func(c net.Conn) { _, _ = io.Copy(c, strings.NewReader("220"+strings.Repeat("-x\r\n220", 1<<15))) }),
		"endless":    accept(t, func(c net.Conn) { _, _ = io.Copy(c, strings.NewReader(strings.Repeat("2", 1<<20))) }),
	}
	got := asked(t, "smtp", addresses, audit.Targets{Bundle: certs([]*pair{root}), Timeout: patience})
	for _, name := range []string{"hangs up", "endless"} {
		if !strings.HasPrefix(got[name], "ERROR ") {
			t.Errorf("%s: %s", name, got[name])
		}
		delete(got, name)
	}
	want(t, got, map[string]string{
		"fine": "OK", "no TLS": "ERROR it speaks SMTP, and does not offer STARTTLS",
		"refuses":  "ERROR reading the answer to STARTTLS: 454 not \x1b[2Jnow",
		"injects":  "ERROR it sends something between its consent and TLS, which somebody on the way may have put there",
		"not SMTP": "ERROR it does not speak SMTP", "says a lot": "ERROR reading the greeting: EOF",
	})
	silent := map[string]string{"silent": accept(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })}
	want(t, asked(t, "smtp", silent, audit.Targets{Timeout: 50 * time.Millisecond}), map[string]string{"silent": "ERROR no answer within 50ms"})
}

// asked are the states of servers by name.
func asked(t *testing.T, scheme string, addresses map[string]string, targets audit.Targets) map[string]string {
	t.Helper()
	label := map[string]string{}
	for name, address := range addresses {
		url := scheme + "://" + address
		targets.Names, label[url] = append(targets.Names, url), name
	}
	got := map[string]string{}
	r := run(t, targets)
	for _, row := range r.Rows {
		if row.Cert != nil && row.Cert.X509().IsCA {
			continue
		}
		one := *r
		one.Rows = []audit.Row{row}
		got[label[row.Place]] = states(t, &one, "")[row.Place]
	}
	return got
}

func TestPostgresAnswers(t *testing.T) {
	root, intermediate, leaf := hierarchy(t)
	config := &tls.Config{Certificates: []tls.Certificate{leaf.tls(intermediate)}}
	server := func(answer string) string {
		return accept(t, func(c net.Conn) {
			request := make([]byte, 8)
			if _, err := io.ReadFull(c, request); err != nil || string(request) != "\x00\x00\x00\x08\x04\xd2\x16\x2f" {
				return
			}
			_, _ = io.WriteString(c, answer)
			if answer == "S" {
				_ = tls.Server(c, config).Handshake()
			}
		})
	}
	got := asked(t, "postgres", map[string]string{"fine": server("S"), "no TLS": server("N"), "other": server("E"), "hangs up": server("")},
		audit.Targets{Bundle: certs([]*pair{root}), Timeout: patience})
	if !strings.HasPrefix(got["hangs up"], "ERROR asking for TLS: ") {
		t.Error(got["hangs up"])
	}
	delete(got, "hangs up")
	want(t, got, map[string]string{
		"fine": "OK", "no TLS": "ERROR it speaks PostgreSQL, and does not offer TLS", "other": "ERROR it does not speak PostgreSQL",
	})
}

// A client certificate goes to servers that passed the bundle, and no further; a
// name of its own chooses the certificate.
func TestClientCertificateAndName(t *testing.T) {
	root, intermediate, leaf := hierarchy(t)
	client := newPair(t, intermediate, "auditor")
	elsewhere := newPair(t, intermediate, "elsewhere", named("elsewhere.example"))
	names := make(chan string, 8)
	config := &tls.Config{
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			c := leaf.tls(intermediate)
			if hello.ServerName == "elsewhere.example" {
				c = elsewhere.tls(intermediate)
			}
			return &c, nil
		},
		ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12,
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			c, err := x509.ParseCertificate(raw[0])
			if err == nil {
				names <- c.Subject.CommonName
			}
			return err
		},
	}
	address := serve(t, config)
	targets := audit.Targets{Names: []string{address}, Timeout: patience, Bundle: certs([]*pair{root}), Certificates: []tls.Certificate{client.tls(intermediate)}}
	for _, name := range []string{"", "elsewhere.example"} {
		targets.ServerName = name
		r := run(t, targets)
		if first := r.Rows[0]; first.State != "WARN" || len(first.Findings) != 1 || first.Findings[0].Check != "tls-version" || <-names != "auditor" {
			t.Errorf("%q: %+v", name, first)
		}
	}
	targets.Bundle = nil
	run(t, targets)
	if len(names) != 0 {
		t.Error("a stranger got the client certificate")
	}
	if _, _, err := audit.ParseAddress("smtp://mail"); err != nil {
		t.Error(err)
	}
	r := run(t, audit.Targets{Names: []string{"postgres://user:hunter2@" + address + "/db?password=hunter2"}, Timeout: patience})
	if got := r.Rows[0].Place; got != "postgres://"+address {
		t.Error(got)
	}
	for text, want := range map[string]string{"smtp://mail": "mail 25", "postgres://db/name": "db 5432", "postgresql://u:p@db:5433": "db 5433", "SMTP://[::1]:2525": "::1 2525"} {
		if host, port, err := audit.ParseAddress(text); err != nil || host+" "+port != want {
			t.Errorf("%s: %s %s %v", text, host, port, err)
		}
	}
	for _, text := range []string{"smtp://", "ftp://x", "smtp://x y", "smtp://%zz", "://"} {
		if _, _, err := audit.ParseAddress(text); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}
