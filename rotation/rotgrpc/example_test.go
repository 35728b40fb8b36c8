package rotgrpc_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/artstore/artstore-pki/internal/pkitest"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/rotgrpc"
)

// A server and a client of the standard health service; both certificates may
// change at any time.
func Example() {
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

	server, err := id.Server(rotation.ServerOptions{Authorize: rotation.AllowNames("storage")})
	if err != nil {
		log.Fatal(err)
	}
	srv := grpc.NewServer(append(rotgrpc.ServerOptions(server),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: time.Hour, MaxConnectionAgeGrace: time.Minute}),
	)...)
	healthpb.RegisterHealthServer(srv, health.NewServer())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = srv.Serve(ln) }()
	defer srv.Stop()

	client, err := rotgrpc.NewClient(id, ln.Addr().String(), rotation.TransportOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	answer, err := healthpb.NewHealthClient(client).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.GetStatus())
	// Output:
	// SERVING
}

func exampleSource() rotation.Source {
	t := pkitest.Example()
	return rotation.Static(pkitest.NewCA(t).Leaf(t, "storage"))
}
