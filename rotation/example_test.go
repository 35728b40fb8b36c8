package rotation_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
)

// The server of one process and the client of another, each with its identity:
// the service "storage" lets in the service "ingester". Open waits for the first
// certificate, which may come over the network: so its context has a limit.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	storage, err := rotation.Open(ctx, rotation.Config{Source: exampleSource("storage")})
	check(err)
	defer func() { _ = storage.Close() }()
	server, err := storage.Server(rotation.ServerOptions{Authorize: rotation.AllowNames("ingester")})
	check(err)
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello, %s", r.TLS.PeerCertificates[0].DNSNames[0])
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	running, stop := context.WithCancel(context.Background()) // signal.NotifyContext in a program
	served := make(chan error, 1)
	go func() { served <- server.Serve(running, ln, hello) }()

	ingester, err := rotation.Open(ctx, rotation.Config{Source: exampleSource("ingester")})
	check(err)
	defer func() { _ = ingester.Close() }()
	transport, err := ingester.Transport(rotation.TransportOptions{})
	check(err)
	client := &http.Client{Transport: transport}
	resp, err := client.Get("https://" + ln.Addr().String())
	check(err)
	body, err := io.ReadAll(resp.Body)
	check(err)
	check(resp.Body.Close()) // a body that is not closed keeps the old identity open
	fmt.Println(resp.Status, string(body))
	stop()
	check(<-served) // requests under way have finished
	// Output: 200 OK hello, ingester
}

// A server of its own protocol. Accept returns connections whose peer is known
// and allowed; they are cut when it no longer is.
func ExampleServer_Listener() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	id, err := rotation.Open(ctx, rotation.Config{Source: exampleSource("queue")})
	check(err)
	defer func() { _ = id.Close() }()
	server, err := id.Server(rotation.ServerOptions{
		Authorize:  rotation.AllowNames("queue"),
		NextProtos: []string{"echo"}, // the default is HTTP
		MaxAge:     time.Hour,        // then the client connects anew
	})
	check(err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	l := server.Listener(ln)
	defer func() { _ = l.Close() }()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()

	transport, err := id.Transport(rotation.TransportOptions{})
	check(err)
	c, err := transport.DialTLSContext(ctx, "tcp", ln.Addr().String())
	check(err)
	defer func() { _ = c.Close() }()
	fmt.Fprint(c, "ping")
	answer := make([]byte, 4)
	_, err = io.ReadFull(c, answer)
	check(err)
	fmt.Println(string(answer))
	// Output: ping
}

// A mounted secret of Kubernetes: the files are links through "..data", which
// the kubelet swaps. cert-manager's names are the ones used here.
func Example_kubernetes() {
	dir, update := exampleSecret("ingester")
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	id, err := rotation.Open(ctx, rotation.Config{
		Source: files.Source(files.Set{Dir: dir}),
	})
	check(err)
	defer func() { _ = id.Close() }()
	changed := make(chan rotation.Change, 1)
	defer id.Subscribe(func(c rotation.Change) { changed <- c })()

	update() // as the kubelet does it
	c := <-changed
	fmt.Println("generation", c.Previous.Number(), "→", c.Generation.Number(), c.Err)
	fmt.Println("ready:", id.Check() == nil) // for the readiness probe
	// Output:
	// generation 1 → 2 <nil>
	// ready: true
}

// A library that wants a *tls.Config. It is bound to the name; ask for one for
// each dial, so that a root that was added is known to it.
func ExampleIdentity_ClientTLSConfig() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	id, err := rotation.Open(ctx, rotation.Config{Source: exampleSource("reports")})
	check(err)
	defer func() { _ = id.Close() }()
	beforeConnect := func() error {
		conf, err := id.ClientTLSConfig("db.internal")
		if err != nil {
			return err
		}
		fmt.Println("connecting to", conf.ServerName) // driver.TLSConfig = conf
		return nil
	}
	check(beforeConnect())
	// Output: connecting to db.internal
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// What a program does with changes: here it says what its operators should know.
func ExampleIdentity_Subscribe() {
	told := make(chan string, 1)
	report := func(c rotation.Change) {
		switch {
		case c.Overdue: // once for each certificate, when a fifth of its life is left
			told <- "the renewal does not come: " + c.Err.Error()
		case c.Err != nil:
			told <- "a certificate was refused: " + c.Err.Error()
		case !c.Generation.Leaf().Equal(c.Previous.Leaf()):
			told <- "another certificate"
		default:
			told <- "the same certificate with other trust or revocation lists"
		}
	}
	dir, update := exampleSecret("ingester")
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	id, err := rotation.Open(ctx, rotation.Config{Source: files.Source(files.Set{Dir: dir})})
	check(err)
	defer func() { _ = id.Close() }()
	defer id.Subscribe(report)()

	update()
	fmt.Println(<-told)
	// Output: another certificate
}
