package ingestclient_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
)

// fakeElements are several Storage Elements in memory, told apart by host, with a
// token endpoint and a registry, because a synctest bubble must not use sockets.
type fakeElements struct {
	fakeServers
	status   map[string]int // of an element's answers to uploads; 0 means 201, -1 that it is down
	info     map[string]string
	registry func() (int, string)
	uploads  []string // hosts, in the order they were asked
	lists    int
	deaf     map[string]bool // sends no 100 Continue
	health   []string        // hosts whose readiness was asked
}

func (f *fakeElements) generation(n uint64) ingestclient.FakeGeneration {
	g := f.fakeServers.generation(n)
	g.Storage, g.Token = fakeElementTransport{f}, fakeAdminTransport{f, g.Token}
	return g
}

type fakeAdminTransport struct {
	f     *fakeElements
	token http.RoundTripper
}

func (a fakeAdminTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPost {
		return a.token.RoundTrip(r)
	}
	a.f.mu.Lock()
	a.f.lists++
	registry := a.f.registry
	a.f.mu.Unlock()
	if r.Header.Get("Authorization") == "" {
		return reply(r, 401, "", nil), nil
	}
	status, body := registry()
	return reply(r, status, body, nil), nil
}

type fakeElementTransport struct{ f *fakeElements }

func (e fakeElementTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	f := e.f
	host := r.URL.Host
	if strings.HasSuffix(r.URL.Path, "/info") {
		f.mu.Lock()
		defer f.mu.Unlock()
		return reply(r, 200, f.info[host], nil), nil
	}
	f.mu.Lock()
	if r.URL.Path == "/health/ready" {
		f.health = append(f.health, host)
	}
	if r.Method == http.MethodPost {
		f.uploads = append(f.uploads, host)
	}
	status := f.status[host]
	f.mu.Unlock()
	if r.Body != nil {
		defer func() { _ = r.Body.Close() }()
	}
	if status == -1 {
		return nil, io.ErrUnexpectedEOF
	}
	if trace := httptrace.ContextClientTrace(r.Context()); trace != nil && r.Header.Get("Expect") != "" && !f.deaf[host] {
		trace.Got100Continue()
	}
	if r.Body != nil {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return nil, err
		}
	}
	switch status {
	case -2:
		return nil, io.ErrUnexpectedEOF // read completely, no answer
	case 409:
		return reply(r, status, `{"error":{"code":"MODE_NOT_ALLOWED"}}`, nil), nil
	case 0:
	default:
		return reply(r, status, "", nil), nil
	}
	return reply(r, 200, fmt.Sprintf(`{"file_id":"f1","size":1,"checksum":%q}`, hexSum([]byte("x"))), nil), nil
}

func (f *fakeElements) asked() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := strings.Join(f.uploads, " ")
	f.uploads = nil
	return s
}

func elementsConfig(elements []ingestclient.Element) ingestclient.Config {
	cfg := config()
	cfg.Elements = elements
	return cfg
}

// only is a list of one element.
func only(url string) []ingestclient.Element { return []ingestclient.Element{{URL: url}} }

var threeElements = []ingestclient.Element{{URL: "https://b", Priority: 200}, {URL: "https://a", Priority: 100}, {URL: "https://c", Priority: 300}}

func send(t *testing.T, c *ingestclient.Client, meta ingestclient.Meta) (*ingestclient.File, error) {
	t.Helper()
	return c.Upload(t.Context(), ingestclient.BytesContent("x", []byte("x")), meta)
}

