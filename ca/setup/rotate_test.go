package setup_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca"
	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/damage"
	"github.com/artstore/artstore-pki/ca/setup"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/fattest"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
	"github.com/artstore/artstore-pki/secret"
)

// TestOfflineRootRotates: the root key is on a medium with a file system of its own, under a
// password of its own. Without the medium nothing is rotated; with it, the next intermediate has
// the limits of the last one.
func TestOfflineRootRotates(t *testing.T) {
	for _, kind := range append(fattest.Kinds(), "") {
		t.Run("on "+kind, func(t *testing.T) {
			medium := t.TempDir()
			if kind != "" && testing.Short() {
				t.Skip("it derives keys for seconds; -short leaves FAT out")
			}
			if kind != "" {
				medium = fattest.Mount(t, kind)
			}
			key, dir, rootPassword := filepath.Join(medium, "root.key"), filepath.Join(t.TempDir(), "ca"), filepath.Join(t.TempDir(), "pw")
			damage.File(t, rootPassword, []byte("another-root-battery\n"))
			_, err := setup.Init(t.Context(), setup.Options{
				Dir: dir, OfflineRoot: key, RootPassword: secret.New("another-root-battery"),
				Intermediate: setup.Certificate{KeyType: "EC-P384", Permit: []string{"localhost", "127.0.0.0/8", "::1"}},
			})
			if err != nil {
				t.Fatal(err)
			}
			rotate := func(opt ca.Options) (issuer string, err error) {
				opt.Dir = dir
				a, err := ca.Open(t.Context(), opt)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = a.Close() }()
				_, err = a.ChangeTrust(t.Context(), "test", stepapi.TrustChange{Step: stepapi.StepRotateIntermediate})
				return issues(t, a), err
			}
			first, err := rotate(ca.Options{})
			if !errors.Is(err, ca.ErrWrongPassword) || !strings.Contains(err.Error(), "the root has a password of its own") {
				t.Errorf("with the password of the other keys: %v", err)
			}
			if err := os.Rename(key, key+".away"); err != nil {
				t.Fatal(err)
			}
			if got, err := rotate(ca.Options{RootPasswordFile: rootPassword}); !errors.Is(err, os.ErrNotExist) || got != first {
				t.Errorf("without the medium: %s, %v", got, err)
			}
			if err := os.Rename(key+".away", key); err != nil {
				t.Fatal(err)
			}
			second, err := rotate(ca.Options{RootPasswordFile: rootPassword})
			if err != nil || second == first {
				t.Errorf("with the medium: %s, %v", second, err)
			}
			data, err := os.ReadFile(filepath.Join(dir, "certs", second+".crt"))
			if err != nil {
				t.Fatal(err)
			}
			chain, err := pemfile.Certificates(data)
			if err != nil || len(chain[0].PermittedDNSDomains) != 1 || chain[0].PermittedDNSDomains[0] != "localhost" {
				t.Errorf("the new intermediate permits %q, %v", chain[0].PermittedDNSDomains, err)
			}
		})
	}
}

// TestRotatesByRequest: an authority whose root somebody else holds gets its next intermediate from
// a request, and so does a new root of another holder.
func TestRotatesByRequest(t *testing.T) {
	root, other := holder(t), holder(t)
	dir, csr := request(t, setup.Options{})
	stolen := sign(t, root, csr, nil)
	if _, err := setup.Finish(dir, []*x509.Certificate{stolen, root.Cert}); err != nil {
		t.Fatal(err)
	}
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	take := func(change stepapi.TrustChange) (stepapi.TrustStatus, error) {
		return a.ChangeTrust(t.Context(), "test", change)
	}
	ask := func() *x509.CertificateRequest {
		t.Helper()
		status, err := take(stepapi.TrustChange{Step: stepapi.StepRequest})
		if err != nil {
			t.Fatal(err)
		}
		again, err := take(stepapi.TrustChange{Step: stepapi.StepRequest})
		if err != nil || again.Request != status.Request {
			t.Errorf("asked again, the request is another one: %v", err)
		}
		block, _ := pem.Decode([]byte(status.Request))
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return csr
	}
	signed := func(by cacert.Issuer, csr *x509.CertificateRequest, edit func(*x509.Certificate)) string {
		return string(pemfile.EncodeCertificates([]*x509.Certificate{sign(t, by, csr, edit), by.Cert}))
	}
	first := issues(t, a)
	if _, err := take(stepapi.TrustChange{Step: stepapi.StepRotateIntermediate, Signed: signed(root, csr, nil)}); !errors.Is(err, setup.ErrNoRequest) {
		t.Errorf("without a request: %v", err)
	}
	next := ask()
	for name, change := range map[string]stepapi.TrustChange{
		"a used request": {Step: stepapi.StepRotateIntermediate, Signed: signed(root, csr, nil)},
		"another root":   {Step: stepapi.StepRotateIntermediate, Signed: signed(other, next, nil)},
		"no CA":          {Step: stepapi.StepRotateIntermediate, Signed: signed(root, next, func(c *x509.Certificate) { c.IsCA, c.MaxPathLenZero = false, false })},
		"own names":      {Step: stepapi.StepRotateIntermediate, Signed: signed(root, next, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"elsewhere"} })},
		"the same root":  {Step: stepapi.StepAdd, Signed: signed(root, next, nil)},
		"no PEM":         {Step: stepapi.StepAdd, Signed: "x"},
	} {
		if _, err := take(change); err == nil {
			t.Errorf("%s was taken", name)
		} else if _, ok := errors.AsType[*ca.StepError](err); !ok {
			t.Errorf("%s: %v is no refusal of a step", name, err)
		}
	}
	rotation := stepapi.TrustChange{Step: stepapi.StepRotateIntermediate, Signed: signed(root, next, nil), DryRun: true}
	if _, err := take(rotation); err != nil || issues(t, a) != first {
		t.Errorf("dry run: %v", err)
	}
	rotation.DryRun = false
	if _, err := take(rotation); err != nil {
		t.Fatal(err)
	}
	second := issues(t, a)
	if _, err := os.Lstat(filepath.Join(dir, "request")); !errors.Is(err, os.ErrNotExist) || second == first {
		t.Errorf("rotated to %s, %v", second, err)
	}
	revokesByHolder(t, a, root, stolen)
	if _, err := take(stepapi.TrustChange{Step: stepapi.StepAdd, Signed: signed(other, ask(), nil)}); err != nil {
		t.Fatal(err)
	}
	if issues(t, a) != second {
		t.Error("a staged root signs")
	}
	status, err := take(stepapi.TrustChange{Step: stepapi.StepActivate})
	if err != nil || status.Roots[0].Fingerprint != certs.Fingerprint(other.Cert) || issues(t, a) == second {
		t.Errorf("activating: %v", err)
	}
}

