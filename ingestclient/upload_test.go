package ingestclient_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
)

func content(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

func file(t testing.TB, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "данные \"1\".bin")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func TestUploadBothDialects(t *testing.T) {
	for _, golang := range []bool{false, true} {
		for _, size := range []int{0, 1, 70_000, 3 << 20} {
			t.Run(fmt.Sprintf("go=%v/%d", golang, size), func(t *testing.T) {
				w := newServers(t, nil)
				w.storage.golang = golang
				b := content(size)
				var last, total int64
				rec, err := w.c.UploadFile(t.Context(), file(t, b), ingestclient.Meta{
					Description: "a\r\nb", Version: "2", Tags: []string{"x", "y"}, ContentType: "image/x\r\nEvil: 1",
					Progress: func(s, n int64) { last, total = s, n },
				})
				if err != nil {
					t.Fatal(err)
				}
				got := w.storage.only(t)
				if !bytes.Equal(got.content, b) || rec.SHA256 != hexSum(b) || rec.Size != int64(size) || rec.Attempts != 1 || rec.Replayed {
					t.Errorf("stored %d bytes, receipt %+v", len(got.content), rec)
				}
				if got.name != `данные %221%22.bin` || got.description != "a\r\nb" || got.version != "2" || got.tags != `["x","y"]` || got.contentType != "image/xEvil: 1" {
					t.Errorf("form came in as %+v", got)
				}
				if w.storage.length <= int64(size) || w.storage.length > int64(size)+2000 {
					t.Errorf("Content-Length %d for %d bytes", w.storage.length, size)
				}
				if expect := w.storage.header.Get("Expect") != ""; expect != (size >= 1<<20) {
					t.Errorf("Expect sent: %v", expect)
				}
				if size > 0 && (last != int64(size) || total != last) {
					t.Errorf("progress ended at %d of %d", last, total)
				}
			})
		}
	}
}

func TestDownloadAndMetadata(t *testing.T) {
	w := newServers(t, nil)
	b := content(100_000)
	rec, err := w.c.Upload(t.Context(), ingestclient.BytesContent("dir/a.bin", b), ingestclient.Meta{})
	if err != nil {
		t.Fatal(err)
	}
	meta, err := w.c.Metadata(t.Context(), rec.FileID)
	if err != nil || meta.SHA256 != rec.SHA256 || meta.Size != rec.Size || meta.Name != "a.bin" {
		t.Errorf("%+v, %v", meta, err)
	}
	var out bytes.Buffer
	got, err := w.c.Download(t.Context(), rec.FileID, &out)
	if err != nil || got.SHA256 != rec.SHA256 || !bytes.Equal(out.Bytes(), b) {
		t.Errorf("%+v, %v", got, err)
	}
	full := errors.New("disk full")
	if _, err := w.c.Download(t.Context(), rec.FileID, badWriter{full}); !errors.Is(err, full) {
		t.Errorf("a writer's failure: %v", err)
	}
	for _, id := range []string{"0000-9", "", "../x", "a/b", "..", strings.Repeat("x", 200)} {
		if _, err := w.c.Metadata(t.Context(), id); !errors.Is(err, ingestclient.ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
		if _, err := w.c.Download(t.Context(), id, io.Discard); !errors.Is(err, ingestclient.ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

type badWriter struct{ err error }

func (w badWriter) Write([]byte) (int, error) { return 0, w.err }

// TestEarlyAnswers expects that an answer during the body ends the sending, and that
// nothing reads the file after that.
func TestEarlyAnswers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	for _, tc := range []struct {
		status int
		body   string
		want   error
		code   string
	}{
		{413, `{"error":{"code":"FILE_TOO_LARGE","message":"Файл больше 1 ГиБ"}}`, ingestclient.ErrTooLarge, "FILE_TOO_LARGE"},
		{507, `{"error":{"code":"STORAGE_FULL","message":"full"}}`, ingestclient.ErrFull, "STORAGE_FULL"},
		{403, `{"error":{"code":"FORBIDDEN","message":"scope"}}`, ingestclient.ErrForbidden, "FORBIDDEN"},
		{409, `{"error":{"code":"MODE_NOT_ALLOWED","message":"ro"}}`, ingestclient.ErrMode, "MODE_NOT_ALLOWED"},
		{400, `{"detail":"File upload not allowed in ro mode"}`, ingestclient.ErrMode, ""},
		{400, `{"detail":"bad"}`, ingestclient.ErrRejected, ""},
		{422, `{"detail":[{"msg":"Field required","input":"x"}]}`, ingestclient.ErrRejected, ""},
		{401, ``, ingestclient.ErrUnauthorized, ""},
		{302, ``, ingestclient.ErrRejected, ""},
	} {
		for _, expect := range []int64{1, -1} {
			t.Run(fmt.Sprintf("%d/expect=%d", tc.status, expect), func(t *testing.T) {
				w := newServers(t, func(c *ingestclient.Config) { c.ExpectFrom = expect })
				w.storage.before = func(w http.ResponseWriter, r *http.Request) bool {
					w.Header().Set("Location", "https://elsewhere.test/")
					w.WriteHeader(tc.status)
					_, _ = io.WriteString(w, tc.body)
					return true
				}
				src := &counted{b: make([]byte, 32<<20)}
				_, err := w.c.Upload(t.Context(), src, ingestclient.Meta{})
				e, ok := errors.AsType[*ingestclient.RequestError](err)
				if !ok || !errors.Is(err, tc.want) || e.Status != tc.status || e.Code != tc.code || e.Retryable {
					t.Fatalf("got %#v", err)
				}
				if errors.Is(err, ingestclient.ErrAmbiguous) || e.Sent >= 32<<20 || expect == 1 && e.Sent != 0 {
					t.Errorf("sent %d bytes: %v", e.Sent, err)
				}
				// An upload waits a second for the transport to let go of the content; a busy machine may need more.
				for until := time.Now().Add(time.Minute); src.opens.Load() != src.closes.Load() && time.Now().Before(until); {
					time.Sleep(time.Millisecond)
				}
				if opens := src.opens.Load(); opens != src.closes.Load() || tc.status == 401 && opens != 2 || tc.status != 401 && opens != 1 {
					t.Errorf("content opened %d and closed %d times", opens, src.closes.Load())
				}
			})
		}
	}
}

// counted is content that knows who holds it.
type counted struct {
	b             []byte
	opens, closes atomic.Int64
}

func (s *counted) Name() string { return "counted" }

func (s *counted) Open() (io.ReadCloser, int64, error) {
	s.opens.Add(1)
	return &countedReader{bytes.NewReader(s.b), s}, int64(len(s.b)), nil
}

type countedReader struct {
	*bytes.Reader
	s *counted
}

func (r *countedReader) Close() error { r.s.closes.Add(1); return nil }

// TestResetMidBodyIsRepeated expects that an upload is repeated if the connection was
// lost before all was sent: nothing was stored.
func TestResetMidBodyIsRepeated(t *testing.T) {
	w := newServers(t, func(c *ingestclient.Config) { c.MaxAttempts = 3; c.ExpectFrom = -1 })
	var n atomic.Int64
	w.storage.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || n.Add(1) > 2 {
			return false
		}
		_, _ = io.CopyN(io.Discard, r.Body, 100_000)
		conn, _, _ := w.(http.Hijacker).Hijack()
		_ = conn.Close()
		return true
	}
	b := content(16 << 20)
	rec, err := w.c.UploadFile(t.Context(), file(t, b), ingestclient.Meta{})
	if err != nil || rec.Attempts != 3 || w.storage.loads != 1 || w.c.Stats().Retries != 2 {
		t.Fatalf("%+v, %v, %d loads", rec, err, w.storage.loads)
	}
}

// dropAnswer lets the upload in and loses the answer, times times.
func dropAnswer(s *storageServer, times int64) {
	var n atomic.Int64
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || n.Add(1) > times {
			return false
		}
		s.upload(&blackHole{http.Header{}}, r)
		conn, _, _ := w.(http.Hijacker).Hijack()
		_ = conn.Close()
		return true
	}
}

type blackHole struct{ h http.Header }

func (b *blackHole) Header() http.Header         { return b.h }
func (b *blackHole) WriteHeader(int)             {}
func (b *blackHole) Write(p []byte) (int, error) { return len(p), nil }

func TestLostAnswerIsAmbiguous(t *testing.T) {
	for _, size := range []int{10, 5 << 20} {
		w := newServers(t, func(c *ingestclient.Config) { c.MaxAttempts = 4 })
		dropAnswer(w.storage, 1)
		_, err := w.c.UploadFile(t.Context(), file(t, content(size)), ingestclient.Meta{})
		e, ok := errors.AsType[*ingestclient.RequestError](err)
		if !ok || !errors.Is(err, ingestclient.ErrAmbiguous) || !errors.Is(err, ingestclient.ErrConnection) || e.Retryable || e.Sent != int64(size) || e.Attempt != 1 {
			t.Errorf("%d bytes: %#v", size, err)
		}
		if w.storage.loads != 1 {
			t.Errorf("sent %d times", w.storage.loads)
		}
	}
}

// TestLostAnswerWithFileIDIsLookedUp expects that a file with an id whose answer was
// lost is looked up, and not sent again.
func TestLostAnswerWithFileIDIsLookedUp(t *testing.T) {
	w := newServers(t, func(c *ingestclient.Config) { c.MaxAttempts = 4 })
	dropAnswer(w.storage, 1)
	b := content(1000)
	rec, err := w.c.UploadFile(t.Context(), file(t, b), ingestclient.Meta{FileID: "11111111-2222-3333-4444-555555555555"})
	if err != nil || !rec.Replayed || rec.Attempts != 2 || rec.SHA256 != hexSum(b) || rec.FileID != "11111111-2222-3333-4444-555555555555" {
		t.Fatalf("%+v, %v", rec, err)
	}
	if w.storage.loads != 1 {
		t.Errorf("sent %d times", w.storage.loads)
	}
	// The same id again, as after a restart: refused with 500, found, equal.
	w.storage.before = nil
	rec, err = w.c.UploadFile(t.Context(), file(t, b), ingestclient.Meta{FileID: rec.FileID})
	if err != nil || !rec.Replayed {
		t.Errorf("%+v, %v", rec, err)
	}
	// Other content under that id is no success.
	if rec, err = w.c.UploadFile(t.Context(), file(t, content(1000)), ingestclient.Meta{FileID: rec.FileID}); err == nil {
		t.Errorf("%+v", rec)
	}
	if _, err = w.c.UploadFile(t.Context(), file(t, b), ingestclient.Meta{FileID: "../1"}); !errors.Is(err, ingestclient.ErrRejected) {
		t.Error(err)
	}
}

func TestIdempotencyKeyMakesRetriesSafe(t *testing.T) {
	w := newServers(t, func(c *ingestclient.Config) { c.MaxAttempts = 2 })
	dropAnswer(w.storage, 1)
	rec, err := w.c.UploadFile(t.Context(), file(t, content(10)), ingestclient.Meta{IdempotencyKey: "k-1"})
	if err != nil || rec.Attempts != 2 || w.storage.header.Get("Idempotency-Key") != "k-1" {
		t.Fatalf("%+v, %v", rec, err)
	}
}

func TestServerFailures(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	for _, tc := range []struct {
		status    int
		after     string
		read      bool // the server takes the whole body first
		attempts  int64
		ambiguous bool
	}{
		{503, "0", true, 3, false},
		{429, "1000000", true, 3, false},
		{408, "", false, 3, false},
		{500, "", true, 1, true},
		{502, "", true, 1, true},
		{504, "", true, 1, true},
		{500, "", false, 3, false},
	} {
		t.Run(fmt.Sprintf("%d/%v", tc.status, tc.read), func(t *testing.T) {
			w := newServers(t, func(c *ingestclient.Config) { c.MaxAttempts, c.MaxRetryAfter = 3, 50*time.Millisecond })
			var n atomic.Int64
			w.storage.before = func(w http.ResponseWriter, r *http.Request) bool {
				n.Add(1)
				if tc.read {
					_, _ = io.Copy(io.Discard, r.Body)
				}
				w.Header().Set("Retry-After", tc.after)
				w.WriteHeader(tc.status)
				return true
			}
			_, err := w.c.Upload(t.Context(), ingestclient.BytesContent("a", make([]byte, 4<<20)), ingestclient.Meta{})
			if !errors.Is(err, ingestclient.ErrServer) || errors.Is(err, ingestclient.ErrAmbiguous) != tc.ambiguous || n.Load() != tc.attempts {
				t.Errorf("after %d attempts: %v", n.Load(), err)
			}
		})
	}
}

func TestWrongAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		alter     func(map[string]any)
		want      error
		ambiguous bool
	}{
		"size":           {func(b map[string]any) { b["file_size"] = 9 }, ingestclient.ErrChecksum, false},
		"checksum":       {func(b map[string]any) { b["checksum"] = strings.Repeat("0", 64) }, ingestclient.ErrChecksum, false},
		"no checksum":    {func(b map[string]any) { delete(b, "checksum") }, ingestclient.ErrAnswer, false},
		"no size":        {func(b map[string]any) { delete(b, "file_size") }, ingestclient.ErrAnswer, false},
		"no id":          {func(b map[string]any) { delete(b, "file_id") }, ingestclient.ErrAnswer, true},
		"wrong checksum": {func(b map[string]any) { b["checksum"] = "md5" }, ingestclient.ErrAnswer, true},
		"uppercase":      {func(b map[string]any) { b["checksum"] = strings.ToUpper(b["checksum"].(string)) }, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newServers(t, nil)
			w.storage.alter = tc.alter
			_, err := w.c.Upload(t.Context(), ingestclient.BytesContent("a", content(10)), ingestclient.Meta{})
			if !errors.Is(err, tc.want) || errors.Is(err, ingestclient.ErrAmbiguous) != tc.ambiguous {
				t.Errorf("got %v", err)
			}
			if e, ok := errors.AsType[*ingestclient.RequestError](err); ok && errors.Is(tc.want, ingestclient.ErrChecksum) && e.FileID == "" {
				t.Error("the id of what is stored is missing")
			}
		})
	}
}

