package spiffe_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/spiffe"
)

// A server of go-spiffe whose certificate comes from elsewhere and rotates.
func ExampleNewSource() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // for a source that has nothing yet
	defer cancel()
	id, err := rotation.Open(ctx, rotation.Config{
		Source: exampleSource(), // such as files.Source or enroll.New
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = id.Close() }()

	src := spiffe.NewSource(id)
	svid, err := src.GetX509SVID()
	if err != nil {
		log.Fatal(err)
	}
	conf := tlsconfig.MTLSServerConfig(src, src, tlsconfig.AuthorizeMemberOf(svid.ID.TrustDomain()))
	conf.SessionTicketsDisabled = true // go-spiffe does not judge resumed sessions
	_, err = src.GetX509BundleForTrustDomain(spiffeid.RequireTrustDomainFromString("elsewhere.example"))

	fmt.Println(svid.ID)
	fmt.Println(err)
	// Output:
	// spiffe://artstore.example/storage
	// finding the trust bundle of "elsewhere.example": only the one of "artstore.example" is known
}

func exampleSource() rotation.Source {
	t := pkitest.Example()
	return rotation.Static(pkitest.NewCA(t).Leaf(t, "storage", named(storage)))
}
