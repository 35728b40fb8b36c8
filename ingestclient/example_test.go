package ingestclient_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
	"github.com/artstore/artstore-pki/secret"
)

// A service that uploads files under a certificate that rotates in its files.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	id, err := rotation.Open(ctx, rotation.Config{Source: files.Source(files.Set{
		Cert: "/etc/ingester/tls.crt", Key: "/etc/ingester/tls.key", CA: "/etc/ingester/ca.crt",
	})})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = id.Close() }() // after the client
	c, err := ingestclient.New(ingestclient.Config{
		TokenURL: "https://admin:8000/api/v1/auth/token",
		ClientID: "sa_prod_ingester_1a2b3c4d",
		ClientSecret: func(context.Context) (secret.String, error) {
			return secret.ReadFile("/etc/ingester/secret") // read for each token: it may be replaced
		},
		Elements: []ingestclient.Element{{URL: "https://storage-1:8010"}, {URL: "https://storage-2:8010", Priority: 1}},
	}, id)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	file, err := c.UploadFile(ctx, "/in/report.pdf", ingestclient.Meta{Description: "report of May"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(file.FileID, file.SHA256, file.Element)
}

// Content that is not a file: anything that can be read at an offset, of a size
// that is known.
func ExampleReaderContent() {
	var c *ingestclient.Client // of New
	text := "kept for a year"
	_, err := c.Upload(context.Background(), ingestclient.ReaderContent("note.txt", strings.NewReader(text), int64(len(text))), ingestclient.Meta{ContentType: "text/plain"})
	switch {
	case errors.Is(err, ingestclient.ErrAmbiguous):
		// It may be stored. Sending it again could store it twice.
	case err != nil:
		if e, ok := errors.AsType[*ingestclient.RequestError](err); ok && e.Retryable {
			fmt.Println("try later")
		}
	}
}

// Who would take a file now, without sending one.
func ExampleClient_Probe() {
	var c *ingestclient.Client // of New
	ctx := context.Background()
	elements, err := c.Elements(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range elements {
		switch err := c.Probe(ctx, e.URL); {
		case err == nil:
			fmt.Println(e.URL, "takes files")
		case errors.Is(err, ingestclient.ErrForbidden):
			fmt.Println(e.URL, "does not allow this account to store files")
		default:
			fmt.Println(e.URL, err)
		}
	}
}
