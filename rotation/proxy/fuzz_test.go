package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

// variable is the name of a header as a CGI variable, by the rule of the strictest servers.
func variable(name string) string {
	return "HTTP_" + strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(name))
}

// FuzzScrub checks that no header that is left has the variable of one of the proxy's, and
// that a header stays whose variable has another beginning.
func FuzzScrub(f *testing.F) {
	for _, seed := range []string{"X-Client-Identity", "x_client_identity", "X.Client~Identity", "Client_Cert-Chain", "X-Forwarded-For", "Forwarded", "SSL_CLIENT_S_DN", "X-Client-Identity2", "Accept", "\u212a", "X-Client-\u0130dentity"} {
		f.Add(seed)
	}
	s := scrubber{plainName(DefaultIdentityHeader)}
	own := []string{"HTTP_PROXY", "HTTP_REMOTE_USER", "HTTP_X_CLIENT_IDENTITY", "HTTP_CLIENT_CERT", "HTTP_CLIENT_CERT_CHAIN", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST", "HTTP_FORWARDED"}
	f.Fuzz(func(t *testing.T, name string) {
		h := http.Header{name: {"a"}, "Accept": {"b"}}
		s.scrub(h)
		for left := range h {
			for _, v := range own {
				if variable(left) == v {
					t.Fatalf("%q is left, which is %s to a service", left, v)
				}
			}
		}
		if h.Get("Accept") != "b" && name != "Accept" {
			t.Fatal("another header is gone")
		}
		if _, there := h[name]; !there && !strings.HasPrefix(variable(name), "HTTP_X_") && !strings.HasPrefix(variable(name), "HTTP_CLIENT_CERT") &&
			!strings.HasPrefix(variable(name), "HTTP_SSL_CLIENT_") && !strings.HasPrefix(variable(name), "HTTP_FORWARDED") &&
			!strings.HasPrefix(variable(name), "HTTP_REMOTE_") && variable(name) != "HTTP_PROXY" {
			t.Fatalf("%q is gone", name)
		}
	})
}

// FuzzProxyHeader checks that what the proxy says of a connection is what a service reads,
// whatever is in a certificate, and that nothing follows it.
func FuzzProxyHeader(f *testing.F) {
	f.Add("192.0.2.1:1", "192.0.2.2:443", "svc", "ingester", "ingester", true)
	f.Add("[2001:db8::1]:65535", "[::1]:443", "", "\r\nPROXY TCP4", "spiffe://a/b", false)
	f.Add("192.0.2.1:1", "[::ffff:192.0.2.2]:443", "\x00", strings.Repeat("x", 70000), "a", true)
	f.Fuzz(func(t *testing.T, from, to, sni, cn, name string, resumed bool) {
		src, err1 := netip.ParseAddrPort(from)
		dst, err2 := netip.ParseAddrPort(to)
		if err1 != nil || err2 != nil || src.Addr().Zone() != "" || dst.Addr().Zone() != "" {
			return
		}
		cs := tls.ConnectionState{
			Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256, ServerName: sni, DidResume: resumed,
			PeerCertificates: []*x509.Certificate{{Subject: pkix.Name{CommonName: cn}}},
		}
		b, err := proxyHeader(net.TCPAddrFromAddrPort(src), net.TCPAddrFromAddrPort(dst), cs, name)
		if err != nil {
			if len(sni)+len(cn)+len(name) < 60000 {
				t.Fatalf("a header of ordinary size: %v", err)
			}
			return
		}
		r := bufio.NewReaderSize(bytes.NewReader(append(b, "data"...)), len(b)+4)
		h, err := proxyproto.Read(r)
		if err != nil {
			t.Fatal(err)
		}
		if rest, _ := r.Peek(4); string(rest) != "data" {
			t.Fatalf("%q follows", rest)
		}
		got, isTCP := h.SourceAddr.(*net.TCPAddr)
		if h.Command != proxyproto.PROXY || !isTCP || got.AddrPort().Port() != src.Port() || got.AddrPort().Addr().Unmap() != src.Addr().Unmap() {
			t.Fatalf("%+v", h)
		}
		checkTLVs(t, h, sni, cn, name, resumed)
	})
}

func checkTLVs(t *testing.T, h *proxyproto.Header, sni, cn, name string, resumed bool) {
	t.Helper()
	tlvs, err := h.TLVs()
	if err != nil {
		t.Fatal(err)
	}
	found := map[proxyproto.PP2Type]string{}
	for _, tlv := range tlvs {
		if _, twice := found[tlv.Type]; twice {
			t.Fatalf("type %x twice", tlv.Type)
		}
		found[tlv.Type] = string(tlv.Value)
	}
	if found[typeName] != name || found[proxyproto.PP2_TYPE_AUTHORITY] != sni {
		t.Fatalf("the TLVs are %q", found)
	}
	if !isASCIIText(cn) {
		return // the library that reads it checks the text
	}
	ssl, ok := tlvparse.FindSSL(tlvs)
	version, _ := ssl.SSLVersion()
	gotCN, hasCN := ssl.ClientCN()
	if !ok || !ssl.Verified() || version != "TLSv1.3" || hasCN != (cn != "") || gotCN != cn || !ssl.ClientCertSess() || ssl.ClientCertConn() == resumed {
		t.Fatalf("%v %+v", ok, ssl)
	}
}

func isASCIIText(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// FuzzParseAddress checks that what an address prints is read as the same address, and that
// what counts as this machine is a socket, localhost or an address of loopback.
func FuzzParseAddress(f *testing.F) {
	for _, seed := range []string{"127.0.0.1:80", "[::1]:80", ":80", "localhost:80", "unix:/run/s", "unix:s", "host:99999", "[::ffff:127.0.0.1]:1", "127.1:80", "localhost.:80", "[fe80::1%lo]:80", "unix:"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseAddress(text)
		if err != nil {
			return
		}
		if again, err := ParseAddress(a.String()); err != nil || again != a {
			t.Fatalf("%q is %q, which is %q, %v", text, a, again, err)
		}
		ip, err := netip.ParseAddr(a.host())
		if a.OnThisMachine() && a.Path() == "" && a.host() != localhost && (err != nil || !ip.Unmap().IsLoopback()) {
			t.Fatalf("%q counts as this machine", text)
		}
		if a.Path() != "" && !strings.HasPrefix(a.Path(), "/") {
			t.Fatalf("%q is the socket %q", text, a.Path())
		}
	})
}
