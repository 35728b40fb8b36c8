package endpoint_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/internal/endpoint"
	"github.com/artstore/artstore-pki/audit/source"
)

// mailServer speaks SMTP up to STARTTLS, and then TLS.
func mailServer(t *testing.T, config *tls.Config, replies map[string]string) (address string) {
	t.Helper()
	return audittest.Accept(t, func(c net.Conn) {
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
	root, intermediate, leaf := certtest.Hierarchy(t)
	config := &tls.Config{Certificates: []tls.Certificate{leaf.TLS(intermediate)}}
	addresses := map[string]string{
		"fine":       mailServer(t, config, nil),
		"no TLS":     mailServer(t, config, map[string]string{"EHLO": "250 mail.example\r\n"}),
		"refuses":    mailServer(t, config, map[string]string{"STARTTLS": "454 not \x1b[2Jnow\r\n"}),
		"injects":    mailServer(t, config, map[string]string{"STARTTLS": "220 go\r\n250 done already\r\n"}),
		"not SMTP":   audittest.Accept(t, func(c net.Conn) { _, _ = io.WriteString(c, "hello\r\n") }),
		"hangs up":   audittest.Accept(t, func(net.Conn) {}),
		"says a lot": audittest.Accept(t, func(c net.Conn) { _, _ = io.Copy(c, strings.NewReader("220"+strings.Repeat("-x\r\n220", 1<<15))) }),
		"endless":    audittest.Accept(t, func(c net.Conn) { _, _ = io.Copy(c, strings.NewReader(strings.Repeat("2", 1<<20))) }),
	}
	got := asked(t, "smtp", addresses, source.Targets{Bundle: certtest.Bundle([]*certtest.Pair{root}), Timeout: audittest.Patience})
	for _, name := range []string{"hangs up", "endless"} {
		if !strings.HasPrefix(got[name], "ERROR ") {
			t.Errorf("%s: %s", name, got[name])
		}
		delete(got, name)
	}
	audittest.Want(t, got, map[string]string{
		"fine": "OK", "no TLS": "ERROR it speaks SMTP, and does not offer STARTTLS",
		"refuses":  "ERROR reading the answer to STARTTLS: 454 not \x1b[2Jnow",
		"injects":  "ERROR it sends something between its consent and TLS, which somebody on the way may have put there",
		"not SMTP": "ERROR it does not speak SMTP", "says a lot": "ERROR reading the greeting: EOF",
	})
	silent := map[string]string{"silent": audittest.Accept(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })}
	audittest.Want(t, asked(t, "smtp", silent, source.Targets{Timeout: 50 * time.Millisecond}), map[string]string{"silent": "ERROR no answer within 50ms"})
}

// chatting starts a server that sends a greeting, and an answer to each line of the client. After
// the last one it speaks TLS. A step has the line and, behind " > ", the answer.
func chatting(t *testing.T, config *tls.Config, greeting string, steps ...string) (address string) {
	t.Helper()
	return audittest.Accept(t, func(c net.Conn) {
		_, _ = io.WriteString(c, greeting)
		for _, step := range steps {
			want, reply, _ := strings.Cut(step, " > ")
			got := make([]byte, len(want))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
				return
			}
			_, _ = io.WriteString(c, reply)
		}
		_ = tls.Server(c, config).Handshake() // refusals are the point
	})
}

