package ingestclient_test

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
)

func TestConfigReportsEverythingAtOnce(t *testing.T) {
	good := config()
	if err := ingestclient.Parse(good, true); err != nil {
		t.Fatal(err)
	}
	bad := ingestclient.Config{
		TokenURL: "http://admin.test/token", Elements: only("https://user:pa55@storage.test"), ClientAuth: "magic",
		PoolSize: -1, TokenTimeout: -1, MaxAttempts: -1, MaxRetryAfter: -1, ResponseTimeout: -1, DefaultTokenLifetime: -1,
	}
	err := ingestclient.Parse(bad, false)
	for _, want := range []string{
		"TokenURL is http://", "AllowCleartext", "Elements[0].URL must not carry a user or password", "no identity", "ClientID is empty",
		`unknown ClientAuth "magic"`, "PoolSize is negative", "TokenTimeout is negative", "MaxAttempts is negative",
		"MaxRetryAfter is negative", "ResponseTimeout is negative", "DefaultTokenLifetime is negative",
	} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "pa55") {
		t.Errorf("the password is in %v", err)
	}
	if _, err := ingestclient.New(bad, nil); err == nil {
		t.Error("New took it")
	}
}

func TestConfigOneByOne(t *testing.T) {
	for name, tc := range map[string]struct {
		change   func(*ingestclient.Config)
		identity bool
		want     string // "" is good
	}{
		"cleartext by name": {func(c *ingestclient.Config) { c.TokenURL, c.AllowCleartext = "http://a", true }, true, ""},
		"all cleartext": {func(c *ingestclient.Config) {
			c.TokenURL, c.Elements, c.AllowCleartext = "http://a", only("http://b"), true
		}, false, ""},
		"https, no identity": {func(c *ingestclient.Config) { c.TokenURL, c.AllowCleartext = "http://a", true }, false, "no identity"},
		"no scheme":          {func(c *ingestclient.Config) { c.TokenURL = "admin.test/token" }, true, "must start with https://"},
		"no host":            {func(c *ingestclient.Config) { c.Elements = only("https:///x") }, true, "has no host"},
		"not a URL":          {func(c *ingestclient.Config) { c.Elements = only("https://%zz") }, true, "is not a URL"},
		"empty":              {func(c *ingestclient.Config) { c.Elements = only("") }, true, "Elements[0].URL is empty"},
		"query at storage":   {func(c *ingestclient.Config) { c.Elements[0].URL += "?a=b" }, true, "must end with its path"},
		"query at token":     {func(c *ingestclient.Config) { c.TokenURL += "?a=b" }, true, ""},
		"basic":              {func(c *ingestclient.Config) { c.ClientAuth = "basic" }, true, ""},
		"everything off": {func(c *ingestclient.Config) {
			c.StallTimeout, c.MinRate, c.ExpectFrom, c.TokenLag = ingestclient.Off, ingestclient.Off, ingestclient.Off, ingestclient.Off
		}, true, ""},
		"underscores in host": {func(c *ingestclient.Config) { c.TokenURL = "https://artstore_admin_module:8000/t" }, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config()
			tc.change(&cfg)
			err := ingestclient.Parse(cfg, tc.identity)
			if (err == nil) != (tc.want == "") || !strings.Contains(fmt.Sprint(err), tc.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestRetryPolicy(t *testing.T) {
	unauthorized := &ingestclient.RequestError{Err: ingestclient.ErrUnauthorized}
	again := &ingestclient.RequestError{Err: ingestclient.ErrServer, Retryable: true}
	final := &ingestclient.RequestError{Err: ingestclient.ErrTooLarge}
	repeat := func(e *ingestclient.RequestError, n int) (out []*ingestclient.RequestError) {
		for range n {
			out = append(out, e)
		}
		return out
	}
	cfg := config()
	cfg.MaxAttempts, cfg.TokenLag = 4, 0
	if got := ingestclient.Next(cfg, repeat(final, 3), 0); len(got) != 0 {
		t.Errorf("a final failure was repeated: %v", got)
	}
	if got := ingestclient.Next(cfg, repeat(again, 9), 0); len(got) != 3 {
		t.Errorf("4 attempts are 3 repeats, got %v", got)
	}
	var sum time.Duration
	got := ingestclient.Next(cfg, repeat(unauthorized, 99), 0)
	for _, d := range got {
		sum += d
	}
	if got[0] != 0 || sum != 15*time.Second {
		t.Errorf("401 waits %v, together %v", got, sum)
	}
	cfg.TokenLag = -1
	if got := ingestclient.Next(cfg, repeat(unauthorized, 9), 0); len(got) != 1 || got[0] != 0 {
		t.Errorf("without a lag: %v", got)
	}
}

func TestStatusTable(t *testing.T) {
	for status := 200; status < 600; status++ {
		safe, err := ingestclient.ByStatus(status, "", false)
		if err == nil {
			t.Fatalf("%d is no error", status)
		}
		if safe == ingestclient.Always && (status < 400 || status == 500 || status == 502 || status == 504) {
			t.Errorf("%d is repeated although it may be stored", status)
		}
		if status >= 500 && status != 503 && status != 507 && safe != ingestclient.Incomplete {
			t.Errorf("%d: %v", status, safe)
		}
	}
}

func TestErrorBodies(t *testing.T) {
	long := strings.Repeat("ж", 500)
	for _, tc := range []struct{ body, code, message string }{
		{``, "", ""},
		{`null`, "", ""},
		{`{"detail":"Invalid or expired token"}`, "", "Invalid or expired token"},
		{`{"detail":[{"type":"missing","loc":["body"],"msg":"Field required","input":"hunter2"}]}`, "", "Field required"},
		{`{"detail":[]}`, "", ""},
		{`{"detail":{"error":"rate_limit_exceeded","message":"slow down"}}`, "", "slow down"},
		{`{"error":"invalid_client"}`, "invalid_client", ""},
		{`{"error":"invalid_client","error_description":"no such client"}`, "invalid_client", "no such client"},
		{`{"error":"Something went wrong"}`, "", "Something went wrong"},
		{`{"error":{"code":"STORAGE_FULL","message":"Нет места"}}`, "STORAGE_FULL", "Нет места"},
		{`{"error":{"code":"two words","message":"x"}}`, "", "x"},
		{`{"message":"x"}`, "", "x"},
		{"Client sent an HTTP request to an HTTPS server.\n", "", "Client sent an HTTP request to an HTTPS server."},
		{"<html>502</html>", "", ""},
		{"{broken", "", ""},
		{"a\r\nb\x1b[31m\x00c", "", "a  b [31m c"},
		{`{"detail":"` + long + `"}`, "", strings.Repeat("ж", 200) + "…"},
		{`{"detail":"got ` + "eyJhbGciOiJSUzI1NiJ9" + "." + "eyJzdWIiOiJ4In0.c2lnbmF0dXJl" + `"}`, "", "got […]"},
	} {
		if code, message := ingestclient.ParseError([]byte(tc.body)); code != tc.code || message != tc.message {
			t.Errorf("%.60s: %q %q", tc.body, code, message)
		}
	}
}

func TestTokenAnswers(t *testing.T) {
	for _, tc := range []struct {
		body string
		life time.Duration
		want string // "" is good
	}{
		{`{"access_token":"a","expires_in":300}`, 300 * time.Second, ""},
		{`{"access_token":"a","expires_in":"300"}`, 300 * time.Second, ""},
		{`{"access_token":"a","expires_in":299.5,"token_type":"bearer"}`, 299500 * time.Millisecond, ""},
		{`{"access_token":"a"}`, 0, ""},
		{`{"access_token":"a","expires_in":null,"token_type":null}`, 0, ""},
		{`{"access_token":"a","expires_in":1e300}`, 24 * time.Hour, ""},
		{`{"access_token":"a","expires_in":1e999}`, 24 * time.Hour, ""},
		{`{"access_token":"a","expires_in":1e-12}`, time.Millisecond, ""},
		{`{"access_token":"a","expires_in":0}`, 0, "not positive"},
		{`{"access_token":"a","expires_in":-5}`, 0, "not positive"},
		{`{"access_token":"a","expires_in":""}`, 0, "not a number"},
		{`{"access_token":"a","expires_in":"NaN"}`, 0, "not a number"},
		{`{"access_token":"a","expires_in":"soon"}`, 0, "not a number"},
		{`{"access_token":"a","expires_in":[1]}`, 0, "not a number"},
		{`{"access_token":"a","token_type":"DPoP"}`, 0, "not Bearer"},
		{`{"access_token":""}`, 0, "no access_token"},
		{`{}`, 0, "no access_token"},
		{`[]`, 0, "not the JSON object"},
		{`<html>`, 0, "not the JSON object"},
		{`{"access_token":"a b"}`, 0, "characters"},
		{`{"access_token":"a\r\nX: y"}`, 0, "characters"},
		{`{"access_token":"` + strings.Repeat("a", 17<<10) + `"}`, 0, "longer than"},
	} {
		got, err := ingestclient.ParseToken([]byte(tc.body))
		if (err == nil) != (tc.want == "") || !strings.Contains(fmt.Sprint(err), tc.want) || got.Life != tc.life {
			t.Errorf("%.60s: %v, %v", tc.body, got.Life, err)
		}
	}
	got, err := ingestclient.ParseToken([]byte(fmt.Sprintf(`{"access_token":%q}`, boundTo(1, "x"))))
	if err != nil || !got.Known || !got.Cnf || got.X5T != "x" {
		t.Errorf("%+v, %v", got, err)
	}
	for token, known := range map[string]bool{"opaque": false, "a.b.c": false, "a.!.c": false, jwt(`{}`): true, jwt(`[]`): false} {
		if got, _ := ingestclient.ParseToken([]byte(fmt.Sprintf(`{"access_token":%q}`, token))); got.Known != known || got.Cnf {
			t.Errorf("%s: %+v", token, got)
		}
	}
}

func TestRetryAfterHeader(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "-1": 0, "x": 0, "99999999999999999999": 0,
		"Thu, 01 Jan 2026 00:01:00 GMT": time.Minute, "Wed, 31 Dec 2025 00:00:00 GMT": 0,
	} {
		if got := ingestclient.RetryAfter(http.Header{"Retry-After": {v}}, now); got != want {
			t.Errorf("%q: %v", v, got)
		}
	}
}

func TestBackoffBounds(t *testing.T) {
	for n := 1; n < 40; n++ {
		for _, u := range []float64{0, 0.5, 0.999} {
			soon := ingestclient.Backoff(&ingestclient.AuthError{Temporary: true}, n, u)
			late := ingestclient.Backoff(&ingestclient.AuthError{}, n, u)
			if soon < ingestclient.Spacing || soon > 30*time.Second || late < 5*time.Second || late > 2*time.Minute {
				t.Errorf("after %d failures: %v, %v", n, soon, late)
			}
		}
	}
	if d := ingestclient.Backoff(&ingestclient.AuthError{Temporary: true, RetryAfter: time.Hour}, 1, 0); d != 5*time.Minute {
		t.Errorf("Retry-After of an hour: %v", d)
	}
}

func TestErrorTexts(t *testing.T) {
	e := &ingestclient.RequestError{
		Op: "uploading", Name: "a.bin", Status: 413, Code: "FILE_TOO_LARGE", Message: "1 GiB at most",
		Err: errors.Join(ingestclient.ErrTooLarge, errors.New("x")),
	}
	if got := e.Error(); got != "uploading a.bin: status 413 FILE_TOO_LARGE (1 GiB at most): file too large: x" {
		t.Error(got)
	}
	a := &ingestclient.AuthError{Status: 401, Code: "invalid_client", Err: ingestclient.ErrCredentials}
	if got := a.Error(); got != "fetching a token: status 401 invalid_client: credentials refused" {
		t.Error(got)
	}
}

// TestDefaultsAreWhatZeroMeans compares Defaults with what a field of 0 does, for each
// field.
func TestDefaultsAreWhatZeroMeans(t *testing.T) {
	cfg, defaults := config(), reflect.ValueOf(ingestclient.Defaults())
	filled, given := reflect.ValueOf(ingestclient.Filled(cfg)), reflect.ValueOf(cfg)
	for i := range defaults.NumField() {
		name := defaults.Type().Field(i).Name
		if defaults.Field(i).IsZero() || !given.Field(i).IsZero() {
			continue
		}
		if got := filled.Field(i).Interface(); !reflect.DeepEqual(got, defaults.Field(i).Interface()) {
			t.Errorf("%s is filled with %v, and Defaults has %v", name, got, defaults.Field(i))
		}
	}
	for _, name := range []string{"PoolSize", "TokenTimeout", "ResponseTimeout", "StallTimeout", "MinRate", "ExpectFrom", "MaxAttempts", "MaxRetryAfter", "TokenLag", "DefaultTokenLifetime"} {
		if defaults.FieldByName(name).IsZero() {
			t.Errorf("Defaults has no %s", name)
		}
	}
}
