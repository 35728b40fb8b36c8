package stepapi_test

import (
	"crypto/x509"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/internal/stepapi"
)

func root(name string) *x509.Certificate { return &x509.Certificate{Raw: []byte(name)} }

func TestTrustDigest(t *testing.T) {
	a, b, c := root("a"), root("b"), root("c")
	want := stepapi.TrustDigest([]*x509.Certificate{a, b, c})
	if len(want) != 64 || strings.ToLower(want) != want {
		t.Errorf("%q is not a SHA-256 in lower-case hex", want)
	}
	for _, same := range [][]*x509.Certificate{{c, b, a}, {b, a, c, a}, {b, b, a, a, c, c}} {
		if got := stepapi.TrustDigest(same); got != want {
			t.Error("order or repetition changed the digest")
		}
	}
	seen := map[string]bool{want: true}
	for _, other := range [][]*x509.Certificate{nil, {a}, {b}, {a, b}, {root("ab")}, {a, b, root("d")}} {
		if d := stepapi.TrustDigest(other); seen[d] {
			t.Errorf("two sets share the digest %s", d)
		} else {
			seen[d] = true
		}
	}
}

// The digest is on the wire: two versions of the project must agree on it.
func TestTrustDigestIsStable(t *testing.T) {
	// sha256 over the sorted sha256("a") and sha256("b"), computed elsewhere.
	if got := stepapi.TrustDigest([]*x509.Certificate{root("a"), root("b")}); got != "18d79cb747ea174c59f3a3b41768672526d56fecc58360a99d283d0f9b0a3cc0" {
		t.Errorf("two roots: %s", got)
	}
	if got := stepapi.TrustDigest(nil); got != "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" {
		t.Errorf("empty set: %s", got)
	}
}

// The names of the JSON members are those of step CLI v0.30.
func TestWireNames(t *testing.T) {
	for want, v := range map[string]any{
		`{"csr":"c","ott":"o"}`:                                stepapi.SignRequest{CSR: "c", OTT: "o"},
		`{"csr":"c","ott":"o","notBefore":"b","notAfter":"a"}`: stepapi.SignRequest{CSR: "c", OTT: "o", NotBefore: "b", NotAfter: "a"},
		`{"csr":"c"}`: stepapi.RekeyRequest{CSR: "c"},
		`{"crt":"c","ca":"i","certChain":["c","i"]}`:                          stepapi.SignResponse{Certificate: "c", CA: "i", Chain: []string{"c", "i"}},
		`{"serial":"7","reasonCode":0,"passive":true}`:                        stepapi.RevokeRequest{Serial: "7", Passive: true},
		`{"serial":"7","ott":"o","reasonCode":4,"reason":"r","passive":true}`: stepapi.RevokeRequest{Serial: "7", OTT: "o", ReasonCode: 4, Reason: "r", Passive: true},
		`{"status":"ok"}`:               stepapi.RevokeResponse{Status: "ok"},
		`{"ca":"p"}`:                    stepapi.RootResponse{CA: "p"},
		`{"crts":["p"]}`:                stepapi.RootsResponse{Certificates: []string{"p"}},
		`{"status":401,"message":"no"}`: stepapi.Error{Status: 401, Message: "no"},
	} {
		if got, err := json.Marshal(v); err != nil || string(got) != want {
			t.Errorf("%T: %s, %v; want %s", v, got, err, want)
		}
	}
}

// FuzzTrustDigest: a set has one digest, in whatever order and however often
// its members are given, and another set has another.
func FuzzTrustDigest(f *testing.F) {
	f.Add([]byte("a\x00b\x00c"), uint64(1))
	f.Add([]byte(""), uint64(2))
	f.Fuzz(func(t *testing.T, raw []byte, seed uint64) {
		var set []*x509.Certificate
		for part := range strings.SplitSeq(string(raw), "\x00") {
			set = append(set, root(part))
		}
		want := stepapi.TrustDigest(set)
		r := rand.New(rand.NewPCG(seed, 0))
		shuffled := append(append([]*x509.Certificate(nil), set...), set[r.IntN(len(set))])
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if got := stepapi.TrustDigest(shuffled); got != want {
			t.Error("order or repetition changed the digest")
		}
		if stepapi.TrustDigest(append(set, root(string(raw)+"\x00x"))) == want {
			t.Error("one more root, the same digest")
		}
	})
}

// The value is that of "openssl dgst -sha256 -binary | basenc --base64url" without padding.
func TestRequestFingerprint(t *testing.T) {
	if got := stepapi.RequestFingerprint([]byte("abc")); got != "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0" {
		t.Error(got)
	}
}
