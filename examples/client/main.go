// Command client asks a server over mutual TLS and prints the answer. It enrols
// at its first start, as the server does; later it uses what is in its directory.
//
//	client --ca https://ca.internal:9443 --token token --dir identity https://storage.internal:8443/
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

func main() {
	caURL := flag.String("ca", "https://localhost:9443", "`URL` of the authority")
	token := flag.String("token", "token", "`FILE` with the enrolment token, for the first start")
	dir := flag.String("dir", "identity", "`DIR` for certificate, key and trust bundle")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	source := enroll.Config{URL: *caURL, Token: enroll.TokenFile(*token), Dir: *dir}
	if err := ask(ctx, source, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

// ask gets each URL in turn. A program that runs for long opens the identity
// once, keeps the client, and so uses a new certificate as soon as there is one.
func ask(ctx context.Context, conf enroll.Config, urls []string) (err error) {
	source, err := enroll.New(conf)
	if err != nil {
		return err
	}
	// An authority that does not answer must not block the start for ever.
	opening, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	identity, err := rotation.Open(opening, rotation.Config{Source: source})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, identity.Close()) }()
	transport, err := identity.Transport(rotation.TransportOptions{})
	if err != nil {
		return err
	}
	// The trusted roots of the system are not used, and redirects use the same identity.
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
	for _, url := range urls {
		if err := get(ctx, client, url); err != nil {
			return err
		}
	}
	return nil
}

// get prints the answer to one request. If the server refuses this client, the error is that of
// the TLS handshake, with the reason that the server gave.
func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // an open body keeps the old connection alive
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("getting %s: %s", url, resp.Status)
	}
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}
