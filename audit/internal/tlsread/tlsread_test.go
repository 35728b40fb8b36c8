package tlsread_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/audit/internal/tlsread"
	"github.com/artstore/artstore-pki/internal/testpki"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// certificate returns a self-signed certificate with further ones behind it.
func certificate(t testing.TB, key crypto.Signer, more ...[]byte) tls.Certificate {
	t.Helper()
	shown := testpki.Issue(t, nil, &x509.Certificate{DNSNames: []string{"server.example"}}, key).TLS()
	shown.Certificate = append(shown.Certificate, more...)
	return shown
}

func keys(t testing.TB) (ec, rsaKey, ed crypto.Signer) {
	t.Helper()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	rsaKey, err = rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	_, ed, err = ed25519.GenerateKey(rand.Reader)
	must(t, err)
	return ec, rsaKey, ed
}

// served returns a connection to a server. It is TCP, because over a pipe both ends would
// wait for the other one to read.
func served(t testing.TB, config *tls.Config) net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_ = tls.Server(c, config).Handshake() // it cannot succeed
		_ = c.Close()
	}()
	here, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
	must(t, err)
	t.Cleanup(func() {
		_ = here.Close()
		_ = ln.Close()
		<-done
	})
	return here
}

func same(t *testing.T, a tlsread.Answer, want tls.Certificate) {
	t.Helper()
	if len(a.Certificates) != len(want.Certificate) {
		t.Fatalf("%d certificates, want %d", len(a.Certificates), len(want.Certificate))
	}
	for i := range a.Certificates {
		if !bytes.Equal(a.Certificates[i], want.Certificate[i]) {
			t.Errorf("certificate %d is another", i)
		}
	}
}

// Ask reads each version, suite and group that crypto/tls can serve, also with
// certificates that cannot be parsed.
func TestAsk(t *testing.T) {
	ec, rsaKey, ed := keys(t)
	var all []uint16
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		all = append(all, s.ID)
	}
	for _, key := range []crypto.Signer{ec, rsaKey, ed} {
		own := certificate(t, key, []byte("no certificate"), bytes.Repeat([]byte{7}, 20<<10))
		for version := uint16(tls.VersionTLS10); version <= tls.VersionTLS13; version++ {
			if _, isEd := key.(ed25519.PrivateKey); isEd && version < tls.VersionTLS12 {
				continue // it has no place there
			}
			for _, group := range []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521} {
				config := &tls.Config{
					Certificates: []tls.Certificate{own}, CurvePreferences: []tls.CurveID{group}, CipherSuites: all,
					MinVersion: version, MaxVersion: version,
				}
				a, err := tlsread.Ask(served(t, config), tlsread.Offer{ServerName: "server.example", Newest: version})
				if err != nil || a.Version != version {
					t.Errorf("%T, %s, %s: %s, %v", key, tls.VersionName(version), group, tls.VersionName(a.Version), err)
					continue
				}
				same(t, a, own)
			}
		}
	}
}

// A server with a certificate of each family sends the one that the offer asks for.
func TestFamilies(t *testing.T) {
	ec, rsaKey, ed := keys(t)
	own := map[tlsread.Family]tls.Certificate{tlsread.ECDSA: certificate(t, ec), tlsread.RSA: certificate(t, rsaKey), tlsread.EdDSA: certificate(t, ed)}
	for _, newest := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := &tls.Config{MinVersion: tls.VersionTLS12, MaxVersion: newest}
		for _, c := range own {
			config.Certificates = append(config.Certificates, c)
		}
		for family, c := range own {
			a, err := tlsread.Ask(served(t, config), tlsread.Offer{ServerName: "server.example", Newest: tls.VersionTLS13, Family: family})
			if err != nil || a.Version != newest {
				t.Errorf("%s, %s: %v", family, tls.VersionName(newest), err)
				continue
			}
			same(t, a, c)
		}
		config.Certificates = []tls.Certificate{own[tlsread.RSA]}
		if a, err := tlsread.Ask(served(t, config), tlsread.Offer{Newest: newest, Family: tlsread.ECDSA}); err == nil {
			same(t, a, own[tlsread.RSA]) // what crypto/tls does up to 1.2 is its own business
		} else if _, refused := errors.AsType[tlsread.Alert](err); !refused {
			t.Error(err)
		}
	}
}

