package audit_test

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/artstore/artstore-pki/audit"
	"github.com/artstore/artstore-pki/audit/internal/audittest"
	"github.com/artstore/artstore-pki/audit/internal/certtest"
	"github.com/artstore/artstore-pki/audit/source"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

// serverCase is a row of the table of servers.
type serverCase struct {
	name   string
	make   func(pki) *madeServer
	reason string // as in verdictCase
}

// madeServer is a TLS server on 127.0.0.1 and what clients know of it.
type madeServer struct {
	chain  []*certified
	roots  []*certified
	host   string // that clients ask for; empty: server.test
	change func(*tls.Config)
	curl   []string // further arguments
	client []string // for openssl s_client
}

const (
	serverName = "server.test"
	serverIP   = "127.0.0.1"
)

// shows makes a server that sends these certificates, with the key of the first.
func (p pki) shows(chain ...*certified) *madeServer { return &madeServer{chain: chain} }

func (s *madeServer) trust(roots ...*certified) *madeServer {
	s.roots = roots
	return s
}

func (s *madeServer) as(host string) *madeServer {
	s.host = host
	return s
}

func (s *madeServer) with(change func(*tls.Config)) *madeServer {
	s.change = change
	return s
}

func inTLS(chain []*certified) tls.Certificate {
	c := tls.Certificate{PrivateKey: chain[0].key}
	for _, one := range chain {
		c.Certificate = append(c.Certificate, one.der)
	}
	return c
}

// start serves a short answer to whoever asks by HTTP.
func (s *madeServer) start(t *testing.T) (address string) {
	t.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{inTLS(s.chain)}}
	if s.change != nil {
		s.change(config)
	}
	return audittest.Accept(t, func(c net.Conn) {
		conn := tls.Server(c, config)
		if conn.Handshake() != nil { // refusals are the point
			return
		}
		if _, err := conn.Read(make([]byte, 1<<10)); err != nil {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
		_ = conn.Close()
	})
}

// opinions are those of curl and of openssl s_client: both must take a server.
func (s *madeServer) opinions(t *testing.T, address, curl, openssl string) opinion {
	t.Helper()
	dir := certtest.Write(t, map[string][]byte{bundleFile: pemRenderer(s.roots...)})
	host := cmp.Or(s.host, serverName)
	_, port, err := net.SplitHostPort(address)
	certtest.Must(t, err)
	args := append([]string{"--disable", "--silent", "--show-error", "--noproxy", "*", "--cacert", bundleFile, "--max-time", "50",
		"--resolve", host + ":" + port + ":" + serverIP}, s.curl...)
	if ok, said := ask(t, dir, curl, append(args, "https://"+host+":"+port+"/")...); !ok {
		line, _, _ := strings.Cut(strings.TrimSpace(said), "\n")
		return opinion{refused: true, text: line}
	}
	name := []string{"-servername", host, "-verify_hostname", host}
	if net.ParseIP(host) != nil {
		name = []string{"-verify_ip", host}
	}
	args = append([]string{"s_client", "-connect", address, "-brief", "-no-CApath", "-no-CAstore", "-CAfile", bundleFile, "-verify_return_error", "-auth_level", "2"}, name...)
	if ok, said := ask(t, dir, openssl, append(args, s.client...)...); !ok {
		return opinion{refused: true, text: "s_client: " + clientError(said)}
	}
	return opinion{text: "OK"}
}

func clientError(said string) string {
	for line := range strings.Lines(said) {
		if strings.Contains(line, "verify error") || strings.Contains(line, "Verification error") {
			return strings.TrimSpace(line)
		}
	}
	return firstError(said)
}

