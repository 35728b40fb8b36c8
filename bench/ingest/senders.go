package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/artstore/artstore-pki/bench/internal/frame"
	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
	"github.com/artstore/artstore-pki/secret"
)

// senders move what the job says and return the seconds it took.
var senders = map[string]func(context.Context, job) (float64, error){
	"tcp-sendfile": func(ctx context.Context, j job) (float64, error) {
		return copied(ctx, j, bare{dial: new(net.Dialer).DialContext, addr: j.TCP, sum: io.Discard})
	},
	"tcp": func(ctx context.Context, j job) (float64, error) {
		return copied(ctx, j, bare{dial: new(net.Dialer).DialContext, addr: j.TCP, buffer: 256 << 10, sum: io.Discard})
	},
	"tls":     func(ctx context.Context, j job) (float64, error) { return overTLS(ctx, j, io.Discard) },
	"tls-sum": func(ctx context.Context, j job) (float64, error) { return overTLS(ctx, j, sha256.New()) },
	"ours":    func(ctx context.Context, j job) (float64, error) { return ours(ctx, j, ingestclient.Config{}) },
	"ours-h2": func(ctx context.Context, j job) (float64, error) {
		return ours(ctx, j, ingestclient.Config{HTTP2: true})
	},
	"ours-unsummed": func(ctx context.Context, j job) (float64, error) {
		return ours(ctx, j, ingestclient.Config{SkipChecksum: true})
	},
	"idle":   idle,
	"pipe":   func(ctx context.Context, j job) (float64, error) { return posted(ctx, j, piped) },
	"buffer": func(ctx context.Context, j job) (float64, error) { return posted(ctx, j, buffered) },
	"ours-small": func(ctx context.Context, j job) (float64, error) {
		return oursSmall(ctx, j)
	},
	"default-small": func(ctx context.Context, j job) (float64, error) { return postedSmall(ctx, j, 0) },
	"pooled-small":  func(ctx context.Context, j job) (float64, error) { return postedSmall(ctx, j, j.Workers) },
}

// bare is a copy into a connection without HTTP.
type bare struct {
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	addr   string
	buffer int       // bytes of a write; 0 leaves it to the kernel
	sum    io.Writer // a hash, or nothing
}

func overTLS(ctx context.Context, j job, sum io.Writer) (float64, error) {
	config, err := plainTLS(j.Client)
	if err != nil {
		return 0, err
	}
	return copied(ctx, j, bare{dial: (&tls.Dialer{Config: config}).DialContext, addr: j.TLS, buffer: 32 << 10, sum: sum})
}

func copied(ctx context.Context, j job, b bare) (float64, error) {
	f, err := os.Open(j.File)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // read only
	c, err := b.dial(ctx, "tcp", b.addr)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	start := time.Now()
	if b.buffer == 0 {
		_, err = io.Copy(c, f)
	} else {
		err = pump(c, f, make([]byte, b.buffer), b.sum)
	}
	if err != nil {
		return 0, err
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return 0, err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return since(start), err
}

func pump(w io.Writer, r io.Reader, buf []byte, sum io.Writer) error {
	for {
		n, err := r.Read(buf)
		_, _ = sum.Write(buf[:n]) // a hash returns no error
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// client is ours, as a user makes it.
func client(ctx context.Context, j job, cfg ingestclient.Config) (*ingestclient.Client, func(), error) {
	quiet := slog.New(slog.DiscardHandler)
	id, err := rotation.Open(ctx, rotation.Config{Source: files.Source(fileSet(j.Client)), Logger: quiet})
	if err != nil {
		return nil, nil, err
	}
	cfg.TokenURL, cfg.Elements, cfg.ClientID, cfg.Logger = j.URL+tokenPath, []ingestclient.Element{{URL: j.URL}}, "sa_bench", quiet
	cfg.ClientSecret = func(context.Context) (secret.String, error) { return secret.New("bench"), nil }
	c, err := ingestclient.New(cfg, id)
	if err != nil {
		_ = id.Close()
		return nil, nil, err
	}
	return c, func() { _, _ = c.Close(), id.Close() }, nil // the process ends after it
}

func ours(ctx context.Context, j job, cfg ingestclient.Config) (float64, error) {
	c, stop, err := client(ctx, j, cfg)
	if err != nil {
		return 0, err
	}
	defer stop()
	start := time.Now()
	_, err = c.UploadFile(ctx, j.File, ingestclient.Meta{})
	return since(start), err
}

// idle has uploaded one small file: a token, a connection, and nothing to do.
func idle(ctx context.Context, j job) (float64, error) {
	j.Files, j.Workers = 1, 1
	return oursSmall(ctx, j)
}

func oursSmall(ctx context.Context, j job) (float64, error) {
	c, stop, err := client(ctx, j, ingestclient.Config{PoolSize: j.Workers})
	if err != nil {
		return 0, err
	}
	defer stop()
	content := make([]byte, smallSize)
	return together(j, func() error {
		_, err := c.Upload(ctx, ingestclient.ReaderContent("x", bytes.NewReader(content), int64(len(content))), ingestclient.Meta{})
		return err
	})
}

// together does one thing j.Files times with j.Workers at a time.
func together(j job, do func() error) (float64, error) {
	wall, err := frame.Together(j.Files, j.Workers, do)
	return wall.Seconds(), err
}

// form is a way to make a multipart body: its length is -1 if it is not known.
type form func(name string, content io.Reader) (body io.Reader, length int64, contentType string, err error)

// buffered is what most programs do: the whole form in memory.
func buffered(name string, content io.Reader) (io.Reader, int64, string, error) {
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	part, err := w.CreateFormFile("file", name)
	if err == nil {
		_, err = io.Copy(part, content)
	}
	if err == nil {
		err = w.Close()
	}
	return &buf, int64(buf.Len()), w.FormDataContentType(), err
}

// piped is the usual streaming form: chunked, because nobody knows its length.
func piped(name string, content io.Reader) (io.Reader, int64, string, error) {
	r, pw := io.Pipe()
	w := multipart.NewWriter(pw)
	go func() {
		part, err := w.CreateFormFile("file", name)
		if err == nil {
			_, err = io.Copy(part, content)
		}
		if err == nil {
			err = w.Close()
		}
		_ = pw.CloseWithError(err) // always nil
	}()
	return r, -1, w.FormDataContentType(), nil
}

func posted(ctx context.Context, j job, as form) (float64, error) {
	config, err := plainTLS(j.Client)
	if err != nil {
		return 0, err
	}
	f, err := os.Open(j.File)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // read only
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	start := time.Now()
	err = post(ctx, &http.Client{Transport: transport}, j.URL, func() (io.Reader, int64, string, error) { return as(filepath.Base(j.File), f) })
	return since(start), err
}

func postedSmall(ctx context.Context, j job, idle int) (float64, error) {
	config, err := plainTLS(j.Client)
	if err != nil {
		return 0, err
	}
	transport := &http.Transport{TLSClientConfig: config, MaxIdleConnsPerHost: idle}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport}
	content := make([]byte, smallSize)
	return together(j, func() error {
		return post(ctx, c, j.URL, func() (io.Reader, int64, string, error) { return buffered("x", bytes.NewReader(content)) })
	})
}

func post(ctx context.Context, c *http.Client, url string, body func() (io.Reader, int64, string, error)) error {
	r, length, contentType, err := body()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+uploadPath, r)
	if err != nil {
		return err
	}
	req.ContentLength = length
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Authorization", "Bearer bench")
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusCreated {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}
