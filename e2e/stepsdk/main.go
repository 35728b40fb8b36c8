// Command stepsdk holds a server and a client of smallstep's Go library against a
// running authority, for scripts/interop-step.sh. Each knows nothing but a token. It
// is a module of its own, so that the library's requirements stay out of go.mod.
//
//	stepsdk SERVER_TOKEN_FILE CLIENT_TOKEN_FILE DURATION
//
// For so long the client makes a request five times a second, each over a connection
// of its own, so that both certificates are looked at each time. Any failure is an
// error, and so is a certificate that was not renewed although DURATION is longer
// than it lived. What it prints ends with the serials that it saw.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/smallstep/certificates/ca"
)

const pause = 200 * time.Millisecond

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "stepsdk:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return errors.New("want SERVER_TOKEN_FILE CLIENT_TOKEN_FILE DURATION")
	}
	duration, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	var tokens [2]string
	for i := range tokens {
		text, err := os.ReadFile(args[i])
		if err != nil {
			return err
		}
		tokens[i] = strings.TrimSpace(string(text))
	}
	ctx, cancel := context.WithCancel(ctx) // ends the library's renewals
	defer cancel()
	url, end, err := serve(ctx, tokens[0])
	if err != nil {
		return err
	}
	err = ask(ctx, tokens[1], url, duration)
	return errors.Join(err, end())
}

// serve answers each request with the serial of the client's certificate, on a free
// port of loopback.
func serve(ctx context.Context, token string) (url string, end func() error, err error) {
	srv, err := ca.BootstrapServer(ctx, token, &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%x", r.TLS.PeerCertificates[0].SerialNumber)
		}),
	})
	if err != nil {
		return "", nil, fmt.Errorf("bootstrapping the server: %w", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	done := make(chan error, 1)
	go func() { done <- srv.ServeTLS(ln, "", "") }()
	return "https://" + ln.Addr().String(), func() error {
		err := srv.Close()
		if served := <-done; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}, nil
}

// serials are the certificates that one side showed, in order.
type serials struct {
	mu   sync.Mutex
	seen []string
}

func (s *serials) saw(serial string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.seen); n == 0 || s.seen[n-1] != serial {
		s.seen = append(s.seen, serial)
	}
}

func ask(ctx context.Context, token, url string, duration time.Duration) error {
	client, err := ca.BootstrapClient(ctx, token)
	if err != nil {
		return fmt.Errorf("bootstrapping the client: %w", err)
	}
	transport, ok := client.Transport.(*http.Transport)
	if !ok {
		return fmt.Errorf("the library's transport is a %T", client.Transport)
	}
	transport.DisableKeepAlives = true
	var server, own serials
	var life time.Duration
	requests, failed := 0, 0
	var last error
	for end := time.Now().Add(duration); time.Now().Before(end); time.Sleep(pause) {
		requests++
		state, text, err := get(ctx, client, url)
		if err != nil {
			failed, last = failed+1, err
			continue
		}
		leaf := state.PeerCertificates[0]
		life = leaf.NotAfter.Sub(leaf.NotBefore)
		server.saw(fmt.Sprintf("%x", leaf.SerialNumber))
		own.saw(text)
	}
	fmt.Printf("%d requests, %d errors\nserver %s\nclient %s\n", requests, failed, strings.Join(server.seen, " "), strings.Join(own.seen, " "))
	if failed > 0 {
		return fmt.Errorf("%d of %d requests failed, the last with: %w", failed, requests, last)
	}
	if duration > life && (len(server.seen) < 2 || len(own.seen) < 2) {
		return fmt.Errorf("not renewed within %s, certificates live for %s", duration, life)
	}
	return nil
}

func get(ctx context.Context, client *http.Client, url string) (*tls.ConnectionState, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, "", err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, "", fmt.Errorf("status %s", resp.Status)
	}
	return resp.TLS, string(text), nil
}