// ours audits the server alone, and beside files with the same certificates. Only
// what is said of the server counts.
func (s *madeServer) ours(t *testing.T, address string) map[string]opinion {
	t.Helper()
	bundle, err := pemfile.Certificates(pemRenderer(s.roots...))
	if err != nil {
		return map[string]opinion{"server": {true, true, "error: " + err.Error()}}
	}
	files := certtest.Write(t, map[string][]byte{chainFile: pemRenderer(s.chain...), bundleFile: pemRenderer(s.roots...)})
	out := map[string]opinion{}
	for way, names := range map[string][]string{"server": {address}, "server and files": {files, address}} {
		targets := source.Targets{Names: names, Bundle: bundle, Timeout: audittest.Patience}
		if net.ParseIP(s.host) == nil {
			targets.ServerName = cmp.Or(s.host, serverName)
		}
		out[way] = opinionOf(audittest.Run(t, targets), func(r *audit.Row) bool {
			here := func(place string) bool { return place == address || strings.HasPrefix(place, address+" (") } // also for other clients
			return here(r.Place) || slices.ContainsFunc(r.Also, here)
		})
	}
	return out
}

func TestVerdictsOfServers(t *testing.T) {
	curl, openssl := audittest.Program(t, "curl"), audittest.Program(t, "openssl")
	var table verdicts
	t.Run("cases", func(t *testing.T) {
		for _, theme := range serverCases() {
			for _, c := range theme.cases {
				name := theme.name + ": " + c.name
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					s := c.make(pki{t})
					address := s.start(t)
					judge := s.opinions(t, address, curl, openssl)
					table.compare(t, name, judge, s.ours(t, address), c.reason)
				})
			}
		}
	})
	table.log(t)
}

type serverTheme struct {
	name  string
	cases []serverCase
}

func serverCases() []serverTheme {
	return []serverTheme{{"servers", shownChains()}, {"servers' names", shownNames()}, {"servers' protocols", shownProtocols()}}
}

// sent is a server with root, intermediate and leaf.
func sent(ofRoot, ofMid, ofLeaf option) func(pki) *madeServer {
	return func(p pki) *madeServer {
		p.Helper()
		root := p.root("Root", ofRoot)
		mid := p.ca(root, "Intermediate", ofMid)
		return p.shows(p.leaf(mid, ofLeaf), mid).trust(root)
	}
}

