package ingestclient_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/logtest"
	"github.com/artstore/artstore-pki/secret"
)

// TestCanary lets both servers repeat everything that they get, in every part of an
// answer, and prints every value of the package with every verb. No secret is in the
// output.
func TestCanary(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	const password, token = "canary-secret-7f", "canary-token-9a"
	out := &logtest.Buffer{}
	say := func(vs ...any) {
		for _, v := range vs {
			fmt.Fprintf(out, "%v %+v %#v %s %q %x\n", v, v, v, v, v, v)
			if b, err := json.Marshal(v); err == nil {
				_, _ = out.Write(b)
			}
			func() { // as the runtime would print it
				defer func() { fmt.Fprintf(out, "%+v\n%s", recover(), debug.Stack()) }()
				panic(v)
			}()
		}
	}
	w := newServers(t, nil)
	var answer atomic.Int64 // a token request that Close has ended may still be at the server
	var assertions sync.Map
	w.cfg.TokenURL = w.serve(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if form, err := url.ParseQuery(string(body)); err == nil && form.Has("client_assertion") {
			assertions.Store(form.Get("client_assertion"), true)
		}
		status := int(answer.Load())
		if status == 0 {
			fmt.Fprintf(rw, `{"access_token":%q}`, token)
			return
		}
		rw.Header().Set("WWW-Authenticate", `Bearer error="`+password+`"`)
		rw.WriteHeader(status)
		fmt.Fprintf(rw, `{"error":%q,"error_description":%q,"detail":%q}`, password, body, body)
	})
	w.storage.before = func(rw http.ResponseWriter, r *http.Request) bool {
		auth := r.Header.Get("Authorization")
		code := 500
		if strings.Contains(r.URL.Path, "refuse") {
			code = 401
		}
		rw.WriteHeader(code)
		fmt.Fprintf(rw, `{"error":{"code":%q,"message":%q}}`, token, auth+" "+password[:0])
		return true
	}
	w.cfg.ClientSecret = fixedSecret(password)
	w.cfg.MaxAttempts = 2
	w.cfg.Logger = slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.cfg.Observer = ingestclient.Observer{
		Upload: func(_ time.Duration, _ int64, _ int, err error) { say(err) },
		Retry:  func(_ int, _ int64, err error) { say(err) },
		Token:  func(_ time.Duration, err error) { say(err) },
	}
	key := newKey(t)
	signing := w.cfg
	signing.ClientSecret, signing.ClientKey = nil, fixedKey(key, "kid")
	for i := range 10 {
		answer.Store([]int64{0, 401, 422, 500, 307}[i%5])
		cfg := w.cfg
		if i >= 5 {
			cfg = signing
		}
		c, err := ingestclient.NewWithFake(cfg, w.fake, mid)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Upload(t.Context(), ingestclient.BytesContent("a", content(10)), ingestclient.Meta{})
		say(err, c, c.Stats())
		_, err = c.Metadata(t.Context(), "refuse")
		say(err, c)
		w.fake.Set(w.generation(uint64(i + 100)))
		_ = c.Close()
		say(c)
	}
	s, _ := w.cfg.ClientSecret(t.Context())
	say(s, w.cfg, struct{ S secret.String }{s})
	scalar, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	canaries := []string{
		password, token, fmt.Sprintf("%x", password), fmt.Sprintf("%x", token),
		fmt.Sprintf("%x", scalar), new(big.Int).SetBytes(scalar).String(), base64.StdEncoding.EncodeToString(scalar),
	}
	signed := 0
	assertions.Range(func(a, _ any) bool {
		signed++
		canaries = append(canaries, a.(string), strings.Split(a.(string), ".")[2])
		return true
	})
	if signed == 0 {
		t.Error("nothing was signed: the test is blind")
	}
	for _, canary := range canaries {
		if i := strings.Index(out.String(), canary); i >= 0 {
			t.Errorf("%q is in the output: …%s…", canary, out.String()[max(0, i-300):i+40])
		}
	}
	if !strings.Contains(out.String(), "status 401") {
		t.Error("nothing was printed: the test is blind")
	}
}