// TestNextElement expects that the next element by priority is used if one cannot store
// the file.
func TestNextElement(t *testing.T) {
	for name, tc := range map[string]struct {
		status map[string]int
		asked  string
		at     string
		want   error
	}{
		"first":               {map[string]int{}, "a", "https://a", nil},
		"down":                {map[string]int{"a": -1}, "a b", "https://b", nil},
		"overloaded":          {map[string]int{"a": 503}, "a b", "https://b", nil},
		"full":                {map[string]int{"a": 507, "b": 507}, "a b c", "https://c", nil},
		"mode":                {map[string]int{"a": 409}, "a b", "https://b", nil},
		"all full":            {map[string]int{"a": 507, "b": 507, "c": 507}, "a b c", "", ingestclient.ErrFull},
		"full and down":       {map[string]int{"a": 507, "b": -1, "c": 507}, "a b c", "", ingestclient.ErrConnection},
		"ambiguous stays":     {map[string]int{"a": -2}, "a", "", ingestclient.ErrAmbiguous},
		"500 stays":           {map[string]int{"a": 500}, "a", "", ingestclient.ErrAmbiguous},
		"too small":           {map[string]int{"a": 413}, "a b", "https://b", nil},
		"all too small":       {map[string]int{"a": 413, "b": 413, "c": 413}, "a b c", "", ingestclient.ErrTooLarge},
		"small and full":      {map[string]int{"a": 413, "b": 507, "c": 0}, "a b c", "https://c", nil},
		"content is at fault": {map[string]int{"a": 422}, "a", "", ingestclient.ErrRejected},
		"forbidden":           {map[string]int{"a": 403}, "a", "", ingestclient.ErrForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeElements{status: tc.status}
				c := over(t, elementsConfig(threeElements), ingestclient.NewFakeIdentity(f.generation(1)))
				rec, err := send(t, c, ingestclient.Meta{})
				if asked := f.asked(); asked != tc.asked || !errors.Is(err, tc.want) || f.count() != 1 {
					t.Fatalf("asked %q with %d tokens: %v", asked, f.count(), err)
				}
				if err == nil && (rec.Element != tc.at || rec.Attempts != len(strings.Fields(tc.asked))) {
					t.Errorf("%+v", rec)
				}
				if e, ok := errors.AsType[*ingestclient.RequestError](err); ok && (e.Element == "" || e.Attempt != len(strings.Fields(tc.asked))) {
					t.Errorf("%+v", e)
				}
			})
		})
	}
}

// TestKeyedRetryStaysAtItsElement expects that a file with an id, sent completely and
// without an answer, is tried again at the element that may have it.
func TestKeyedRetryStaysAtItsElement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeElements{status: map[string]int{"a": -2}}
		cfg := elementsConfig(threeElements)
		cfg.MaxAttempts = 3
		c := over(t, cfg, ingestclient.NewFakeIdentity(f.generation(1)))
		_, err := send(t, c, ingestclient.Meta{IdempotencyKey: "k"})
		if asked := f.asked(); asked != "a a a" || !errors.Is(err, ingestclient.ErrAmbiguous) {
			t.Errorf("%q, %v", asked, err)
		}
	})
}

// TestDeadElementIsSpared expects that an element that is down gets one attempt for each
// pause, not one for each file.
func TestDeadElementIsSpared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeElements{status: map[string]int{"a": -1}}
		c := over(t, elementsConfig(threeElements), ingestclient.NewFakeIdentity(f.generation(1)))
		var sent atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 600 { // a minute
					if _, err := send(t, c, ingestclient.Meta{}); err != nil {
						t.Error(err)
					}
					sent.Add(1)
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		if n := strings.Count(" "+f.asked(), " a"); n > 16 || n < 4 {
			t.Errorf("a dead element was asked %d times for %d files", n, sent.Load())
		}
		f.set(func() { f.status["a"] = 0 })
		time.Sleep(time.Minute)
		for range 2 {
			if rec, err := send(t, c, ingestclient.Meta{}); err != nil || rec.Element != "https://a" {
				t.Errorf("back again, and not used: %+v, %v", rec, err)
			}
		}
		f.set(func() { f.status["a"] = 507 })
		_, _ = send(t, c, ingestclient.Meta{})
		f.asked()
		_, _ = send(t, c, ingestclient.Meta{})
		if asked := f.asked(); asked != "b" {
			t.Errorf("a full element was asked again at once: %q", asked)
		}
	})
}