// shownChains are what servers send.
func shownChains() []serverCase {
	return []serverCase{
		{"leaf and intermediate", sent(withoutPath, withoutPath, withoutPath), ""},
		{"leaf of the root", func(p pki) *madeServer {
			root := p.root("Root")
			return p.shows(p.leaf(root)).trust(root)
		}, ""},
		{"the root sent along", func(p pki) *madeServer {
			root, mid, leaf := p.three()
			return p.shows(leaf, mid, root).trust(root)
		}, ""},
		{"two intermediates in the wrong order", func(p pki) *madeServer {
			root, mid, _ := p.three()
			low := p.ca(mid, "Lower")
			return p.shows(p.leaf(low), mid, low).trust(root)
		}, ""},
		{"every certificate twice", func(p pki) *madeServer {
			root, mid, leaf := p.three()
			return p.shows(leaf, leaf, mid, mid).trust(root)
		}, ""},
		{"a surplus intermediate", func(p pki) *madeServer {
			root, mid, leaf := p.three()
			return p.shows(leaf, p.ca(root, "Another"), mid).trust(root)
		}, ""},
		{"a surplus stranger", func(p pki) *madeServer {
			root, mid, leaf := p.three()
			return p.shows(leaf, mid, p.root("Stranger")).trust(root)
		}, ""},
		{"cross-signed, the other way first", func(p pki) *madeServer {
			root, mid, leaf := p.three()
			return p.shows(leaf, p.again(mid, p.root("Old Root"), "Intermediate"), mid).trust(root)
		}, ""},
		{"the intermediate missing", func(p pki) *madeServer {
			root, _, leaf := p.three()
			return p.shows(leaf).trust(root)
		}, ""},
		{"the upper intermediate missing", func(p pki) *madeServer {
			root, mid, _ := p.three()
			low := p.ca(mid, "Lower")
			return p.shows(p.leaf(low), low).trust(root)
		}, ""},
		{"another intermediate of the same name", func(p pki) *madeServer {
			root, _, wrong, leaf := p.sameName()
			return p.shows(leaf, wrong).trust(root)
		}, ""},
		{"another root", func(p pki) *madeServer {
			_, mid, leaf := p.three()
			return p.shows(leaf, mid).trust(p.root("Stranger"))
		}, ""},
		{"another root of the same name", func(p pki) *madeServer {
			_, mid, leaf := p.three()
			return p.shows(leaf, mid).trust(p.root("Root"))
		}, ""},
		{"self-signed CA:FALSE", func(p pki) *madeServer { return p.shows(p.leaf(nil)).trust(p.root("Root")) }, ""},
		{"self-signed CA:TRUE", func(p pki) *madeServer {
			return p.shows(p.leaf(nil, isCA, keyUses(0))).trust(p.root("Root"))
		}, ""},
		{"self-signed CA:TRUE, with the right name and keyUsage", func(p pki) *madeServer {
			return p.shows(p.leaf(nil, isCA, keyUses(x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature))).trust(p.root("Root"))
		}, ""},
		{"self-signed CA:TRUE before a sound chain", func(p pki) *madeServer {
			root, mid, leaf := p.three()
			return p.shows(p.leaf(nil, isCA, keyUses(0)), leaf, mid).trust(root)
		}, ""},
		{"self-signed CA:FALSE that the bundle has", func(p pki) *madeServer {
			leaf := p.leaf(nil)
			return p.shows(leaf).trust(leaf)
		}, ""},
		{"a rogue intermediate under the name of ours", func(p pki) *madeServer {
			root, _, _ := p.three()
			rogue := p.ca(p.root("Root"), "Intermediate")
			return p.shows(p.leaf(rogue), rogue).trust(root)
		}, ""},
		{"the intermediate itself", func(p pki) *madeServer {
			root, mid, _ := p.three()
			return p.shows(mid).trust(root)
		}, ""},
		{"the intermediate itself, with names", func(p pki) *madeServer {
			root := p.root("Root")
			return p.shows(p.ca(root, "Intermediate", dns(serverName), keyUses(0))).trust(root)
		}, ""},
		{"the intermediate itself before its leaf", func(p pki) *madeServer {
			root, mid, leaf := p.three()
			return p.shows(mid, leaf).trust(root)
		}, ""},
		{"the root itself", func(p pki) *madeServer {
			root := p.root("Root", dns(serverName))
			return p.shows(root).trust(root)
		}, ""},
		{"a leaf under a leaf", func(p pki) *madeServer {
			root, mid, leaf := p.three()
			return p.shows(p.leaf(leaf), leaf, mid).trust(root)
		}, ""},
		{"the leaf has expired", sent(withoutPath, withoutPath, expiredOnce()), ""},
		{"the intermediate has expired", sent(withoutPath, expiredOnce(), withoutPath), ""},
		{"the root has expired", sent(expiredOnce(), withoutPath, withoutPath), ""},
		{"the leaf is not yet valid", sent(withoutPath, withoutPath, notYet()), ""},
		{"the leaf is for clients", sent(withoutPath, withoutPath, usages(x509.ExtKeyUsageClientAuth)), ""},
		{"the leaf is for code", sent(withoutPath, withoutPath, usages(x509.ExtKeyUsageCodeSigning)), ""},
		{"the leaf is for anything", sent(withoutPath, withoutPath, usages()), ""},
		{"the leaf has the usage any alone", sent(withoutPath, withoutPath, usages(x509.ExtKeyUsageAny)), ""},
		{"the intermediate is for clients", sent(withoutPath, usages(x509.ExtKeyUsageClientAuth), withoutPath), ""},
		{"the intermediate may not sign certificates", sent(withoutPath, keyUses(x509.KeyUsageDigitalSignature), withoutPath), ""},
		{"the intermediate is CA:FALSE", sent(withoutPath, notCA, withoutPath), ""},
		{"path length exceeded", sent(pathLength(0), withoutPath, withoutPath), ""},
		{"the name is excluded", sent(withoutPath, excludes("test"), withoutPath), ""},
		{"the leaf may not sign", sent(withoutPath, withoutPath, keyUses(x509.KeyUsageContentCommitment)), ""},
		{"a damaged signature", sent(withoutPath, withoutPath, damaged), ""},
		{"signed with SHA-1", sent(withoutPath, withoutPath, verifyListSignature(withSHA1)), ""},
		{"RSA of 1024 bits", sent(withoutPath, withoutPath, withRSA(1024)), ""},
		{"the root has RSA of 1024 bits", sent(withRSA(1024), withoutPath, withoutPath), ""},
		{"a critical extension that nobody knows", sent(withoutPath, withoutPath, extension(oidPrivate, true, 5, 0)), ""},
		{"key identifiers that do not match", sent(withoutPath, withoutPath, extension(oidAuthorityKeyID, false, 0x30, 6, 0x80, 4, 1, 2, 3, 4)), ""},
		{"a date without seconds", sent(withoutPath, withoutPath, edit(func(t *tbsCertificate) { t.Validity.From = raw(23, []byte("2401010000Z")...) })), ""},
		{"a negative serial number", sent(withoutPath, withoutPath, edit(func(t *tbsCertificate) { t.Serial = raw(2, 0xfb) })), "crypto/x509 does not read negative serial numbers, so that no peer in Go takes it"},
		{"a negative serial number, and expired", sent(withoutPath, withoutPath, both(expiredOnce(), edit(func(t *tbsCertificate) { t.Serial = raw(2, 0xfb) }))), ""},
	}
}

