package ingestclient_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
)

// TestProbeOfRealElements expects that both kinds of element answer a probe with what is
// wrong, and store nothing.
func TestProbeOfRealElements(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	for _, dialect := range []string{"python", "go"} {
		for name, tc := range map[string]struct {
			opt   ingesttest.Options
			fault int // status of uploads
			want  error
		}{
			"good":      {},
			"edit":      {opt: ingesttest.Options{Mode: "edit"}},
			"read only": {opt: ingesttest.Options{Mode: "ro"}, want: ingestclient.ErrMode},
			"archive":   {opt: ingesttest.Options{Mode: "ar"}, want: ingestclient.ErrMode},
			"full":      {opt: ingesttest.Options{Capacity: 4}, want: ingestclient.ErrFull},
			"says full": {fault: 507, want: ingestclient.ErrFull},
			"failing":   {fault: 500, want: ingestclient.ErrServer},
			"rejecting": {fault: 401, want: ingestclient.ErrUnauthorized},
		} {
			t.Run(dialect+"/"+name, func(t *testing.T) {
				tc.opt.Dialect = dialect
				s := ingesttest.Start(t, tc.opt)
				c, err := ingestclient.New(s.Config(), s.Identity)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = c.Close() }()
				if tc.opt.Capacity > 0 {
					if _, err := c.Upload(t.Context(), ingestclient.BytesContent("f", []byte("1234")), ingestclient.Meta{}); err != nil {
						t.Fatal(err)
					}
				}
				if tc.fault != 0 {
					s.SetFaults(t, ingesttest.Fault{Kind: "status", Status: tc.fault})
				}
				before := len(s.Files())
				err = c.Probe(t.Context(), s.StorageURL+"/")
				if (tc.want == nil) != (err == nil) || tc.want != nil && !errors.Is(err, tc.want) {
					t.Errorf("%v, want %v", err, tc.want)
				}
				var e *ingestclient.RequestError
				if err != nil && (!errors.As(err, &e) || e.Element != s.StorageURL || e.Op != "probing") {
					t.Errorf("%+v", e)
				}
				if got := len(s.Files()); got != before {
					t.Errorf("%d files are stored, %d were before", got, before)
				}
			})
		}
	}
}

// answers are what an element says to each question, "" for what a good one says.
type answers struct{ ready, info, lookup, upload string }

func (a answers) of(req *http.Request, token string) (status int, body string) {
	text, good := a.lookup, `404 {"detail":"File not found"}`
	switch {
	case req.URL.Path == "/health/ready":
		text, good = a.ready, `200 {"status":"ready"}`
	case req.URL.Path == "/api/v1/info":
		text, good = a.info, `200 {"mode":"rw"}`
	case req.Method == http.MethodPost:
		text, good = a.upload, `422 {"detail":[{"msg":"Field required"}]}`
	}
	if strings.HasPrefix(req.URL.Path, "/api/v1/files/") != (token != "") {
		return 418, "a token where none belongs, or none where one does"
	}
	if text == "" {
		text = good
	}
	_, _ = fmt.Sscan(text, &status)
	_, body, _ = strings.Cut(text, " ")
	return status, body
}

// TestProbeAnswers expects the meaning of each answer to each question.
func TestProbeAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		answers
		want error
		text string
	}{
		"good":                  {answers{}, nil, ""},
		"no info":               {answers{info: "404 {}"}, nil, ""},
		"Go's missing file":     {answers{upload: `400 {"error":{"code":"VALIDATION_ERROR"}}`}, nil, ""},
		"not ready":             {answers{ready: `503 {"status":"not_ready"}`}, ingestclient.ErrUnavailable, "status 503"},
		"not ready, full":       {answers{ready: `503 {"checks":{"fs":"no space left on device"}}`}, ingestclient.ErrFull, "not ready"},
		"certificate forbidden": {answers{ready: `403 {}`}, ingestclient.ErrForbidden, "status 403"},
		"no health":             {answers{ready: `404 {}`}, ingestclient.ErrUnavailable, "status 404"},
		"mode":                  {answers{info: `200 {"mode":"ro"}`}, ingestclient.ErrMode, "ro"},
		"no space":              {answers{info: `200 {"mode":"rw","capacity_bytes":9,"used_bytes":9}`}, ingestclient.ErrFull, ""},
		"rejected":              {answers{lookup: `401 {}`}, ingestclient.ErrUnauthorized, ""},
		"rejected for uploads":  {answers{upload: `401 {}`}, ingestclient.ErrUnauthorized, ""},
		"no files:read":         {answers{lookup: `403 {}`}, ingestclient.ErrForbidden, "files:read"},
		"no files:write":        {answers{upload: `403 {}`}, ingestclient.ErrForbidden, "files:write"},
		"knows every id":        {answers{lookup: `200 {}`}, ingestclient.ErrAnswer, "made up"},
		"took nothing":          {answers{upload: `201 {}`}, ingestclient.ErrAnswer, "without a file"},
		"took nothing, 200":     {answers{upload: `200 {}`}, ingestclient.ErrAnswer, "without a file"},
		"another server":        {answers{upload: `404 {}`}, ingestclient.ErrRejected, "no file API"},
		"mode at the upload":    {answers{upload: `400 {"detail":"File upload not allowed in ro mode"}`}, ingestclient.ErrMode, ""},
		"mode of Go":            {answers{upload: `409 {"error":{"code":"MODE_NOT_ALLOWED"}}`}, ingestclient.ErrMode, ""},
		"full at the upload":    {answers{upload: `507 {}`}, ingestclient.ErrFull, ""},
		"failing":               {answers{upload: `500 {}`}, ingestclient.ErrServer, ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := &fakeServers{storage: tc.of}
			c := over(t, config(), ingestclient.NewFakeIdentity(e.generation(1)))
			err := c.Probe(t.Context(), "https://storage.test")
			if (tc.want == nil) != (err == nil) || tc.want != nil && (!errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text)) {
				t.Errorf("%v", err)
			}
			if st := c.Stats(); strings.HasPrefix(name, "rejected") != (st.TokenFetches == 2) {
				t.Errorf("%d tokens", st.TokenFetches)
			}
		})
	}
}