// TestSkipChecksum expects that the size is still compared, and that the File has the
// checksum of the element.
func TestSkipChecksum(t *testing.T) {
	other := strings.Repeat("0", 64)
	for size, want := range map[int]error{10: nil, 9: ingestclient.ErrChecksum} {
		w := newServers(t, func(c *ingestclient.Config) { c.SkipChecksum = true })
		w.storage.alter = func(b map[string]any) { b["file_size"], b["checksum"] = size, other }
		r, err := w.c.Upload(t.Context(), ingestclient.BytesContent("a", content(10)), ingestclient.Meta{})
		if !errors.Is(err, want) || want == nil && (r == nil || r.SHA256 != other || r.Size != 10) {
			t.Errorf("size %d: %+v, %v", size, r, err)
		}
	}
}

// pausedContent stops in the middle until told to go on.
type pausedContent struct {
	path      string
	reached   chan struct{}
	goOn      chan struct{}
	reachedBy sync.Once
}

func (g *pausedContent) Name() string { return "gate" }

func (g *pausedContent) Open() (io.ReadCloser, int64, error) {
	r, n, err := ingestclient.FileContent(g.path).Open()
	if err != nil {
		return nil, 0, err
	}
	return &pausedReader{r, g}, n, nil
}

type pausedReader struct {
	io.ReadCloser
	g *pausedContent
}