// Each protocol begins TLS as its own clients do, or the error says why there is none.
func TestUpgrades(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	config := &tls.Config{Certificates: []tls.Certificate{leaf.TLS(intermediate)}}
	const (
		early     = "ERROR it sends something between its consent and TLS, which somebody on the way may have put there"
		startTLS  = "\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037"
		mySQL     = "\x0a8.0.36\x00\x01\x00\x00\x00abcdefgh\x00"
		mySQLAsks = "\x20\x00\x00\x01\x00\x8a\x00\x00"
	)
	packet := func(body string) string { return string([]byte{byte(len(body)), 0, 0, 0}) + body }
	ssl := packet(mySQL + "\xff\xff\x2d\x02\x00\xff\xdf\x15")
	rest := strings.Repeat("\x00", 3) + "\x01\x2d" + strings.Repeat("\x00", 23)
	for scheme, servers := range map[string]map[string][2]string{
		"imap": {
			chatting(t, config, "* OK [CAPABILITY IMAP4rev1] ready\r\n", "a STARTTLS\r\n > * OK soon\r\na OK begin\r\n"): {"fine", "OK"},
			chatting(t, config, "* OK ready\r\n", "a STARTTLS\r\n > a NO not here\r\n"):                                  {"no TLS", "ERROR reading the answer to a STARTTLS: a NO not here"},
			chatting(t, config, "* OK ready\r\n", "a STARTTLS\r\n > a OK begin\r\n* OK done already\r\n"):                {"injects", early},
			chatting(t, config, "220 ready\r\n"): {"other", "ERROR it does not speak IMAP"},
			chatting(t, config, "* OK ready\r\n", "a STARTTLS\r\n > "+strings.Repeat("* OK x\r\n", 20_000)): {"endless", "ERROR reading the answer to a STARTTLS: "},
		},
		"pop3": {
			chatting(t, config, "+OK ready\r\n", "STLS\r\n > +OK begin\r\n"):             {"fine", "OK"},
			chatting(t, config, "+OK ready\r\n", "STLS\r\n > -ERR no\r\n"):               {"no TLS", "ERROR reading the answer to STLS: -ERR no"},
			chatting(t, config, "+OK ready\r\n", "STLS\r\n > +OK begin\r\n+OK done\r\n"): {"injects", early},
		},
		"ftp": {
			chatting(t, config, "220-FTP\r\n220 ready\r\n", "AUTH TLS\r\n > 234 begin\r\n"): {"fine", "OK"},
			chatting(t, config, "220 ready\r\n", "AUTH TLS\r\n > 502 no\r\n"):               {"no TLS", "ERROR reading the answer to AUTH TLS: 502 no"},
			chatting(t, config, "220 ready\r\n", "AUTH TLS\r\n > 234 begin\r\n230 in\r\n"):  {"injects", early},
			chatting(t, config, "SSH-2.0-x\r\n"):                                            {"other", "ERROR it does not speak FTP"},
		},
		"ldap": {
			chatting(t, config, "", startTLS+" > \x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00"):                                 {"fine", "OK"},
			chatting(t, config, "", startTLS+" > \x30\x84\x00\x00\x00\x10\x02\x01\x01\x78\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00"): {"long lengths", "OK"},
			chatting(t, config, "", startTLS+" > \x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x02\x04\x00\x04\x00"):                                 {"no TLS", "ERROR it speaks LDAP, and does not offer StartTLS: result code 2"},
			chatting(t, config, "", startTLS+" > \x30\x84\x7f\xff\xff\xff"):                                                                 {"long", "ERROR asking for TLS: it sends more than 64 KiB before TLS"},
			chatting(t, config, "", startTLS+" > HTTP/1.1 400 Bad Request\r\n"):                                                             {"other", "ERROR asking for TLS: it does not speak LDAP"},
			chatting(t, config, "", startTLS+" > \x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00\x30\x00\x00\x00\x00"):             {"injects", "ERROR it does not speak TLS"},
			chatting(t, config, "", startTLS+" > \x30\x03\x02\x01\x01"):                                                                     {"short", "ERROR it does not speak LDAP"},
		},
		"mysql": {
			chatting(t, config, ssl, mySQLAsks+rest+" > "):                        {"fine", "OK"},
			chatting(t, config, packet(mySQL+"\xff\xf7\x2d\x02\x00\xff\xdf\x15")): {"no TLS", "ERROR it speaks MySQL, and does not offer TLS"},
			chatting(t, config, packet("\xff\x6a\x04Host is not allowed")):        {"refuses", "ERROR reading the greeting: error 1130: Host is not allowed"},
			chatting(t, config, packet("\x0a8")):                                  {"short", "ERROR it does not speak MySQL"},
			chatting(t, config, "\xff\xff\xff\x00"):                               {"long", "ERROR it does not speak MySQL"},
			chatting(t, config, ssl+packet("early"), mySQLAsks+rest+" > "):        {"injects", "ERROR it does not speak TLS"},
		},
	} {
		addresses, wants := map[string]string{}, map[string]string{}
		for address, c := range servers {
			addresses[c[0]], wants[c[0]] = address, c[1]
		}
		got := asked(t, scheme, addresses, source.Targets{Bundle: certtest.Bundle([]*certtest.Pair{root}), Fast: true, Timeout: audittest.Patience})
		for name, state := range got {
			if !strings.HasPrefix(state, wants[name]) {
				t.Errorf("%s, %s: %q, want %q", scheme, name, state, wants[name])
			}
		}
		if len(got) != len(wants) {
			t.Errorf("%s: %d rows, want %d", scheme, len(got), len(wants))
		}
	}
}