func TestProbeGoesNowhereElse(t *testing.T) {
	e := &fakeServers{}
	c := over(t, config(), ingestclient.NewFakeIdentity(e.generation(1)))
	if err := c.Probe(t.Context(), "https://elsewhere.test"); !errors.Is(err, ingestclient.ErrRejected) || len(e.seen) != 0 {
		t.Errorf("%v, tokens %q", err, e.seen)
	}
	e.status = 401
	if err := c.Probe(t.Context(), "https://storage.test"); !errors.Is(err, ingestclient.ErrCredentials) {
		t.Errorf("no token: %v", err)
	}
	_ = c.Close()
	if err := c.Probe(t.Context(), "https://storage.test"); !errors.Is(err, ingestclient.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := c.Elements(t.Context()); !errors.Is(err, ingestclient.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// TestElementsInTheOrderOfUploads expects that an avoided element comes last until a
// probe succeeds.
func TestElementsInTheOrderOfUploads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeElements{status: map[string]int{"a": -1}}
		c := over(t, elementsConfig(threeElements), ingestclient.NewFakeIdentity(f.generation(1)))
		order := func(want string) {
			t.Helper()
			all, err := c.Elements(t.Context())
			var got string
			for _, e := range all {
				got += fmt.Sprintf("%s %d ", strings.TrimPrefix(e.URL, "https://"), e.Priority)
			}
			if err != nil || got != want {
				t.Errorf("%q, want %q: %v", got, want, err)
			}
		}
		order("a 100 b 200 c 300 ")
		if _, err := send(t, c, ingestclient.Meta{}); err != nil {
			t.Fatal(err)
		}
		order("b 200 c 300 a 100 ")
		if err := c.Probe(t.Context(), "https://a"); !errors.Is(err, ingestclient.ErrConnection) {
			t.Errorf("probe of one that is down: %v", err)
		}
	})
	e := &fakeServers{storage: answers{}.of}
	cfg := config()
	cfg.Elements = append(cfg.Elements, ingestclient.Element{URL: "https://b", Priority: 1})
	var down atomic.Bool // the renewal of the list reads it too
	down.Store(true)
	e.storage = func(r *http.Request, token string) (int, string) {
		if down.Load() {
			return 503, ""
		}
		return answers{}.of(r, token)
	}
	c := over(t, cfg, ingestclient.NewFakeIdentity(e.generation(1)))
	first := func() string {
		all, err := c.Elements(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return all[0].URL
	}
	if err := c.Probe(t.Context(), "https://storage.test"); !errors.Is(err, ingestclient.ErrUnavailable) || first() != "https://b" {
		t.Errorf("%v, %s is first", err, first())
	}
	down.Store(false)
	if err := c.Probe(t.Context(), "https://storage.test"); err != nil || first() != "https://storage.test" {
		t.Errorf("%v, %s is first", err, first())
	}
}

// TestElementsWhileTheirListIsRenewed expects that an old list is read again in the
// background, while its elements are used.
func TestElementsWhileTheirListIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := over(t, elementsConfig(threeElements), ingestclient.NewFakeIdentity((&fakeElements{}).generation(1)))
		for range 200 {
			time.Sleep(time.Minute)
			for range 4 {
				if all, err := c.Elements(t.Context()); err != nil || len(all) != 3 {
					t.Fatal(all, err)
				}
			}
		}
	})
}

