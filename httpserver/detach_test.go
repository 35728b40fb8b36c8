package httpserver_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/artstore/artstore-pki/httpserver"
)

// detaching serves /detach by detaching the request, and all else with "ok".
func detaching(t *testing.T, drain time.Duration) (addr string, stop func() error, detached chan *httpserver.Detached) {
	t.Helper()
	detached = make(chan *httpserver.Detached, 1)
	addr, stop = serve(t, httpserver.Config{Drain: drain, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/detach" {
			_, _ = io.WriteString(w, "ok")
			return
		}
		d, err := httpserver.Detach(w, r)
		if err != nil {
			t.Errorf("detach: %v", err)
		}
		detached <- d
	})})
	return addr, stop, detached
}

// TestDetachedConnectionGoesOn expects that a detached request gets its answer, and that the
// same connection serves the next requests, detached or not.
func TestDetachedConnectionGoesOn(t *testing.T) {
	addr, _, detached := detaching(t, time.Second)
	c := dial(t, honest, addr)
	answers := bufio.NewReader(c)
	for i, last := range []bool{false, false, true} {
		if _, err := io.WriteString(c, "GET /detach HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		header := http.Header{"X-Test": {"yes"}}
		if last {
			header.Set("Connection", "close")
		}
		if err := (<-detached).Answer(http.StatusAccepted, header, []byte("later"), time.Second); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != "later" || resp.StatusCode != http.StatusAccepted || resp.Header.Get("X-Test") != "yes" || resp.Header.Get("Date") == "" || resp.Close != last {
			t.Errorf("request %d: %q %v %+v", i, body, err, resp)
		}
	}
	if _, err := answers.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last answer: %v", err)
	}
	again := dial(t, honest, addr)
	if _, err := io.WriteString(again, "GET /detach HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := (<-detached).Answer(http.StatusOK, http.Header{}, nil, time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := http.ReadResponse(bufio.NewReader(again), nil); err != nil {
		t.Fatal(err)
	}
	if status, err := ask(again); status != http.StatusOK {
		t.Errorf("an ordinary request after a detached one: %d %v", status, err)
	}
}

// TestDetachedAtTheEnd expects that a detached request can be answered while the server
// drains, and is cut afterwards.
func TestDetachedAtTheEnd(t *testing.T) {
	for _, answered := range []bool{true, false} {
		drain := time.Minute
		if !answered {
			drain = 20 * time.Millisecond
		}
		addr, stop, detached := detaching(t, drain)
		c := dial(t, honest, addr)
		if _, err := io.WriteString(c, "GET /detach HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		d := <-detached
		ended := make(chan error, 1)
		go func() { ended <- stop() }()
		if !answered {
			if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a request was cut: %v", err)
			}
			if err := d.Answer(http.StatusOK, http.Header{}, nil, time.Second); err == nil {
				t.Error("a request that was cut was answered")
			}
			continue
		}
		if err := d.Answer(http.StatusOK, http.Header{}, nil, time.Second); err != nil {
			t.Error(err)
		}
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%+v %v", resp, err)
		}
		if err := <-ended; err != nil {
			t.Errorf("after all were answered: %v", err)
		}
	}
}

// TestDetachRefuses expects that requests that cannot be detached are left to their handler.
func TestDetachRefuses(t *testing.T) {
	handler := func(w http.ResponseWriter, r *http.Request) {
		if _, err := httpserver.Detach(w, r); !errors.Is(err, httpserver.ErrNotDetached) {
			t.Errorf("%s %s: %v", r.Proto, r.Method, err)
		}
	}
	inBubble(t, handler, func(t *testing.T, m *inMemory) { // HTTP/2
		p := m.connect(t, honest, 1<<20)
		p.request(http.MethodGet, true)
	})
	addr, _ := serve(t, httpserver.Config{Handler: http.HandlerFunc(handler)})
	c := dial(t, honest, addr)
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"); err != nil {
		t.Fatal(err)
	}
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%+v %v", resp, err)
	}
}
