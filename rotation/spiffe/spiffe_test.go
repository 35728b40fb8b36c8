package spiffe_test

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/spiffe"
)

var (
	domain = spiffeid.RequireTrustDomainFromString("artstore.example")
	other  = spiffeid.RequireTrustDomainFromString("partner.example")
)

// named sets the URI names of a leaf.
func named(uris ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.URIs = nil
		for _, u := range uris {
			parsed, err := url.Parse(u)
			if err != nil {
				panic(err)
			}
			c.URIs = append(c.URIs, parsed)
		}
	}
}

const storage = "spiffe://artstore.example/storage"

func TestSourceFollowsGenerations(t *testing.T) {
	ca := pkitest.NewCA(t)
	pushed := pkitest.NewSource(ca.Leaf(t, "storage", named(storage)))
	id := pkitest.Open(t, rotation.Config{Source: pushed})
	src := spiffe.NewSource(id)
	for range 3 {
		svid, err := src.GetX509SVID()
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := src.GetX509SVID(); again != svid {
			t.Error("the SVID of one generation is converted twice")
		}
		if svid.ID.String() != storage || !svid.Certificates[0].Equal(id.Current().Leaf()) {
			t.Errorf("SVID %s of serial %s", svid.ID, svid.Certificates[0].SerialNumber)
		}
		if !svid.Certificates[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(svid.PrivateKey.Public()) {
			t.Error("the key does not fit the SVID")
		}
		bundle, err := src.GetX509BundleForTrustDomain(domain)
		if err != nil {
			t.Fatal(err)
		}
		if !bundle.HasX509Authority(ca.Root) || bundle.TrustDomain() != domain {
			t.Errorf("bundle of %s without the root", bundle.TrustDomain())
		}
		if _, _, err := x509svid.Verify(svid.Certificates, src); err != nil {
			t.Errorf("go-spiffe refuses what it got: %v", err)
		}
		ca = pkitest.NewCA(t)
		pushed.Push(t, ca.Leaf(t, "storage", named(storage)))
	}
	if _, err := src.GetX509BundleForTrustDomain(other); err == nil || !strings.Contains(err.Error(), "partner.example") {
		t.Errorf("bundle of another domain: %v", err)
	}
}

func TestSourceRefusesWhatIsNoSVID(t *testing.T) {
	usage := func(u x509.KeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { named(storage)(c); c.KeyUsage = u }
	}
	ca := pkitest.NewCA(t)
	pushed := pkitest.NewSource(ca.Leaf(t, "storage", named(storage)))
	id := pkitest.Open(t, rotation.Config{Source: pushed})
	src := spiffe.NewSource(id)
	for name, c := range map[string]struct {
		edit func(*x509.Certificate)
		want string
	}{
		"no URI":             {named(), "no URI SAN"},
		"two URIs":           {named(storage, storage+"/two"), "more than one URI SAN"},
		"other scheme":       {named("https://artstore.example/storage"), "scheme"},
		"no path":            {named("spiffe://artstore.example"), "must have a path"},
		"query":              {named(storage + "?a=b"), "path"},
		"no key usage":       {usage(0), "digitalSignature"},
		"signs certificates": {usage(x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign), "keyCertSign"},
		"signs lists":        {usage(x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign), "cRLSign"},
	} {
		t.Run(name, func(t *testing.T) {
			pushed.Push(t, ca.Leaf(t, "storage", c.edit))
			if svid, err := src.GetX509SVID(); svid != nil || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("SVID %v, error %v; want one that says %q", svid, err, c.want)
			}
			if got, err := spiffe.LeafID(id.Current().Leaf()); !got.IsZero() || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("ID %s, error %v; want one that says %q", got, err, c.want)
			}
			if b, err := src.GetX509BundleForTrustDomain(domain); b != nil || err == nil {
				t.Errorf("bundle %v, error %v", b, err)
			}
		})
	}
	pushed.Push(t, ca.Leaf(t, "storage", named(storage)))
	if _, err := src.GetX509SVID(); err != nil {
		t.Errorf("the error outlives its generation: %v", err)
	}
}

// handshake connects once.
func handshake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	served := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			served <- err
			return
		}
		defer func() { _ = c.Close() }()
		if err := c.(*tls.Conn).Handshake(); err != nil {
			served <- err
			return
		}
		_, err = io.WriteString(c, "ok")
		served <- err
	}()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Minute}, "tcp", ln.Addr().String(), client)
	if err != nil {
		_ = ln.Close()
		<-served
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.ReadFull(conn, make([]byte, 2)); err != nil {
		return err
	}
	return <-served
}

func TestHandshakesOfGoSPIFFE(t *testing.T) {
	ca := pkitest.NewCA(t)
	pushed := pkitest.NewSource(ca.Leaf(t, "storage", named(storage)))
	server := spiffe.NewSource(pkitest.Open(t, rotation.Config{Source: pushed}))
	client := spiffe.NewSource(pkitest.Open(t, rotation.Config{
		Source: rotation.Static(ca.Leaf(t, "ingester", named("spiffe://artstore.example/ingester"))),
	}))
	serverConf := tlsconfig.MTLSServerConfig(server, server, tlsconfig.AuthorizeMemberOf(domain))
	serverConf.SessionTicketsDisabled = true
	clientConf := tlsconfig.MTLSClientConfig(client, client, tlsconfig.AuthorizeID(spiffeid.RequireFromString(storage)))
	for range 3 { // the same configurations, another certificate
		if err := handshake(t, serverConf, clientConf); err != nil {
			t.Fatal(err)
		}
		pushed.Push(t, ca.Leaf(t, "storage", named(storage)))
	}
	pushed.Push(t, ca.Leaf(t, "storage", named(storage+"/other")))
	if err := handshake(t, serverConf, clientConf); err == nil {
		t.Error("a server of another ID was accepted")
	}
	stranger := pkitest.NewCA(t)
	pushed.Push(t, stranger.Leaf(t, "storage", named(storage)))
	if err := handshake(t, serverConf, clientConf); err == nil {
		t.Error("a server of another root was accepted")
	}
}

func TestSourceIsSafeForConcurrentUse(t *testing.T) {
	ca := pkitest.NewCA(t)
	pushed := pkitest.NewSource(ca.Leaf(t, "storage", named(storage)))
	src := spiffe.NewSource(pkitest.Open(t, rotation.Config{Source: pushed}))
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := src.GetX509SVID(); err != nil {
					t.Error(err)
					return
				}
				if _, err := src.GetX509BundleForTrustDomain(domain); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 20 {
		pushed.Push(t, ca.Leaf(t, "storage", named(storage)))
	}
	close(stop)
	readers.Wait()
}

// TestImportersPayNoGRPC asks the go command what an importer links.
func TestImportersPayNoGRPC(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("listing dependencies: %v\n%s", err, out)
	}
	deps := string(out)
	if !strings.Contains(deps, "github.com/spiffe/go-spiffe/v2/svid/x509svid\n") {
		t.Fatalf("the list is not one of dependencies:\n%s", deps)
	}
	for _, heavy := range []string{"google.golang.org/grpc", "github.com/spiffe/go-spiffe/v2/workloadapi", "github.com/go-jose/"} {
		if strings.Contains(deps, heavy) {
			t.Errorf("importing this package links %s", heavy)
		}
	}
}