// All three suites of TLS 1.3 are read.
func TestSuites(t *testing.T) {
	ec, _, _ := keys(t)
	own := certificate(t, ec)
	for _, suite := range []uint16{tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384, tls.TLS_CHACHA20_POLY1305_SHA256} {
		config := &tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAnyClientCert}
		a, err := tlsread.AskFor(served(t, config), tlsread.Offer{Newest: tls.VersionTLS13}, suite)
		if err != nil || a.Suite != suite {
			t.Errorf("%s: %v", tls.CipherSuiteName(suite), err)
			continue
		}
		same(t, a, own)
	}
}

// A server that asks for a group without a share is an error at once, because it waits for
// a second hello.
func TestRetry(t *testing.T) {
	ec, _, _ := keys(t)
	config := &tls.Config{Certificates: []tls.Certificate{certificate(t, ec)}, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}}
	if _, err := tlsread.Ask(served(t, config), tlsread.Offer{Newest: tls.VersionTLS13}); err == nil {
		t.Error("it was read")
	}
	retry := message(2, slices.Concat([]byte{3, 3}, helloRetry(), []byte{0, 0x13, 1, 0, 0, 12, 0, 43, 0, 2, 3, 4, 0, 51, 0, 2, 0, 30}))
	_, err := tlsread.Ask(said(record(22, retry)), tlsread.Offer{Newest: tls.VersionTLS13})
	if err == nil || !strings.Contains(err.Error(), "it wants another exchange of keys") {
		t.Error(err)
	}
}

func helloRetry() []byte {
	sum := sha256.Sum256([]byte("HelloRetryRequest"))
	return sum[:]
}

// recorder keeps what is read.
type recorder struct {
	net.Conn
	sent bytes.Buffer
}

func (r *recorder) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.sent.Write(b[:n])
	return n, err
}

// Replay reads certificates that crypto/tls received and could not parse, also after a
// HelloRetryRequest, and from servers that ask for a client certificate.
func TestReplay(t *testing.T) {
	ec, _, _ := keys(t)
	own := certificate(t, ec)
	own.Certificate = [][]byte{[]byte("no certificate"), own.Certificate[0]}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, group := range []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP521} {
			if version == tls.VersionTLS12 && group == tls.X25519MLKEM768 {
				continue // it has no place there
			}
			sent, keyLog := refused(t, &tls.Config{
				Certificates: []tls.Certificate{own}, MaxVersion: version, CurvePreferences: []tls.CurveID{group}, ClientAuth: tls.RequireAnyClientCert,
			})
			a, err := tlsread.Replay(sent, keyLog)
			if err != nil || a.Version != version {
				t.Errorf("%s, %s: %v", tls.VersionName(version), group, err)
				continue
			}
			same(t, a, own)
			if version == tls.VersionTLS12 {
				continue
			}
			if _, err := tlsread.Replay(sent, nil); err == nil {
				t.Error("it was read without the secret")
			}
			wrong := bytes.ReplaceAll(keyLog, []byte("SERVER_HANDSHAKE"), []byte("OTHER"))
			wrong = bytes.ReplaceAll(wrong, []byte("CLIENT_HANDSHAKE"), []byte("SERVER_HANDSHAKE"))
			if _, err := tlsread.Replay(sent, wrong); err == nil || !strings.Contains(err.Error(), "cannot be decrypted") {
				t.Error(err)
			}
		}
	}
}

// refused returns the bytes that a server sends to crypto/tls, which cannot parse its
// certificate.
func refused(t testing.TB, config *tls.Config) (sent, keyLog []byte) {
	t.Helper()
	var log bytes.Buffer
	conn := &recorder{Conn: served(t, config)}
	client := tls.Client(conn, &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "server.example", KeyLogWriter: &log})
	if err := client.HandshakeContext(t.Context()); err == nil || !strings.Contains(err.Error(), "failed to parse certificate") {
		t.Fatal(err)
	}
	return conn.sent.Bytes(), log.Bytes()
}

// said returns a connection on which the server has sent all its bytes already.
func said(sent []byte) io.ReadWriter {
	return struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(sent), io.Discard}
}

func record(kind byte, body []byte) []byte {
	return append([]byte{kind, 3, 3, byte(len(body) >> 8), byte(len(body))}, body...)
}

