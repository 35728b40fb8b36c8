package ca_test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ca/catest"
	"github.com/artstore/artstore-pki/internal/pemfile"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// revokedLists fetches the lists and verifies each by its issuer.
func revokedLists(t testing.TB, cl *client, tag string) (lists []*x509.RevocationList, status int, next string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, cl.url+"/1.0/revoked", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("If-None-Match", tag)
	resp, err := cl.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, resp.StatusCode, resp.Header.Get("ETag")
	}
	var body stepapi.RevokedResponse
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	for _, l := range body.Lists {
		issuer, err := pemfile.Certificates([]byte(l.Issuer))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode([]byte(l.CRL))
		if block == nil || block.Type != "X509 CRL" {
			t.Fatalf("not a list: %.60q", l.CRL)
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if err := list.CheckSignatureFrom(issuer[0]); err != nil {
			t.Error(err)
		}
		lists = append(lists, list)
	}
	return lists, resp.StatusCode, resp.Header.Get("ETag")
}

// A revocation by any process is in the lists as soon as it is committed. An unchanged
// answer is a 304, each intermediate in use has its list, and an expired certificate
// is on none.
func TestRevokedLists(t *testing.T) {
	t.Parallel()
	c := catest.Start(t, catest.Options{Profiles: profiles()})
	cl := newClient(t, c, nil)
	cert := enrol(t, c, "storage", "storage")
	lists, _, tag := revokedLists(t, cl, "")
	if len(lists) != 2 || len(lists[0].RevokedCertificateEntries) != 0 || tag == "" { // of the intermediate and of the root
		t.Fatalf("%d lists, tag %q", len(lists), tag)
	}
	for _, known := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
		if _, status, again := revokedLists(t, cl, known); status != http.StatusNotModified || again != tag {
			t.Errorf("If-None-Match %s: %d, tag %q", known, status, again)
		}
	}
	c.Revoke(t, expired(t, c, "storage", time.Minute, "storage").Leaf.SerialNumber.String())
	c.Revoke(t, cert.Leaf.SerialNumber.String())
	lists, status, changed := revokedLists(t, cl, tag)
	if status != http.StatusOK || changed == tag || len(lists[0].RevokedCertificateEntries) != 1 ||
		lists[0].RevokedCertificateEntries[0].SerialNumber.Cmp(cert.Leaf.SerialNumber) != 0 {
		t.Errorf("after a revocation: %d, %+v; want the one that has not expired", status, lists)
	}
	c.RotateIntermediate(t)
	lists, _, _ = revokedLists(t, cl, changed)
	if len(lists) != 3 || len(lists[0].RevokedCertificateEntries) != 0 || len(lists[1].RevokedCertificateEntries) != 1 {
		t.Errorf("after a rotation: %d lists", len(lists))
	}
}

// stepapi.MaxRevoked has room for as many revoked certificates as its comment says.
func TestRevokedAnswerSize(t *testing.T) {
	t.Parallel()
	const revoked = 100_000
	list := &x509.RevocationList{Number: big.NewInt(time.Now().UnixMicro()), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	serial := new(big.Int).Lsh(big.NewInt(1), 127) // 17 bytes in DER, like the longest of our serials
	for range revoked {
		serial = new(big.Int).Add(serial, big.NewInt(1))
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: time.Now(), ReasonCode: 1})
	}
	key := newKey(t)
	der, err := x509.CreateRevocationList(nil, list, &x509.Certificate{KeyUsage: x509.KeyUsageCRLSign, SubjectKeyId: []byte{1}}, key)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(stepapi.RevokedResponse{Lists: []stepapi.RevokedList{{CRL: string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(body) > stepapi.MaxRevoked/2 || len(body) < 6<<20 {
		t.Errorf("%d revoked: %d bytes of DER, %d of JSON, limit %d", revoked, len(der), len(body), stepapi.MaxRevoked)
	}
	t.Logf("%d revoked: %d bytes of DER, %d of JSON", revoked, len(der), len(body))
}