// asked returns the states of servers by name.
func asked(t *testing.T, scheme string, addresses map[string]string, targets source.Targets) map[string]string {
	t.Helper()
	label := map[string]string{}
	for name, address := range addresses {
		url := scheme + "://" + address
		targets.Names, label[url] = append(targets.Names, url), name
	}
	got := map[string]string{}
	r := audittest.Run(t, targets)
	for _, row := range r.Rows {
		if row.Cert != nil && row.Cert.X509().IsCA {
			continue
		}
		one := *r
		one.Rows = []audit.Row{row}
		got[label[row.Place]] = audittest.States(t, &one, "")[row.Place]
	}
	return got
}

func TestPostgresAnswers(t *testing.T) {
	root, intermediate, leaf := certtest.Hierarchy(t)
	config := &tls.Config{Certificates: []tls.Certificate{leaf.TLS(intermediate)}}
	server := func(answer string) string {
		return audittest.Accept(t, func(c net.Conn) {
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
		source.Targets{Bundle: certtest.Bundle([]*certtest.Pair{root}), Timeout: audittest.Patience})
	if !strings.HasPrefix(got["hangs up"], "ERROR asking for TLS: ") {
		t.Error(got["hangs up"])
	}
	delete(got, "hangs up")
	audittest.Want(t, got, map[string]string{
		"fine": "OK", "no TLS": "ERROR it speaks PostgreSQL, and does not offer TLS", "other": "ERROR it does not speak PostgreSQL",
	})
}

// spoken is a connection on which the server has sent all its bytes.
type spoken struct {
	net.Conn
	in io.Reader
}

func (f *spoken) Read(b []byte) (int, error) { return f.in.Read(b) }

func (f *spoken) Write(b []byte) (int, error) { return len(b), nil }

// Contract: any input of a server before TLS is accepted, or refused with a reason of one line.
// The line is 64 KiB long at most, and no more than the bound is read.
func FuzzUpgrades(f *testing.F) {
	f.Add("ldap", []byte("\x30\x84\x00\x00\x00\x10\x02\x01\x01\x78\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00"))
	f.Add("mysql", []byte("\x30\x00\x00\x00\x0a8.0.36\x00\x01\x00\x00\x00abcdefgh\x00\xff\xff\x2d\x02\x00\xff\xdf\x15"))
	f.Add("imap", []byte("* OK ready\r\n* OK soon\r\na OK begin\r\n"))
	f.Add("pop3", []byte("+OK\r\n-ERR\r\n"))
	f.Add("ftp", []byte("220-FTP\r\n220 ready\r\n234 begin\r\n"))
	f.Add("smtp", []byte("220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\nmore"))
	f.Add("postgres", []byte("S"))
	f.Fuzz(func(t *testing.T, scheme string, said []byte) {
		ask := endpoint.UpgradeOf(scheme + "://")
		if ask == nil {
			return
		}
		in := bytes.NewReader(append(said, make([]byte, 1<<17)...))
		err := ask(&spoken{in: in})
		if read := int(in.Size()) - in.Len(); read > 1<<16+4<<10 {
			t.Errorf("%s: %d bytes were read: %v", scheme, read, err)
		}
	})
}