func (r *pausedReader) Unchanged() error {
	return r.ReadCloser.(interface{ Unchanged() error }).Unchanged()
}

func (r *pausedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p[:min(len(p), 1000)])
	r.g.reachedBy.Do(func() {
		close(r.g.reached)
		<-r.g.goOn
	})
	return n, err
}

func TestFileChangesWhileItIsRead(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"grows":     func(p string) error { return appendTo(p) },
		"shrinks":   func(p string) error { return os.Truncate(p, 2000) },
		"rewritten": func(p string) error { return rewrite(p) },
		"replaced":  func(p string) error { return replace(p) },
		"removed":   os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			w := newServers(t, func(c *ingestclient.Config) { c.MaxAttempts = 3 })
			g := &pausedContent{path: file(t, content(100_000)), reached: make(chan struct{}), goOn: make(chan struct{})}
			old := time.Now().Add(-time.Hour)
			if err := os.Chtimes(g.path, old, old); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { _, err := w.c.Upload(t.Context(), g, ingestclient.Meta{}); done <- err }()
			<-g.reached
			if err := change(g.path); err != nil {
				t.Fatal(err)
			}
			close(g.goOn)
			err := <-done
			e, ok := errors.AsType[*ingestclient.RequestError](err)
			if !ok || !errors.Is(err, ingestclient.ErrFileChanged) || errors.Is(err, ingestclient.ErrAmbiguous) || e.Attempt != 1 {
				t.Errorf("got %v", err)
			}
			if w.storage.loads != 0 {
				t.Error("a torn file was stored")
			}
		})
	}
}