func message(kind byte, body []byte) []byte {
	return append([]byte{kind, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
}

// The answer of a hostile server is an error with a reason.
func TestHostileServers(t *testing.T) {
	const malformed, notTLS, none = "a message of the handshake is malformed", "it does not speak TLS", "it showed no certificate"
	const tooMuch = "it sends more than 512 KiB in place of its certificates"
	hello := record(22, message(2, slices.Concat([]byte{3, 3}, make([]byte, 33), []byte{0, 0x2f, 0})))
	after := func(more []byte) []byte { return slices.Concat(hello, more) }
	for name, c := range map[string]struct {
		sends []byte
		want  string
	}{
		"nothing":             {nil, "EOF"},
		"another protocol":    {[]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), notTLS},
		"an alert":            {record(21, []byte{2, 40}), "remote error: tls: handshake failure"},
		"half an alert":       {record(21, []byte{2}), malformed},
		"a warning":           {append(record(21, []byte{1, 112}), hello...), "EOF"},
		"a long record":       {[]byte{22, 3, 3, 0xff, 0xff}, notTLS},
		"a long message":      {record(22, []byte{11, 0xff, 0xff, 0xff}), "it sends a handshake message of 16777215 bytes, and no more than 256 KiB are read of one"},
		"no hello":            {record(22, message(11, []byte{0, 0, 0})), malformed},
		"a torn hello":        {record(22, message(2, []byte{3, 3})), malformed},
		"SSL 2":               {record(22, message(2, slices.Concat([]byte{0, 2}, make([]byte, 36)))), malformed},
		"two hellos":          {after(hello), none},
		"no certificate":      {after(record(22, message(14, nil))), none},
		"an empty list":       {after(record(22, message(11, []byte{0, 0, 0}))), none},
		"a torn list":         {after(record(22, message(11, []byte{0, 0, 9, 0, 0, 7}))), malformed},
		"data in the clear":   {record(23, []byte{1}), malformed},
		"records of nothing":  {bytes.Repeat(record(22, nil), 200_000), tooMuch},
		"a chain of warnings": {bytes.Repeat(record(21, []byte{1, 112}), 200_000), tooMuch},
	} {
		a, err := tlsread.Ask(said(c.sends), tlsread.Offer{Newest: tls.VersionTLS13})
		if err == nil || err.Error() != c.want || a.Certificates != nil {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// Contract: any input gives certificates or an error. The certificates are parts of the
// bytes that were sent or decrypted.
func FuzzReplay(f *testing.F) {
	ec, _, _ := keys(f)
	own := certificate(f, ec)
	own.Certificate[0] = own.Certificate[0][1:]
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		sent, keyLog := refused(f, &tls.Config{Certificates: []tls.Certificate{own}, MaxVersion: version})
		f.Add(sent, keyLog)
	}
	f.Add(record(21, []byte{2, 40}), []byte{})
	f.Fuzz(func(t *testing.T, sent, keyLog []byte) {
		a, err := tlsread.Replay(sent, keyLog)
		if (err == nil) != (len(a.Certificates) > 0) {
			t.Errorf("%d certificates, and %v", len(a.Certificates), err)
		}
		size := 0
		for _, c := range a.Certificates {
			size += len(c)
		}
		if size > len(sent) {
			t.Errorf("%d bytes of %d", size, len(sent))
		}
	})
}

// FuzzAsk does the same for the hello of this package, whose keys the fuzzer does not know.
func FuzzAsk(f *testing.F) {
	f.Add([]byte{}, "server.example")
	f.Add(record(22, message(2, slices.Concat([]byte{3, 3}, make([]byte, 33), []byte{0, 0x2f, 0}))), "")
	f.Add(record(22, message(2, slices.Concat([]byte{3, 3}, helloRetry(), []byte{0, 0x13, 1, 0, 0, 12, 0, 43, 0, 2, 3, 4, 0, 51, 0, 2, 0, 30}))), "127.0.0.1")
	f.Fuzz(func(t *testing.T, sent []byte, name string) {
		a, err := tlsread.Ask(said(sent), tlsread.Offer{ServerName: name, Newest: tls.VersionTLS13})
		if (err == nil) != (len(a.Certificates) > 0) {
			t.Errorf("%d certificates, and %v", len(a.Certificates), err)
		}
	})
}