// revokesByHolder revokes an intermediate with a list that the holder of its root has signed. Lists
// that do not name it, or that others have signed, are refused.
func revokesByHolder(t *testing.T, a *ca.Authority, root cacert.Issuer, stolen *x509.Certificate) {
	t.Helper()
	stranger := holder(t)
	revoked := func(by cacert.Issuer, serial *big.Int, number int64, edit func(*x509.RevocationList)) string {
		list := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour)}
		list.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: serial, RevocationTime: time.Now()}}
		if edit != nil {
			edit(list)
		}
		der, err := x509.CreateRevocationList(rand.Reader, list, by.Cert, by.Key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
	}
	serial := stolen.SerialNumber
	critical := func(l *x509.RevocationList) {
		l.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}} // deltaCRLIndicator
	}
	stale := func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(-time.Second) }
	for _, tc := range []struct{ signed, want string }{
		{revoked(stranger, serial, 1, nil), "it is not one of"},
		{revoked(root, big.NewInt(1), 1, nil), "it does not name"},
		{revoked(root, serial, 1, critical), "critical extension"},
		{revoked(root, serial, 1, stale), "not of today"},
		{"x", "want one revocation list"},
		{revoked(root, serial, 1, nil), ""},
		{revoked(root, serial, 2, nil), "it is revoked already"},
	} {
		_, err := a.ChangeTrust(t.Context(), "test", stepapi.TrustChange{Step: stepapi.StepRevokeIntermediate, Certificate: certs.Fingerprint(stolen), Signed: tc.signed})
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v, want %q", err, tc.want)
		}
	}
}

// TestRequestLeftBehind: a process that was killed after it had answered a request has left it. The
// next request has another key.
func TestRequestLeftBehind(t *testing.T) {
	root := holder(t)
	dir, csr := request(t, setup.Options{})
	left := copyOf(t, filepath.Join(dir, "request"))
	if _, err := setup.Finish(dir, []*x509.Certificate{sign(t, root, csr, nil), root.Cert}); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "request"), os.DirFS(left)); err != nil {
		t.Fatal(err)
	}
	a, err := ca.Open(t.Context(), ca.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	status, err := a.ChangeTrust(t.Context(), "test", stepapi.TrustChange{Step: stepapi.StepRequest})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(status.Request))
	if fresh, err := x509.ParseCertificateRequest(block.Bytes); err != nil || string(fresh.RawSubjectPublicKeyInfo) == string(csr.RawSubjectPublicKeyInfo) {
		t.Errorf("the next request has the key of the last one: %v", err)
	}
}

// issues has the authority issue a certificate to itself, verifies it, and returns the
// fingerprint of the issuer.
func issues(t *testing.T, a *ca.Authority) (issuer string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := a.Watch(ctx, func(id ca.ServerIdentity) error {
		defer cancel()
		c, err := x509.ParseCertificate(id.Certificate.Certificate[1])
		if err != nil {
			return err
		}
		issuer = certs.Fingerprint(c)
		middle := x509.NewCertPool()
		middle.AddCert(c)
		_, err = id.Certificate.Leaf.Verify(x509.VerifyOptions{Roots: certs.Pool(id.Roots...), Intermediates: middle, DNSName: "localhost"})
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return issuer
}