func appendTo(p string) error {
	f, err := os.OpenFile(p, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("more")
	return errors.Join(err, f.Close())
}

func rewrite(p string) error {
	f, err := os.OpenFile(p, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte("other"), 90_000)
	return errors.Join(err, f.Close())
}

func replace(p string) error {
	if err := os.WriteFile(p+".new", []byte("new"), 0o600); err != nil {
		return err
	}
	return os.Rename(p+".new", p)
}

func TestSourcesThatCannotBeRead(t *testing.T) {
	w := newServers(t, nil)
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "missing"), dir, fifo} {
		_, err := w.c.UploadFile(t.Context(), path, ingestclient.Meta{})
		if !errors.Is(err, ingestclient.ErrContent) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	_, err := w.c.Upload(t.Context(), failing{}, ingestclient.Meta{})
	if !errors.Is(err, ingestclient.ErrContent) || !errors.Is(err, errDisk) {
		t.Error(err)
	}
	_, err = w.c.Upload(t.Context(), short{}, ingestclient.Meta{})
	if !errors.Is(err, ingestclient.ErrFileChanged) {
		t.Error(err)
	}
}

var errDisk = errors.New("input/output error")

type failing struct{}

func (failing) Name() string { return "failing" }
func (failing) Open() (io.ReadCloser, int64, error) {
	return io.NopCloser(io.MultiReader(strings.NewReader("abc"), errReader{})), 10, nil
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errDisk }

