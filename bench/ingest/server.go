package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	uploadPath = "/api/v1/files/upload"
	tokenPath  = "/api/v1/auth/token" //nolint:gosec // G101: a path, not a token
	smallSize  = 4 << 10
	// overhead is more than the form around a file, less than a small file.
	overhead = 2 << 10
)

// serve is the far end of everything: it reads and throws away, so that what is
// measured is the client. It ends with its input.
func serve(ctx context.Context, j job, in io.Reader, out io.Writer) error {
	config, err := plainTLS(j.Server)
	if err != nil {
		return err
	}
	listen := func() net.Listener {
		l, listenErr := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		err = errors.Join(err, listenErr)
		return l
	}
	web, bare, plain := listen(), listen(), listen()
	if err != nil {
		return err
	}
	port := func(l net.Listener) string { return fmt.Sprintf("%s:%d", host, l.Addr().(*net.TCPAddr).Port) }
	j.URL, j.TLS, j.TCP = "https://"+port(web), port(bare), port(plain)
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+tokenPath, func(w http.ResponseWriter, _ *http.Request) { answerToken(w, "bench") })
	mux.HandleFunc("POST "+uploadPath, discard(j.Sums))
	server := &http.Server{Handler: mux, TLSConfig: config, ReadHeaderTimeout: time.Minute}
	go sink(tls.NewListener(bare, config.Clone())) // they all end with the process
	go sink(plain)
	go func() { _ = server.ServeTLS(web, "", "") }()
	if err := json.NewEncoder(out).Encode(j); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}

func answerToken(w http.ResponseWriter, token string) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":3600}`, token) // the client will notice
}

// discard is a Storage Element that keeps nothing and knows the checksum of what it is sent.
func discard(sums map[int64]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return
		}
		for size, sum := range sums {
			if n >= size && n < size+overhead {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusCreated)
				_, _ = fmt.Fprintf(w, `{"file_id":"0","original_filename":"x","size":%d,"checksum":%q}`, size, sum)
				return
			}
		}
		http.Error(w, "unknown size", http.StatusBadRequest)
	}
}

// sink reads until the other side has written everything, and says so with one byte.
func sink(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = c.Close() }()
			buf := make([]byte, 256<<10)
			for {
				if _, err := c.Read(buf); err != nil {
					_, _ = c.Write([]byte{1})
					return
				}
			}
		}()
	}
}