// TestRejectedByAClock expects that a 401 that a wrong clock explains says which clock,
// for a probe and for an upload, and that any other 401 does not.
func TestRejectedByAClock(t *testing.T) {
	for name, tc := range map[string]struct {
		issuer, element time.Duration // ahead of ours
		life            time.Duration
		want, not       string
		slow            time.Duration // each answer
	}{
		"all right":       {0, 0, 300 * time.Second, `rejected by the storage element$`, "clock", 0},
		"a little off":    {3 * time.Second, 0, 300 * time.Second, `rejected by the storage element$`, "clock", 0},
		"issuer fast":     {120 * time.Second, 0, 300 * time.Second, `valid from .* the clock of the token endpoint is 2m0s ahead of ours$`, "element is 2m", 0},
		"element slow":    {0, -120 * time.Second, 300 * time.Second, `valid from .* the clock of the storage element is 2m0s behind ours$`, "endpoint is", 0},
		"element fast":    {0, 120 * time.Second, 60 * time.Second, `expired at .* the clock of the storage element is 2m0s ahead of ours$`, "endpoint is", 0},
		"issuer slow":     {-120 * time.Second, 0, 60 * time.Second, `expired at .* the clock of the token endpoint is 2m0s behind ours$`, "element is 2m", 0},
		"ours is slow":    {120 * time.Second, 120 * time.Second, 300 * time.Second, `rejected by the storage element$`, "clock", 0},
		"three clocks":    {60 * time.Second, -60 * time.Second, 300 * time.Second, `storage element is 1m0s behind ours; the clock of the token endpoint is 1m0s ahead of ours$`, "x", 0},
		"slow answers":    {0, -120 * time.Second, 300 * time.Second, `valid from .* the clock of the storage element is 1m52s behind ours$`, "endpoint is", 8 * time.Second},
		"no date to read": {120 * time.Second, 1 << 62, 300 * time.Second, `rejected by the storage element$`, "clock", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &fakeServers{life: fmt.Sprint(tc.life.Seconds()), latency: tc.slow, token: func(int, string) string {
					at := time.Now().Add(tc.issuer)
					return jwt(fmt.Sprintf(`{"iat":%d,"nbf":%d,"exp":%d,"aud":"canary"}`, at.Unix(), at.Unix(), at.Add(tc.life).Unix()))
				}}
				g := e.generation(1)
				g.Storage = dated{tc.element, tc.slow}
				c := over(t, config(), ingestclient.NewFakeIdentity(g))
				_, uploaded := c.Upload(t.Context(), ingestclient.BytesContent("a", []byte("x")), ingestclient.Meta{})
				for what, err := range map[string]error{"upload": uploaded, "probe": c.Probe(t.Context(), "https://storage.test")} {
					text := fmt.Sprint(err)
					if !errors.Is(err, ingestclient.ErrUnauthorized) || !regexp.MustCompile(tc.want).MatchString(text) || strings.Contains(text, tc.not) {
						t.Errorf("%s: %v", what, err)
					}
					if errors.Is(err, ingestclient.ErrClock) != strings.Contains(text, "clock of") || strings.Contains(text, "\n") || strings.Contains(text, "e30.") {
						t.Errorf("%s: %v", what, err)
					}
				}
			})
		})
	}
}

// dated is an element that rejects every token, by a clock of its own.
type dated struct{ ahead, slow time.Duration }

func (d dated) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
	}
	time.Sleep(d.slow)
	h := http.Header{}
	if d.ahead < 1<<61 {
		h.Set("Date", time.Now().Add(d.ahead).UTC().Format(http.TimeFormat))
	}
	status := http.StatusUnauthorized
	if r.Header.Get("Authorization") == "" {
		status = http.StatusOK
	}
	return reply(r, status, "", h), nil
}

// TestDatesOfAnyType expects that claims of a wrong type count as no dates and do not
// hide the binding.
func TestDatesOfAnyType(t *testing.T) {
	for _, claims := range []string{
		`"iat":"yesterday","nbf":{},"exp":[]`, `"iat":-5,"nbf":1e300,"exp":null`, `"iat":true,"nbf":0.5,"exp":1e-9`,
	} {
		got, err := ingestclient.ParseToken([]byte(`{"access_token":"` + jwt(`{`+claims+`,"cnf":{"x5t#S256":"t"}}`) + `"}`))
		if err != nil || !got.Known || !got.Cnf || got.X5T != "t" {
			t.Errorf("%s: %+v, %v", claims, got, err)
		}
	}
}

// TestProbeEndsWithItsCaller expects that a probe ends with the context of its caller.
func TestProbeEndsWithItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeServers{latency: time.Hour}
		c := over(t, config(), ingestclient.NewFakeIdentity(e.generation(1)))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Probe(ctx, "https://storage.test"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}