type short struct{}

func (short) Name() string { return "short" }
func (short) Open() (io.ReadCloser, int64, error) {
	return io.NopCloser(strings.NewReader("abc")), 10, nil
}

func TestShutdownWaitsAndRefuses(t *testing.T) {
	w := newServers(t, nil)
	inside, goOn := make(chan struct{}), make(chan struct{})
	w.storage.before = func(http.ResponseWriter, *http.Request) bool {
		close(inside)
		<-goOn
		return false
	}
	done := make(chan error, 1)
	go func() {
		_, err := w.c.Upload(t.Context(), ingestclient.BytesContent("a", nil), ingestclient.Meta{})
		done <- err
	}()
	<-inside
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.c.Shutdown(ended); !errors.Is(err, context.Canceled) || w.c.Stats().InFlight != 1 {
		t.Fatalf("%v, %+v", err, w.c.Stats())
	}
	if _, err := w.c.Upload(t.Context(), ingestclient.BytesContent("b", nil), ingestclient.Meta{}); !errors.Is(err, ingestclient.ErrClosed) {
		t.Errorf("while draining: %v", err)
	}
	close(goOn)
	if err := w.c.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := errors.Join(w.c.Close(), w.c.Close()); err != nil || w.fake.Closed == 0 || w.fake.Leased(1) != 0 {
		t.Errorf("%v, closed %d times, %d leases", err, w.fake.Closed, w.fake.Leased(1))
	}
}

func TestCloseEndsUploads(t *testing.T) {
	w := newServers(t, nil)
	inside, never := make(chan struct{}), make(chan struct{})
	defer close(never)
	w.storage.before = func(_ http.ResponseWriter, r *http.Request) bool {
		_, _ = io.Copy(io.Discard, r.Body)
		close(inside)
		<-never
		return true
	}
	done := make(chan error, 1)
	go func() {
		_, err := w.c.Upload(context.WithoutCancel(t.Context()), ingestclient.BytesContent("a", content(10)), ingestclient.Meta{})
		done <- err
	}()
	<-inside
	if err := w.c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, ingestclient.ErrClosed) || !errors.Is(err, ingestclient.ErrAmbiguous) {
		t.Error(err)
	}
}

