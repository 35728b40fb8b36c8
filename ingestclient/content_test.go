package ingestclient_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/ingestclient/ingesttest"
)

// claimed is content that claims to have size bytes and has others.
type claimed struct {
	r    io.Reader
	size int64
}

func (c claimed) Name() string                        { return "f" }
func (c claimed) Open() (io.ReadCloser, int64, error) { return io.NopCloser(c.r), c.size, nil }

// TestSizes expects that content is stored only if it has the size that it claims.
func TestSizes(t *testing.T) {
	const said = 5
	path := filepath.Join(t.TempDir(), "f")
	kinds := map[string]func(b []byte, size int64) ingestclient.Content{
		"custom":              func(b []byte, size int64) ingestclient.Content { return claimed{bytes.NewReader(b), size} },
		"custom, in bits":     func(b []byte, size int64) ingestclient.Content { return claimed{oneByte{bytes.NewReader(b)}, size} },
		"custom, end at once": func(b []byte, size int64) ingestclient.Content { return claimed{&endsAtOnce{b}, size} },
		"reader": func(b []byte, size int64) ingestclient.Content {
			return ingestclient.ReaderContent("f", bytes.NewReader(b), size)
		},
		"bytes": func(b []byte, size int64) ingestclient.Content {
			if int64(len(b)) != size { // cannot claim anything else
				return nil
			}
			return ingestclient.BytesContent("f", b)
		},
		"file": func(b []byte, size int64) ingestclient.Content {
			if size < 0 {
				return nil
			}
			return changing{path, b, size}
		},
	}
	for kind, open := range kinds {
		for name, tc := range map[string]struct {
			has  int
			size int64
			want error
		}{
			"negative": {0, -1, ingestclient.ErrContent}, "empty": {0, 0, nil}, "short": {said - 1, said, ingestclient.ErrFileChanged}, "none": {0, said, ingestclient.ErrFileChanged},
			"exact": {said, said, nil}, "one more": {said + 1, said, ingestclient.ErrFileChanged}, "far more": {said + 1<<20, said, ingestclient.ErrFileChanged}, "more than nothing": {1, 0, ingestclient.ErrFileChanged},
		} {
			content := open(bytes.Repeat([]byte("x"), tc.has), tc.size)
			if content == nil {
				continue
			}
			t.Run(kind+"/"+name, func(t *testing.T) {
				w := newServers(t, nil)
				asked := false
				w.storage.before = func(http.ResponseWriter, *http.Request) bool { asked = true; return false }
				file, err := w.c.Upload(t.Context(), content, ingestclient.Meta{})
				if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
					t.Fatalf("%v, want %v", err, tc.want)
				}
				if tc.want != nil && (len(w.storage.files) != 0 || w.storage.loads != 0) || tc.want == nil && file.Size != tc.size {
					t.Errorf("%d complete uploads, %+v", w.storage.loads, file)
				}
				if tc.size < 0 && asked {
					t.Error("a request was sent")
				}
			})
		}
	}
}

type oneByte struct{ io.Reader }

func (r oneByte) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(1, len(p))]) }

// endsAtOnce returns io.EOF together with the last byte.
type endsAtOnce struct{ left []byte }

func (r *endsAtOnce) Read(p []byte) (int, error) {
	n := copy(p, r.left)
	r.left = r.left[n:]
	if len(r.left) == 0 {
		return n, io.EOF
	}
	return n, nil
}

// changing is a file that has size bytes when it is opened and other content when it is read.
type changing struct {
	path string
	b    []byte
	size int64
}

func (c changing) Name() string { return "f" }

func (c changing) Open() (io.ReadCloser, int64, error) {
	if err := os.WriteFile(c.path, make([]byte, c.size), 0o600); err != nil {
		return nil, 0, err
	}
	r, size, err := ingestclient.FileContent(c.path).Open()
	if err == nil && size != int64(len(c.b)) {
		err = os.WriteFile(c.path, c.b, 0o600)
	}
	return r, size, err
}

// TestReaderIsReadAgain expects that each attempt reads from the begin.
func TestReaderIsReadAgain(t *testing.T) {
	s := ingesttest.Start(t, ingesttest.Options{})
	c, err := ingestclient.New(s.Config(), s.Identity)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	s.SetFaults(t, ingesttest.Fault{Kind: "reset", AfterBytes: 1 << 16, Count: 2})
	b := content(8 << 20)
	file, err := c.Upload(t.Context(), ingestclient.ReaderContent("dir/r.bin", bytes.NewReader(b), int64(len(b))), ingestclient.Meta{})
	if err != nil || file.Name != "r.bin" || file.Attempts < 2 || !bytes.Equal(s.Content(t, file.FileID), b) {
		t.Errorf("%+v, %v", file, err)
	}
}

// TestNamesOfEveryByte expects that names with any byte reach both kinds of element,
// percent-encoded where a header cannot have them.
func TestNamesOfEveryByte(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds; -short leaves it out")
	}
	for _, dialect := range []string{"python", "go"} {
		t.Run(dialect, func(t *testing.T) {
			s := ingesttest.Start(t, ingesttest.Options{Dialect: dialect})
			c, err := ingestclient.New(s.Config(), s.Identity)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			want := map[string]int{}
			for b := range 256 {
				arrives := string([]byte{byte(b)})
				if b < ' ' || b >= 0x7f || b == '"' || b == '\\' {
					arrives = fmt.Sprintf("%%%02X", b)
				}
				for _, at := range []string{"%sx", "x%sy", "x%s"} {
					name := fmt.Sprintf(at, string([]byte{byte(b)}))
					want[filepath.Base(fmt.Sprintf(at, arrives))]++
					if _, err := c.Upload(t.Context(), ingestclient.BytesContent(name, nil), ingestclient.Meta{}); err != nil {
						t.Errorf("%q: %v", name, err)
					}
				}
			}
			for _, f := range s.Files() {
				want[f.Name]--
			}
			for name, n := range want {
				if n != 0 {
					t.Errorf("%q is stored %+d times too few", name, n)
				}
			}
		})
	}
}

// TestNamesInOtherScripts expects that valid UTF-8 is sent unchanged.
func TestNamesInOtherScripts(t *testing.T) {
	for _, name := range []string{"отчёт.pdf", "日本語", "é", "a b;c=d, e'f", "100%25", "\u0085\u2028"} {
		if got := ingestclient.CleanName("/dir/" + name); got != name {
			t.Errorf("%q became %q", name, got)
		}
	}
	if got := ingestclient.CleanName("a\xff\xc3(" + strings.Repeat(`\`, 2)); got != `a%FF%C3(%5C%5C` {
		t.Errorf("%q", got)
	}
}