// TestFreeSpaceDecides expects that of elements with one priority that with most free
// space is used.
func TestFreeSpaceDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeElements{info: map[string]string{
			"a": `{"mode":"rw","capacity":{"available_bytes":10}}`, "b": `{"mode":"rw","capacity_bytes":100,"used_bytes":5}`,
			"c": `{"mode":"ro","capacity_bytes":1000,"used_bytes":0}`, "d": `nonsense`,
		}}
		c := over(t, elementsConfig([]ingestclient.Element{{URL: "https://a"}, {URL: "https://b"}, {URL: "https://c"}, {URL: "https://d", Priority: 1}}), ingestclient.NewFakeIdentity(f.generation(1)))
		if _, err := send(t, c, ingestclient.Meta{}); err != nil { // free space is not known yet, and the upload does not wait for it
			t.Fatal(err)
		}
		synctest.Wait()
		f.asked()
		_, _ = send(t, c, ingestclient.Meta{})
		big, err := c.Upload(t.Context(), ingestclient.BytesContent("x", make([]byte, 200)), ingestclient.Meta{})
		if asked := f.asked(); asked != "b d" {
			t.Errorf("asked %q: %+v, %v", asked, big, err)
		}
	})
}

const (
	goList = `{"items":[{"id":"1","url":"https://a/","mode":"rw","status":"online","capacity_bytes":10,"used_bytes":9,"available_bytes":1},
		{"url":"https://b","mode":"rw","status":"online","available_bytes":5},{"url":"https://c","mode":"edit","status":"online"},
		{"url":"https://off","mode":"rw","status":"offline"},{"url":"http://plain","mode":"rw","status":"online"},{"url":"https://u:p@x","mode":"rw"}]}`
	pythonList = `{"storage_elements":[{"id":1,"element_id":null,"api_url":"https://a","mode":"edit","priority":200,"capacity_bytes":null,"used_bytes":0,"health_status":"healthy"},
		{"api_url":"https://b","mode":"edit","priority":100,"capacity_bytes":10,"used_bytes":1,"health_status":"healthy"},
		{"api_url":"https://c","mode":"rw","priority":1,"health_status":"unhealthy"}],"total":3}`
)

func TestDiscovery(t *testing.T) {
	for name, tc := range map[string]struct {
		list      string
		retention string
		at        string
		want      error
	}{
		"go, emptiest":          {goList, "permanent", "https://b", nil},
		"go, temporary is edit": {goList, "temporary", "https://c", nil},
		"python, by priority":   {pythonList, "", "https://b", nil},
		"nobody for it":         {pythonList, "permanent", "", ingestclient.ErrMode},
		"empty":                 {`{"items":[]}`, "", "", ingestclient.ErrRegistry},
		"not a list":            {`[]`, "", "", ingestclient.ErrRegistry},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeElements{registry: func() (int, string) { return 200, tc.list }}
				cfg := elementsConfig(nil)
				cfg.RegistryURL = "https://admin.test/api/v1/storage-elements?status=online"
				c := over(t, cfg, ingestclient.NewFakeIdentity(f.generation(1)))
				rec, err := send(t, c, ingestclient.Meta{Retention: tc.retention})
				if !errors.Is(err, tc.want) || err == nil && rec.Element != tc.at {
					t.Errorf("%+v, %v", rec, err)
				}
			})
		})
	}
}

func TestRegistryTroubles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var status atomic.Int64
		status.Store(503)
		list := atomic.Value{}
		list.Store(pythonList)
		f := &fakeElements{registry: func() (int, string) { return int(status.Load()), list.Load().(string) }}
		cfg := elementsConfig(nil)
		cfg.RegistryURL = "https://admin.test/list"
		c := over(t, cfg, ingestclient.NewFakeIdentity(f.generation(1)))
		for range 50 { // half a second: the failure is remembered
			if _, err := send(t, c, ingestclient.Meta{}); !errors.Is(err, ingestclient.ErrRegistry) {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if _, err := c.Metadata(t.Context(), "f1"); !errors.Is(err, ingestclient.ErrRegistry) || f.lists != 1 {
			t.Errorf("asked %d times: %v", f.lists, err)
		}
		time.Sleep(time.Minute)
		status.Store(200)
		if rec, err := send(t, c, ingestclient.Meta{}); err != nil || rec.Element != "https://b" {
			t.Fatalf("%+v, %v", rec, err)
		}
		// A registry that goes away later changes nothing.
		status.Store(401)
		time.Sleep(5 * time.Minute)
		before := f.lists
		if _, err := send(t, c, ingestclient.Meta{}); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if f.lists != before+2 { // a rejected token is replaced once
			t.Errorf("%d more requests", f.lists-before)
		}
		status.Store(200)
		list.Store(goList)
		time.Sleep(time.Minute)
		_, _ = send(t, c, ingestclient.Meta{})
		synctest.Wait()
		if rec, err := send(t, c, ingestclient.Meta{Retention: "temporary"}); err != nil || rec.Element != "https://c" {
			t.Errorf("the new list is not used: %+v, %v", rec, err)
		}
	})
}

func TestRegistryDoesNotHoldCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeElements{registry: func() (int, string) { time.Sleep(5 * time.Second); return 200, pythonList }}
		cfg := elementsConfig(nil)
		cfg.RegistryURL = "https://admin.test/list"
		c := over(t, cfg, ingestclient.NewFakeIdentity(f.generation(1)))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		begun := time.Now()
		if _, err := c.Upload(ctx, ingestclient.BytesContent("x", nil), ingestclient.Meta{}); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > 60*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		time.Sleep(6 * time.Second)
		if _, err := send(t, c, ingestclient.Meta{}); err != nil || f.lists != 1 {
			t.Errorf("%d lists: %v", f.lists, err)
		}
	})
}

// TestSearchAsksEveryElement expects that a file of one element is found, and that the
// error is not ErrNotFound if one element cannot be asked.
func TestSearchAsksEveryElement(t *testing.T) {
	for _, tc := range []struct {
		status map[string]int
		want   error
		at     string
	}{
		{map[string]int{"a": 404, "b": 404, "c": 0}, nil, "https://c"},
		{map[string]int{"a": -1, "b": 404, "c": 0}, nil, "https://c"},
		{map[string]int{"a": 404, "b": 404, "c": 404}, ingestclient.ErrNotFound, ""},
		{map[string]int{"a": -1, "b": 404, "c": 404}, ingestclient.ErrConnection, ""},
		{map[string]int{"a": 403, "b": 404, "c": 0}, ingestclient.ErrForbidden, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeElements{status: tc.status}
			c := over(t, elementsConfig(threeElements), ingestclient.NewFakeIdentity(f.generation(1)))
			rec, err := c.Metadata(t.Context(), "f1")
			if !errors.Is(err, tc.want) || err == nil && rec.Element != tc.at {
				t.Errorf("%v: %+v, %v", tc.status, rec, err)
			}
		})
	}
}

func TestWaysToNameElements(t *testing.T) {
	for want, change := range map[string]func(*ingestclient.Config){
		"exclude each other":             func(c *ingestclient.Config) { c.RegistryURL = "https://a" },
		"Elements is empty":              func(c *ingestclient.Config) { c.Elements = nil },
		"RegistryURL has no host":        func(c *ingestclient.Config) { c.Elements, c.RegistryURL = nil, "https:///x" },
		"Elements[0].URL is http":        func(c *ingestclient.Config) { c.Elements = only("http://a") },
		"Elements[0].URL must end":       func(c *ingestclient.Config) { c.Elements = only("https://a?b") },
		"Elements[1].URL is named twice": func(c *ingestclient.Config) { c.Elements = append(only("https://a"), only("https://a/")...) },
	} {
		cfg := config()
		change(&cfg)
		if err := ingestclient.Parse(cfg, true); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// A proxy that swallows Expect costs one question, and every upload goes on
// through it; an element that is not ready either is passed over.
func TestElementWithoutContinue(t *testing.T) {
	for ready, want := range map[int]string{0: "a a a a", -1: "a b b b"} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeElements{deaf: map[string]bool{"a": true}, status: map[string]int{"a": ready}}
			c := over(t, elementsConfig(threeElements), ingestclient.NewFakeIdentity(f.generation(1)))
			for range 3 {
				if _, err := send(t, c, ingestclient.Meta{}); err != nil {
					t.Error(err)
				}
			}
			if asked := f.asked(); asked != want || ready == 0 && len(f.health) != 1 {
				t.Errorf("asked %q, readiness of %q; want %q", asked, f.health, want)
			}
		})
	}
}