func TestPeersThatDoNotFit(t *testing.T) {
	w := newServers(t, func(c *ingestclient.Config) { c.MaxAttempts = 2 })
	strangers := newAuthority(t)
	// The server does not know our root.
	over := func(g ingestclient.FakeGeneration) error {
		c, err := ingestclient.NewWithFake(w.cfg, ingestclient.NewFakeIdentity(g), mid)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		_, err = c.Upload(t.Context(), ingestclient.BytesContent("a", content(10)), ingestclient.Meta{})
		return err
	}
	theirs := strangers.generation(1)
	theirs.Storage.(*http.Transport).TLSClientConfig.RootCAs = w.pool()
	err := over(ingestclient.FakeGeneration{Number: 1, Thumb: theirs.Thumb, Storage: theirs.Storage, Token: theirs.Storage})
	if !errors.Is(err, ingestclient.ErrTLSPeer) || !errors.Is(err, ingestclient.ErrTokenEndpoint) {
		t.Errorf("stranger at the token endpoint: %v", err)
	}
	good := w.generation(1)
	err = over(ingestclient.FakeGeneration{Number: 1, Thumb: good.Thumb, Storage: theirs.Storage, Token: good.Token})
	if !errors.Is(err, ingestclient.ErrTLSPeer) || errors.Is(err, ingestclient.ErrAmbiguous) {
		t.Errorf("stranger at the storage: %v", err)
	}
	// We do not know theirs.
	good2 := w.generation(1)
	good2.Storage.(*http.Transport).TLSClientConfig.RootCAs = strangers.pool()
	err = over(ingestclient.FakeGeneration{Number: 1, Thumb: good.Thumb, Storage: good2.Storage, Token: good.Token})
	if !errors.Is(err, ingestclient.ErrTLSPeer) {
		t.Errorf("strange server: %v", err)
	}
	w.cfg.Elements = only("https://127.0.0.1:1")
	if err = over(w.generation(1)); !errors.Is(err, ingestclient.ErrConnection) || errors.Is(err, ingestclient.ErrAmbiguous) {
		t.Errorf("nobody there: %v", err)
	}
}

// TestRotationsUnderLoad uses tokens bound to certificates (RFC 8705 §3) and a rotation
// every few uploads. No request is refused.
func TestRotationsUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	w := newServers(t, func(c *ingestclient.Config) { c.MaxAttempts = 1 })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var done atomic.Int64
	b := content(200_000)
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := w.c.Upload(t.Context(), ingestclient.BytesContent("a", b), ingestclient.Meta{}); err != nil {
					t.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	const rotations = 8
	swapped := make(chan struct{}, rotations)
	for n := range uint64(rotations) {
		mark := done.Load()
		for done.Load() < mark+10 && !t.Failed() {
			if _, err := w.c.Upload(t.Context(), ingestclient.BytesContent("b", nil), ingestclient.Meta{}); err != nil {
				t.Fatal(err)
			}
		}
		w.fake.Set(w.generation(n + 2))
		for w.c.Stats().Swaps != int64(n+1) && !t.Failed() {
			if _, err := w.c.Upload(t.Context(), ingestclient.BytesContent("c", nil), ingestclient.Meta{}); err != nil {
				t.Fatal(err)
			}
		}
		swapped <- struct{}{}
	}
	cancel()
	wg.Wait()
	st := w.c.Stats()
	if w.storage.stale != 0 || st.Rejected != 0 || st.Retries != 0 || st.UploadErrors != 0 {
		t.Errorf("%d stale tokens, %+v", w.storage.stale, st)
	}
	if w.admin.count() != rotations+1 || len(swapped) != rotations {
		t.Errorf("%d fetches for %d rotations", w.admin.count(), rotations)
	}
	if w.fake.Leased(1) != 0 || w.fake.Leased(rotations+1) != 1 {
		t.Error("leases are left")
	}
}