func isCA(r *certPlan) { r.IsCA = true }

// shownNames are names in the certificate of a server, and the one that is asked for.
func shownNames() []serverCase {
	named := func(host string, ofLeaf ...option) func(pki) *madeServer {
		return func(p pki) *madeServer {
			p.Helper()
			return sent(withoutPath, withoutPath, both(ofLeaf...))(p).as(host)
		}
	}
	alt := func(names ...string) option { return extension(oidAltName, false, dnsNames(names...)...) }
	return []serverCase{
		{"another name", named("other.test"), ""},
		{"the name in capitals", named(serverName, alt("SERVER.TEST")), ""},
		{"asked for in capitals", named("SERVER.test"), ""},
		{"the second of two names", named("b.server.test", dns("a.server.test", "b.server.test")), ""},
		{"a name below", named("sub.server.test"), ""},
		{"a wildcard for one label", named("a.server.test", dns("*.server.test")), ""},
		{"a wildcard for two labels", named("a.b.server.test", dns("*.server.test")), ""},
		{"a wildcard for no label", named(serverName, dns("*.server.test")), ""},
		{"a wildcard for a top-level domain", named(serverName, alt("*.test")), ""},
		{"a wildcard for everything", named(serverName, alt("*")), ""},
		{"two wildcards", named("a.b.server.test", alt("*.*.server.test")), ""},
		{"a wildcard that is not first", named("a.b.server.test", alt("a.*.server.test")), ""},
		{"a wildcard within a label", named("sub.server.test", alt("s*.server.test")), ""},
		{"a name with a dot behind it", named(serverName, alt("server.test.")), ""},
		{"a name with a dot before it", named("a.server.test", alt(".server.test")), ""},
		{"a name with a space", named(serverName, alt("server.test ")), ""},
		{"a name with a zero byte", named(serverName, alt("server.test\x00.example")), ""},
		{"an underscore", named("storage_element.server.test", alt("storage_element.server.test")), ""},
		{"punycode", named("xn--mnchen-3ya.test", alt("xn--mnchen-3ya.test")), ""},
		{"only the common name", named(serverName, dns(), commonName(serverName)), "clients do not look at the common name (RFC 9525 section 6): browsers and Go have not for years"},
		{"the common name beside other names", named(serverName, dns("other.test"), commonName(serverName)), ""},
		{"the common name beside an address", named(serverName, dns(), address("10.1.2.3"), commonName(serverName)), ""},
		{"an address", named(serverIP, address(serverIP)), ""},
		{"another address", named(serverIP, address("127.0.0.2")), ""},
		{"an address as DNS name", named(serverIP, alt(serverIP)), ""},
		{"an address as common name", named(serverIP, dns(), commonName(serverIP)), ""},
		{"an address by a wildcard", named(serverIP, alt("*.0.0.1")), ""},
		{"an address that is asked for by name", named(serverName, dns(), address(serverIP)), ""},
		{"no name at all", named(serverName, dns(), emptySubject), ""},
	}
}

