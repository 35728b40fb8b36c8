package enroll_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/secret"
)

func TestBackoff(t *testing.T) {
	hour := time.Hour
	for _, c := range []struct {
		name string
		r    enroll.Retry
		want time.Duration
	}{
		{"first", enroll.Retry{Failures: 1, Life: hour, Remaining: hour, U: 1}, time.Second},
		{"doubles", enroll.Retry{Failures: 4, Life: hour, Remaining: hour, U: 1}, 8 * time.Second},
		{"full jitter", enroll.Retry{Failures: 4, Life: hour, Remaining: hour, U: 0.25}, 2 * time.Second},
		{"ceiling life/8", enroll.Retry{Failures: 19, Life: hour, Remaining: hour, U: 1}, 450 * time.Second},
		{"half of it is certain", enroll.Retry{Failures: 19, Life: hour, Remaining: hour, U: 0}, 225 * time.Second},
		{"no overflow", enroll.Retry{Failures: 1 << 40, Life: hour, Remaining: hour, U: 1}, 450 * time.Second},
		{"ceiling 20 min", enroll.Retry{Failures: 50, Life: 30 * 24 * hour, Remaining: 24 * hour, U: 1}, 20 * time.Minute},
		{"within what remains", enroll.Retry{Failures: 50, Life: hour, Remaining: 80 * time.Second, U: 1}, 72 * time.Second},
		{"floor", enroll.Retry{Failures: 3, Life: hour, Remaining: time.Millisecond, U: 1}, 500 * time.Millisecond},
		{"floor of jitter", enroll.Retry{Failures: 1, Life: hour, Remaining: hour, U: 0}, 500 * time.Millisecond},
		{"short life", enroll.Retry{Failures: 9, Life: 10 * time.Second, Remaining: 5 * time.Second, U: 1}, 2 * time.Second},
		{"expired", enroll.Retry{Failures: 50, Life: hour, Remaining: -hour, U: 1}, 5 * time.Minute},
		{"expired, short life", enroll.Retry{Failures: 50, Life: 10 * time.Second, Remaining: -hour, U: 1}, 5 * time.Second},
		{"expired, long life", enroll.Retry{Failures: 50, Life: 30 * 24 * hour, Remaining: -hour, U: 1}, 5 * time.Minute},
		{"no certificate yet", enroll.Retry{Failures: 50, U: 1}, 5 * time.Minute},
		{"no certificate yet, and an operator may watch", enroll.Retry{Failures: 6, U: 1}, 32 * time.Second},
		{"no certificate yet, refused", enroll.Retry{Failures: 50, Slow: true, U: 1}, 30 * time.Second},
		{"Retry-After and jitter", enroll.Retry{Failures: 1, Life: hour, Remaining: hour, RetryAfter: time.Minute, U: 0.5}, time.Minute + 500*time.Millisecond},
		{"Retry-After would expire us", enroll.Retry{Failures: 1, Life: hour, Remaining: 20 * time.Minute, RetryAfter: hour, U: 0}, 10 * time.Minute},
		{"Retry-After when expired", enroll.Retry{Failures: 1, Life: hour, RetryAfter: 10 * hour, U: 0}, 5 * time.Minute},
		{"slow at once", enroll.Retry{Failures: 1, Life: hour, Remaining: hour, Slow: true, U: 1}, 3 * time.Minute},
		{"slow is half certain", enroll.Retry{Failures: 1, Life: hour, Remaining: hour, Slow: true, U: 0}, 90 * time.Second},
		{"slow within what remains", enroll.Retry{Failures: 1, Life: hour, Remaining: time.Minute, Slow: true, U: 1}, 30 * time.Second},
		{"slow when expired", enroll.Retry{Failures: 1, Life: 24 * hour, Remaining: -1, Slow: true, U: 1}, 5 * time.Minute},
	} {
		if got := c.r.Delay(); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestTicks(t *testing.T) {
	for life, want := range map[time.Duration]time.Duration{0: 30 * time.Second, 24 * time.Hour: 30 * time.Second, time.Minute: 6 * time.Second, time.Millisecond: 100 * time.Millisecond} {
		if got := enroll.Tick(life); got != want {
			t.Errorf("Tick(%v) = %v, want %v", life, got, want)
		}
	}
	for _, c := range []struct{ configured, life, want time.Duration }{
		{0, 24 * time.Hour, time.Hour}, {0, time.Hour, 10 * time.Minute}, {0, time.Second, time.Second}, {0, 0, time.Hour}, {time.Minute, time.Hour, time.Minute},
	} {
		if got := enroll.TrustEvery(c.configured, c.life); got != c.want {
			t.Errorf("TrustEvery(%v, %v) = %v, want %v", c.configured, c.life, got, c.want)
		}
	}
}

// TestDue expects that a task is due at its time, and also when the clock turns out to
// have been wrong.
func TestDue(t *testing.T) {
	set := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := set.Add(time.Hour)
	for d, want := range map[time.Duration]bool{0: false, 59 * time.Minute: false, time.Hour: true, 8 * time.Hour: true, -30 * time.Second: false, -time.Hour: true} {
		if got := enroll.AlarmDue(set, at, set.Add(d)); got != want {
			t.Errorf("due %v after planning = %v", d, got)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	ok := enroll.Config{URL: "https://ca.test", Dir: "d"}
	for want, change := range map[string]func(*enroll.Config){
		"no URL":                        func(c *enroll.Config) { c.URL = "" },
		"must start with https://":      func(c *enroll.Config) { c.URL = "http://ca.test" },
		"no directory":                  func(c *enroll.Config) { c.Dir = "" },
		"both Dir and InMemory":         func(c *enroll.Config) { c.InMemory = true },
		"no token source":               func(c *enroll.Config) { c.InMemory, c.Dir = true, "" },
		"unknown key type \"RSA-1024\"": func(c *enroll.Config) { c.KeyType = "RSA-1024" },
		"SHA-256 in hex":                func(c *enroll.Config) { c.RootFingerprint = "abcd" },
		"negative":                      func(c *enroll.Config) { c.Timeout = -1 },
	} {
		c := ok
		change(&c)
		if _, err := enroll.New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New: %v, want …%s…", err, want)
		}
	}
	if _, err := enroll.New(ok); err != nil {
		t.Error(err)
	}
}

func TestParseURL(t *testing.T) {
	for in, want := range map[string]string{
		"https://ca.test": "https://ca.test", "https://ca.test:8443/": "https://ca.test:8443", "https://[::1]:1/ca/": "https://[::1]:1/ca",
		"ca.test:8443": "", "https://": "", "https://:443": "", "https://u:hunter2@ca.test": "", "https://ca.test?x": "", "https://ca.test#x": "", "https://ca.test:x": "", "https://a b": "",
	} {
		got, err := enroll.ParseURL(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("ParseURL(%q) = %q, %v", in, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

func jwt(claims string) secret.String {
	return secret.New("e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln")
}

func TestParseToken(t *testing.T) {
	fp := strings.Repeat("ab", 32)
	subject, names, pinned, err := enroll.ParseToken(jwt(`{"sub":"a","sans":["a","::1"],"sha":"` + fp + `","aud":["x"]}`))
	if subject != "a" || !slices.Equal(names, []string{"a", "::1"}) || !pinned || err != nil {
		t.Errorf("got %q %q %v %v", subject, names, pinned, err)
	}
	if _, names, pinned, err = enroll.ParseToken(jwt(`{"sub":"a"}`)); !slices.Equal(names, []string{"a"}) || pinned || err != nil {
		t.Errorf("subject alone: %q %v %v", names, pinned, err)
	}
	for want, token := range map[string]secret.String{
		"not a JWT":        secret.New("a.b"),
		"not base64url":    secret.New("a.$.c"),
		"not the JSON":     jwt(`[]`),
		"no subject":       jwt(`{"sans":["a"]}`),
		"root fingerprint": jwt(`{"sub":"a","sha":"12"}`),
		"101 names":        jwt(`{"sub":"a","sans":["a"` + strings.Repeat(`,"a"`, 100) + `]}`),
		"longer than":      secret.New(strings.Repeat("a", 17<<10)),
	} {
		if _, _, _, err := enroll.ParseToken(token); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want …%s…", err, want)
		}
	}
}

// FuzzToken expects that any input gives claims with a subject and 1 to 100 names, or an
// error that quotes nothing of it. A CSR from accepted claims is refused, or has each
// name once, by kind.
func FuzzToken(f *testing.F) {
	f.Add("e30.eyJzdWIiOiJhIn0.c2ln")
	f.Add(jwt(`{"sub":"a","sans":["a","::1","spiffe://x/y"],"sha":"` + strings.Repeat("0f", 32) + `"}`).Expose())
	f.Add(jwt(`{"sub":"a","sans":["","a b","%zz://x"]}`).Expose())
	f.Add("...")
	f.Fuzz(func(t *testing.T, raw string) {
		subject, names, _, err := enroll.ParseToken(secret.New(raw))
		if err != nil {
			if len(raw) > 40 && strings.Contains(err.Error(), raw[:20]) {
				t.Errorf("the error quotes the token: %v", err)
			}
			return
		}
		if subject == "" || len(names) == 0 || len(names) > 100 {
			t.Fatalf("accepted without subject or names: %q %q", subject, names)
		}
		csr, err := enroll.Request("ed25519", subject, names)
		if err != nil {
			return
		}
		block, _ := pem.Decode(csr)
		got, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			return // crypto/x509 writes some odd names that it does not read; the authority refuses them
		}
		if n := len(got.DNSNames) + len(got.IPAddresses) + len(got.URIs); n != len(names) || len(got.EmailAddresses) > 0 {
			t.Errorf("%d names in the CSR for %q", n, names)
		}
	})
}

// FuzzFingerprint expects that an accepted fingerprint has 64 hex digits besides colons,
// dashes and space around it, and is the same in every spelling.
func FuzzFingerprint(f *testing.F) {
	f.Add(strings.Repeat("aB", 32))
	f.Add(" " + strings.Repeat("0f:", 31) + "0f\n")
	f.Add(strings.Repeat("0f-", 31) + "0f")
	f.Add("xyz")
	f.Fuzz(func(t *testing.T, s string) {
		sum, err := enroll.ParseFingerprint(s)
		if err != nil {
			if !errors.Is(err, enroll.ErrFingerprint) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		again, err := enroll.ParseFingerprint(strings.ToUpper(strings.ReplaceAll(strings.TrimSpace(s), ":", "")))
		if err != nil || again != sum {
			t.Errorf("%q: %v, %v", s, again, err)
		}
	})
}

// FuzzURL expects that an accepted URL is https with a host, without password, query or
// slash at its end, and is accepted again unchanged. Errors have no password.
func FuzzURL(f *testing.F) {
	f.Add("https://ca.test:8443/")
	f.Add("https://user:hunter2@ca.test")
	f.Add("https://[::1%25eth0]:1/a//")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := enroll.ParseURL(s)
		if err != nil {
			return
		}
		u, err := url.Parse(got)
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || strings.HasSuffix(got, "/") {
			t.Errorf("%q became %q", s, got)
		}
		if again, err := enroll.ParseURL(got); err != nil || again != got {
			t.Errorf("%q, %q, %v", got, again, err)
		}
	})
}

// FuzzRetryAfter expects that any header is a pause of 0 to 24 h.
func FuzzRetryAfter(f *testing.F) {
	f.Add("120", "")
	f.Add("Thu, 01 Jan 2026 00:01:00 GMT", "Thu, 01 Jan 2026 00:00:00 GMT")
	f.Add("-9223372036854775808", "x")
	f.Fuzz(func(t *testing.T, v, date string) {
		if d := enroll.RetryAfter(http.Header{"Retry-After": {v}, "Date": {date}}); d < 0 || d > 24*time.Hour {
			t.Errorf("%q, %q: %v", v, date, d)
		}
	})
}

func TestRequest(t *testing.T) {
	for kind, check := range map[enroll.KeyType]func(any) bool{
		"":         func(k any) bool { p, ok := k.(*ecdsa.PublicKey); return ok && p.Params().BitSize == 256 },
		"EC-P256":  func(k any) bool { p, ok := k.(*ecdsa.PublicKey); return ok && p.Params().BitSize == 256 },
		"EC-P384":  func(k any) bool { p, ok := k.(*ecdsa.PublicKey); return ok && p.Params().BitSize == 384 },
		"RSA-4096": func(k any) bool { p, ok := k.(*rsa.PublicKey); return ok && p.N.BitLen() == 4096 },
		"Ed25519":  func(k any) bool { _, ok := k.(ed25519.PublicKey); return ok },
		"RSA-3072": func(k any) bool { p, ok := k.(*rsa.PublicKey); return ok && p.N.BitLen() == 3072 },
	} {
		b, err := enroll.Request(kind, "svc", []string{"svc", "artstore_svc", "10.0.0.7", "::1", "spiffe://artstore/svc"})
		if err != nil {
			t.Fatal(err)
		}
		block, rest := pem.Decode(b)
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil || len(rest) > 0 || csr.CheckSignature() != nil || !check(csr.PublicKey) {
			t.Fatalf("%q: %v", kind, err)
		}
		ips := []net.IP{net.IPv4(10, 0, 0, 7), net.ParseIP("::1")}
		if csr.Subject.CommonName != "svc" || !slices.Equal(csr.DNSNames, []string{"svc", "artstore_svc"}) ||
			!slices.EqualFunc(csr.IPAddresses, ips, net.IP.Equal) ||
			!slices.EqualFunc(csr.URIs, []string{"spiffe://artstore/svc"}, func(u *url.URL, s string) bool { return u.String() == s }) {
			t.Errorf("%q: %v %v %v %v", kind, csr.Subject, csr.DNSNames, csr.IPAddresses, csr.URIs)
		}
	}
	for _, bad := range []string{"", "a b", "a@b", "a/b", "%zz://x", "жук"} {
		if _, err := enroll.Request("", "svc", []string{bad}); err == nil {
			t.Errorf("the name %q was accepted", bad)
		}
	}
}
