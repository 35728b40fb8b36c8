package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
)

// traced is a collector, a token endpoint and a Storage Element in one.
type traced struct {
	mu      sync.Mutex
	spans   map[string]string // parent's id and trace id, by name
	ids     map[string]string
	raw     []byte
	parents []string // traceparent of the requests, by path
}

func (c *traced) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r.URL.Path {
	case "/v1/traces":
		body, _ := io.ReadAll(r.Body)
		c.raw = append(c.raw, body...)
		var req collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &req); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for _, rs := range req.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					c.ids[s.Name] = fmt.Sprintf("%x-%x", s.TraceId, s.SpanId)
					c.spans[s.Name] = fmt.Sprintf("%x-%x", s.TraceId, s.ParentSpanId)
				}
			}
		}
	case "/api/v1/auth/token":
		c.parents = append(c.parents, "POST "+r.URL.Path+" "+r.Header.Get("traceparent"))
		_, _ = io.WriteString(w, `{"access_token":"canary-token","expires_in":60}`)
	case "/api/v1/files/upload":
		c.parents = append(c.parents, "POST "+r.URL.Path+" "+r.Header.Get("traceparent"))
		file, _, err := r.FormFile("file")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		content, _ := io.ReadAll(file)
		w.WriteHeader(http.StatusCreated)
		_, _ = fmt.Fprintf(w, `{"file_id":"a","file_size":%d,"checksum":"%x"}`, len(content), sha256.Sum256(content))
	}
}

// An upload is one trace: a span for the file, one for its request, whose id the
// Storage Element sees. The token request has its own. No secret is in either.
func TestUploadIsTraced(t *testing.T) {
	c := &traced{spans: map[string]string{}, ids: map[string]string{}}
	srv := httptest.NewServer(c)
	defer srv.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", srv.URL)
	path := filepath.Join(t.TempDir(), "scan.tif")
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	std := ui.Streams{In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: os.Getenv, Vars: func() []string {
		return []string{
			"TLS__ENABLED=false", "TLS__ALLOW_CLEARTEXT=true", "ADMIN_MODULE__BASE_URL=" + srv.URL, "STORAGE_ELEMENT__BASE_URL=" + srv.URL,
			"SERVICE_ACCOUNT__CLIENT_ID=sa", "SERVICE_ACCOUNT__CLIENT_SECRET=canary-secret",
		}
	}}
	if code := run(t.Context(), std, []string{"artstore-pki", "upload", path}); code != ui.ExitOK {
		t.Fatalf("status %d\n%s", code, errs.String())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	const request = "POST /api/v1/files/upload"
	if c.ids["upload"] == "" || c.spans[request] != c.ids["upload"] {
		t.Errorf("the request is no child of the upload: %v %v", c.ids, c.spans)
	}
	for _, line := range c.parents {
		at := strings.LastIndex(line, " ")
		if name, parent := line[:at], line[at+1:]; c.ids[name] == "" || parent != "00-"+c.ids[name]+"-01" {
			t.Errorf("%s came with traceparent %q, its span is %q", name, parent, c.ids[name])
		}
	}
	if len(c.parents) != 2 || bytes.Contains(c.raw, []byte("canary")) {
		t.Errorf("%d requests; a secret in the spans: %t", len(c.parents), bytes.Contains(c.raw, []byte("canary")))
	}
}
