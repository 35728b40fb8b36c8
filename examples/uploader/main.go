// Command uploader sends files to a Storage Element. Its certificate, key and
// trust bundle are files in a directory, which another program renews: an agent,
// cert-manager, or "artstore-pki renew". The access token follows them.
//
//	uploader --token-url https://admin:8000/api/v1/auth/token --client-id sa_prod_ingester_1a2b3c4d \
//	  --secret-file secret --element https://storage:8010 --identity /etc/tls FILE...
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os/signal"
	"syscall"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
	"github.com/artstore/artstore-pki/secret"
)

func main() {
	tokenURL := flag.String("token-url", "", "`URL` of the token endpoint")
	clientID := flag.String("client-id", "", "`ID` of the service account")
	secretFile := flag.String("secret-file", "", "`FILE` with its secret")
	element := flag.String("element", "", "`URL` of the Storage Element")
	identity := flag.String("identity", "identity", "`DIR` with tls.crt, tls.key and ca.crt")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := upload(ctx, files.Set{Dir: *identity}, ingestclient.Config{
		TokenURL: *tokenURL, ClientID: *clientID, ClientSecret: secret.File(*secretFile),
		Elements: []ingestclient.Element{{URL: *element}},
	}, flag.Args())
	if err != nil {
		log.Fatal(err)
	}
}

// upload sends the files one after another. A client is safe for concurrent
// use: several goroutines may share it, and share its token.
func upload(ctx context.Context, set files.Set, conf ingestclient.Config, paths []string) (err error) {
	// The files may be written at this moment: wait for a set that fits together.
	opening, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	identity, err := rotation.Open(opening, rotation.Config{Source: files.Source(set)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, identity.Close()) }()
	client, err := ingestclient.New(conf, identity)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }() // before the identity
	for _, path := range paths {
		stored, err := client.UploadFile(ctx, path, ingestclient.Meta{})
		switch {
		case errors.Is(err, ingestclient.ErrAmbiguous): // sent whole, and no answer came
			return fmt.Errorf("nobody knows whether %s is stored: %w", path, err)
		case err != nil:
			return err
		}
		fmt.Printf("%s: %d bytes as %s\n", path, stored.Size, stored.FileID)
	}
	return nil
}
