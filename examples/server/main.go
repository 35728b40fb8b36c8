// Command server answers over mutual TLS. At its first start it enrols with a one-time token.
// From then on it renews its certificate by itself, and no connection is interrupted for that.
//
//	server --ca https://ca.internal:9443 --token token --dir identity --allow ingester
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/enroll"
)

func main() {
	caURL := flag.String("ca", "https://localhost:9443", "`URL` of the authority")
	token := flag.String("token", "token", "`FILE` with the enrolment token, for the first start")
	dir := flag.String("dir", "identity", "`DIR` for certificate, key and trust bundle")
	listen := flag.String("listen", "localhost:8443", "`ADDRESS` to listen on")
	allow := flag.String("allow", "", "`NAMES` of the peers that may connect, separated by commas")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	source := enroll.Config{URL: *caURL, Token: enroll.TokenFile(*token), Dir: *dir}
	if err := serve(ctx, source, *listen, strings.Split(*allow, ",")); err != nil {
		log.Fatal(err)
	}
}

// serve returns when ctx has ended and the requests under way have finished.
func serve(ctx context.Context, conf enroll.Config, address string, allowed []string) error {
	source, err := enroll.New(conf)
	if err != nil {
		return err
	}
	// An authority that does not answer must not block the start for ever.
	opening, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	identity, err := rotation.Open(opening, rotation.Config{Source: source}) // returns with the first certificate
	if err != nil {
		return err
	}
	defer func() { _ = identity.Close() }()
	// TLS 1.3, a client certificate is required, and it must have one of these names.
	server, err := identity.Server(rotation.ServerOptions{Authorize: rotation.AllowNames(allowed...)})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("listening on", listener.Addr())
	return server.Serve(ctx, listener, http.HandlerFunc(hello))
}

// hello tells the peer its own name: the TLS layer has verified it.
func hello(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "hello, %s\n", r.TLS.PeerCertificates[0].Subject.CommonName) //nolint:gosec // G705: it is plain text
}