// shownProtocols are versions and ways of TLS, and servers that do not show the same to all.
func shownProtocols() []serverCase {
	sound := sent(withoutPath, withoutPath, withoutPath)
	only := func(version uint16) func(pki) *madeServer {
		return func(p pki) *madeServer {
			return sound(p).with(func(c *tls.Config) { c.MinVersion, c.MaxVersion = version, version })
		}
	}
	// second is shown when pick says so, in place of a sound chain.
	second := func(ofLeaf option, pick func(n int64, hello *tls.ClientHelloInfo) bool) func(pki) *madeServer {
		return func(p pki) *madeServer {
			s := sound(p)
			mid := s.chain[1]
			good, bad := inTLS(s.chain), inTLS([]*certified{p.leaf(mid, ofLeaf), mid})
			var n atomic.Int64
			return s.with(func(c *tls.Config) {
				c.Certificates = nil
				c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
					if pick(n.Add(1), hello) {
						return &bad, nil
					}
					return &good, nil
				}
			})
		}
	}
	return []serverCase{
		{"TLS 1.3 only", only(tls.VersionTLS13), ""},
		{"TLS 1.2 only", only(tls.VersionTLS12), ""},
		{"TLS 1.1 only", only(tls.VersionTLS11), ""},
		{"TLS 1.0 only", only(tls.VersionTLS10), ""},
		{"TLS 1.2 only, keyEncipherment only", func(p pki) *madeServer {
			s := sent(withoutPath, withoutPath, both(withRSA(2048), keyUses(x509.KeyUsageKeyEncipherment)))(p)
			return s.with(func(c *tls.Config) {
				c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
			})
		}, "crypto/tls offers no key exchange by RSA encryption, so that no peer in Go speaks to it"},
		{"expired for those who send no name", func(p pki) *madeServer {
			return second(both(expiredOnce(), address(serverIP)), func(_ int64, hello *tls.ClientHelloInfo) bool { return hello.ServerName == "" })(p).as(serverIP)
		}, ""},
		{"expired from the second connection on", second(expiredOnce(), func(n int64, _ *tls.ClientHelloInfo) bool { return n > 1 }), ""},
		{"another key than that of the certificate", func(p pki) *madeServer {
			s := sound(p)
			other := p.newKey()
			return s.with(func(c *tls.Config) { c.Certificates[0].PrivateKey = other })
		}, ""},
		{"no TLS", func(p pki) *madeServer {
			return sound(p).with(func(c *tls.Config) {
				c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, io.EOF }
			})
		}, ""},
		{"the certificate for RSA has expired", func(p pki) *madeServer {
			s := sound(p)
			s.curl = []string{"--tls-max", "1.2", "--ciphers", "ECDHE-RSA-AES128-GCM-SHA256"}
			mid := s.chain[1]
			return s.with(func(c *tls.Config) {
				c.MaxVersion = tls.VersionTLS12
				c.Certificates = append(c.Certificates, inTLS([]*certified{p.leaf(mid, both(expiredOnce(), withRSA(2048))), mid}))
			})
		}, ""},
	}
}
