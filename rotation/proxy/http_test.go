package proxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/proxy"
)

// show answers with what a service sees of a request, one fact on a line.
func show(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	_, _ = fmt.Fprintf(w, "%s %s %s\nHost: %s\nBody: %q %v\nTrailers: %d\n", r.Method, r.RequestURI, r.Proto, r.Host, body, err, len(r.Trailer))
	_ = r.Header.Write(w)
}

// over returns a client of a proxy, whose requests name the host svc.
func (w *world) over(addr string, options rotation.TransportOptions) *http.Client {
	w.t.Helper()
	options.ServerName = serverName
	options.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	return &http.Client{Transport: w.transport(options), Timeout: patience}
}

// do sends one request and returns the answer with its body.
func do(t *testing.T, c *http.Client, req *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := c.Do(req)
	must(t, err)
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	must(t, resp.Body.Close())
	return resp, string(body)
}

func request(t *testing.T, method, url, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	must(t, err)
	return req
}

// TestServiceSeesThePeer expects that a service behind HTTP/1.1 and h2c sees the request as it
// was, and the identity by which the peer was admitted, whatever the peer says of itself.
func TestServiceSeesThePeer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	at := httpService(t, http.HandlerFunc(show))
	for name, c := range map[string]struct {
		edit  func(*proxy.ServerConfig)
		proto string
	}{"HTTP/1.1": {http1, "HTTP/1.1"}, "h2c": {h2c, "HTTP/2.0"}} {
		for _, http1Only := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s %v", name, http1Only), func(t *testing.T) {
				s, server := w.server(at, c.edit, func(c *proxy.ServerConfig) { c.Allow = []string{"other", spiffeID} })
				client := w.over(server.addr, rotation.TransportOptions{HTTP1Only: http1Only})
				req := request(t, http.MethodPost, "https://svc:8443/a%2Fb//c;d?x=1;y=%zz&z", "the body")
				req.Header.Set("X-Client-Identity", "admin")
				req.Header.Set("Client-Cert", ":YWRtaW4=:")
				req.Header.Set("X-Forwarded-For", "192.0.2.1")
				req.Header.Set("Accept", "text/x")
				req.ContentLength, req.Trailer = -1, http.Header{"X-Client-Identity": {"admin"}}
				resp, got := do(t, client, req)
				if resp.ProtoMajor == 1 != http1Only {
					t.Errorf("spoken is %s", resp.Proto)
				}
				leaf := w.clientID.Current().Leaf()
				for _, want := range []string{
					"POST /a%2Fb//c;d?x=1;y=%zz&z " + c.proto + "\n", "Host: svc:8443\n", `Body: "the body" <nil>` + "\nTrailers: 0\n", "Accept: text/x\r\n",
					"X-Client-Identity: " + spiffeID + "\r\n", "X-Forwarded-For: 127.0.0.1\r\n", "X-Forwarded-Proto: https\r\n", "X-Forwarded-Host: svc:8443\r\n",
					"Client-Cert: :" + base64.StdEncoding.EncodeToString(leaf.Raw) + ":\r\n",
				} {
					if !strings.Contains(got, want) {
						t.Errorf("the service does not see %q:\n%s", want, got)
					}
				}
				if strings.Contains(got, "admin") || strings.Contains(got, "YWRtaW4") || strings.Contains(got, "192.0.2.1") {
					t.Errorf("the service sees what the peer made up:\n%s", got)
				}
				if n := s.Stats().Requests; n != 1 {
					t.Errorf("%d requests counted", n)
				}
			})
		}
	}
}

// TestServiceAwayHTTP expects status 502 with a short text, which counts; and that a peer that
// leaves does not count as a fault of the service.
func TestServiceAwayHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	gone := listen(t)
	must(t, gone.Close())
	s, server := w.server(gone.Addr().String(), http1)
	client := w.over(server.addr, rotation.TransportOptions{})
	resp, got := do(t, client, request(t, http.MethodGet, "https://svc/", ""))
	if resp.StatusCode != http.StatusBadGateway || got != "the service behind this proxy did not answer\n" {
		t.Errorf("%s %q", resp.Status, got)
	}
	if n := failures(s.Stats(), "unreachable"); n != 1 {
		t.Errorf("counted %d times", n)
	}
	if !strings.Contains(w.logs.String(), "level=WARN") {
		t.Errorf("no warning: %s", w.logs)
	}
	ctx, cancel := context.WithCancel(t.Context())
	reached := make(chan struct{})
	s, server = w.server(httpService(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { close(reached); <-r.Context().Done() })), http1)
	req := request(t, http.MethodGet, "https://svc/", "").WithContext(ctx)
	go func() { <-reached; cancel() }()
	if resp, err := w.over(server.addr, rotation.TransportOptions{}).Do(req); err == nil {
		_ = resp.Body.Close()
		t.Errorf("a request that was given up: %s", resp.Status)
	}
	await(t, "the failure to count", func() bool { return failures(s.Stats(), "peer") == 1 })
	if n := failures(s.Stats(), "broken"); n != 0 {
		t.Errorf("%d faults of the service", n)
	}
	// A service that dies in the middle of its answer: the peer must not take the rest for all.
	s, server = w.server(tcpService(t, func(c *net.TCPConn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes.")
	}), http1)
	resp, err := w.over(server.addr, rotation.TransportOptions{}).Get("https://svc/")
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
	}
	if err == nil {
		t.Error("half an answer was passed off as a whole")
	}
	// One that does not speak HTTP.
	s, server = w.server(tcpService(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "220 mail\r\n") }), http1)
	if resp, _ := do(t, w.over(server.addr, rotation.TransportOptions{}), request(t, http.MethodGet, "https://svc/", "")); resp.StatusCode != http.StatusBadGateway {
		t.Errorf("a service that does not speak HTTP: %s", resp.Status)
	}
	if n := failures(s.Stats(), "broken"); n != 1 {
		t.Errorf("%d faults of the service", n)
	}
}

// TestTruncatedAnswerIsNoEnd expects that a program does not take an answer for whole whose
// connection ends without the close_notify of TLS, where nothing but that says its end.
func TestTruncatedAnswerIsNoEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server, err := w.serverID.Server(rotation.ServerOptions{Authorize: rotation.AllowNames(clientName), NextProtos: []string{"http/1.1"}})
	must(t, err)
	ln := server.Listener(listen(t))
	t.Cleanup(func() { must(t, ln.Close()) })
	whole := make(chan bool, 2)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nthe beginning")
			if <-whole {
				_ = c.Close()
				continue
			}
			_ = c.(*tls.Conn).NetConn().Close()
		}
	}()
	_, client := w.clientSide(listen(t), ln.Addr().String(), func(c *proxy.ClientConfig) { c.Protocol = proxy.HTTP })
	for _, all := range []bool{true, false} {
		whole <- all
		resp, err := plainClient().Do(request(t, http.MethodGet, "http://"+client.addr, ""))
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if (err == nil) != all {
			t.Errorf("whole: %v, and the program has read %q, %v", all, body, err)
		}
	}
}

// grpcService is a service of gRPC without TLS, which sends back each message and the
// identity that it was told.
type grpcService struct {
	testpb.UnimplementedTestServiceServer
}

func (grpcService) FullDuplexCall(s testpb.TestService_FullDuplexCallServer) error {
	md, _ := metadata.FromIncomingContext(s.Context())
	s.SetTrailer(metadata.Pairs("seen", strings.Join(md["x-client-identity"], "+")))
	for {
		in, err := s.Recv()
		if err == io.EOF { //nolint:errorlint // gRPC returns io.EOF itself
			return status.Error(codes.OutOfRange, "the end")
		}
		if err != nil {
			return err
		}
		if err := s.Send(&testpb.StreamingOutputCallResponse{Payload: in.GetPayload()}); err != nil {
			return err
		}
	}
}

func startGRPC(t *testing.T) string {
	t.Helper()
	srv, ln := grpc.NewServer(), listen(t)
	testpb.RegisterTestServiceServer(srv, grpcService{})
	go func() { _ = srv.Serve(ln) }() // until Stop
	t.Cleanup(srv.Stop)
	return ln.Addr().String()
}

// duplex opens a stream over a client side at addr.
func duplex(t *testing.T, addr string) testpb.TestService_FullDuplexCallClient {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { _ = cc.Close() })
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), "x-client-identity", "admin"), patience)
	t.Cleanup(cancel)
	s, err := testpb.NewTestServiceClient(cc).FullDuplexCall(ctx)
	must(t, err)
	return s
}

// exchange sends a message over the stream and wants it back.
func exchange(t *testing.T, s testpb.TestService_FullDuplexCallClient, text string) {
	t.Helper()
	must(t, s.Send(&testpb.StreamingOutputCallRequest{Payload: &testpb.Payload{Body: []byte(text)}}))
	m, err := s.Recv()
	must(t, err)
	if got := string(m.GetPayload().GetBody()); got != text {
		t.Errorf("%q came back as %q", text, got)
	}
}

// endDuplex ends the stream, and wants the status and the trailer of the service.
func endDuplex(t *testing.T, s testpb.TestService_FullDuplexCallClient) {
	t.Helper()
	must(t, s.CloseSend())
	_, err := s.Recv()
	if got := status.Convert(err); got.Code() != codes.OutOfRange || got.Message() != "the end" {
		t.Errorf("the status is %v", err)
	}
	if got := s.Trailer()["seen"]; len(got) != 1 || got[0] != clientName {
		t.Errorf("the service was told %q", got)
	}
}

// TestGRPC passes a stream in both directions through both sides, message by message, with
// the status in trailers.
func TestGRPC(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, server := w.server(startGRPC(t), h2c)
	_, client := w.clientSide(listen(t), server.addr, func(c *proxy.ClientConfig) { c.Protocol = proxy.HTTP })
	s := duplex(t, client.addr)
	for i := range 5 {
		exchange(t, s, fmt.Sprint("message ", i))
	}
	endDuplex(t, s)
}

// webSocketService sends back each message, after the identity that it was told.
func webSocketService() http.Handler {
	return websocket.Handler(func(ws *websocket.Conn) {
		for {
			var in string
			if websocket.Message.Receive(ws, &in) != nil {
				return
			}
			_ = websocket.Message.Send(ws, ws.Request().Header.Get("X-Client-Identity")+" "+in)
		}
	})
}

// webSocket opens a WebSocket over conn.
func webSocket(t *testing.T, conn net.Conn, host string) *websocket.Conn {
	t.Helper()
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	ws, err := startWebSocket(conn, host)
	must(t, err)
	t.Cleanup(func() { _ = ws.Close() })
	return ws
}

func startWebSocket(conn net.Conn, host string) (*websocket.Conn, error) {
	at, origin := &url.URL{Scheme: "ws", Host: host, Path: "/"}, &url.URL{Scheme: "http", Host: host}
	return websocket.NewClient(&websocket.Config{Location: at, Origin: origin, Version: websocket.ProtocolVersionHybi13, Header: http.Header{"X-Client-Identity": {"admin"}}}, conn)
}

func say(t *testing.T, ws *websocket.Conn, text string) {
	t.Helper()
	must(t, websocket.Message.Send(ws, text))
	var got string
	must(t, websocket.Message.Receive(ws, &got))
	if want := clientName + " " + text; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func dial(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), network, addr)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestWebSocket passes a WebSocket through both sides, also where others go by HTTP/2, and cuts it when idle.
func TestWebSocket(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*proxy.ServerConfig){"HTTP/1.1": http1, "h2c": h2c} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			at := httpService(t, webSocketService())
			s, server := w.server(at, edit)
			c, client := w.clientSide(listen(t), server.addr, func(c *proxy.ClientConfig) { c.Protocol = proxy.HTTP })
			ws := webSocket(t, dial(t, "tcp", client.addr), "localhost")
			for i := range 3 {
				say(t, ws, fmt.Sprint("message ", i))
			}
			must(t, ws.Close())
			await(t, "the connections to end", func() bool { return s.Stats().Connections+c.Stats().Connections == 0 })

			s, server = w.server(at, edit, func(c *proxy.ServerConfig) { c.Limits.Idle = 100 * time.Millisecond })
			conn := w.dial(server.addr, "http/1.1")
			_, _ = startWebSocket(conn, "svc") // a busy machine may take longer than it may be idle
			if rest, err := io.ReadAll(conn); isTimeout(err) {
				t.Errorf("an idle WebSocket stays open: %q", rest)
			}
			await(t, "the failure to count", func() bool { return failures(s.Stats(), "idle") == 1 })
		})
	}
}

// TestStopHTTP expects that requests and WebSockets may finish after the end, and are cut
// after Limits.Stop, at both sides.
func TestStopHTTP(t *testing.T) {
	t.Parallel()
	for name, finishes := range map[string]bool{"finishes": true, "does not": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			stop := patience
			if !finishes {
				stop = 50 * time.Millisecond
			}
			_, server := w.server(httpService(t, webSocketService()), http1, func(c *proxy.ServerConfig) { c.Limits.Stop = stop })
			_, client := w.clientSide(listen(t), server.addr, func(c *proxy.ClientConfig) { c.Protocol, c.Limits.Stop = proxy.HTTP, stop })
			ws := webSocket(t, dial(t, "tcp", client.addr), "localhost")
			say(t, ws, "hello")
			ended := make(chan error, 2)
			go func() { ended <- client.stop() }()
			go func() { ended <- server.stop() }()
			if !finishes {
				if err := <-ended; err == nil {
					t.Error("a WebSocket was cut, and Serve returned nil")
				}
				<-ended // the other one may have seen a regular end by then
				return
			}
			say(t, ws, "after the end")
			must(t, ws.Close())
			must(t, <-ended)
			must(t, <-ended)
		})
	}
}

// TestClientRefusesBrowsers expects that a page of another site cannot use the identity, by
// loopback or by a name that resolves to it, and that programs can.
func TestClientRefusesBrowsers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, server := w.server(httpService(t, http.HandlerFunc(show)), http1)
	ln, path := listenUnix(t)
	_, overSocket := w.clientSide(ln, server.addr, func(c *proxy.ClientConfig) { c.Protocol = proxy.HTTP })
	c, client := w.clientSide(listen(t), server.addr, func(c *proxy.ClientConfig) { c.Protocol = proxy.HTTP })
	_, port, err := net.SplitHostPort(client.addr)
	must(t, err)
	for _, r := range []struct {
		host, site, origin string
		want               int
	}{
		{client.addr, "", "", 200}, {"localhost:" + port, "", "", 200}, {"[::1]:" + port, "", "", 200}, {"localhost", "", "", 200}, {"[::1]", "", "", 200}, {server.addr, "", "", 200},
		{"127.0.0.1", "same-origin", "http://127.0.0.1", 200}, {client.addr, "", "http://localhost:3000", 200},
		{"attacker.example", "", "", 403}, {"attacker.example:" + port, "", "", 403}, {"localhost.attacker.example", "", "", 403}, {"192.0.2.1", "", "", 403}, {"[2001:db8::1]:80", "", "", 403}, {"unix:x", "", "", 403},
		{client.addr, "cross-site", "", 403}, {client.addr, "same-site", "", 403},
		{client.addr, "", "https://attacker.example", 403}, {client.addr, "", "null", 403}, {client.addr, "", "http://localhost.attacker.example", 403}, {client.addr, "", "http://localhost@attacker.example", 403}, {client.addr, "", "unix:/x", 403}, {client.addr, "", "%zz", 403},
	} {
		req := request(t, http.MethodPost, "http://"+client.addr+"/", "x")
		req.Host = r.host
		if r.site != "" {
			req.Header.Set("Sec-Fetch-Site", r.site)
		}
		if r.origin != "" {
			req.Header.Set("Origin", r.origin)
		}
		if resp, body := do(t, plainClient(), req); resp.StatusCode != r.want {
			t.Errorf("host %s of site %q, origin %q: %s %s", r.host, r.site, r.origin, resp.Status, body)
		}
	}
	if n := failures(c.Stats(), "request"); n != 14 {
		t.Errorf("%d refusals counted", n)
	}
	socket := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	req := request(t, http.MethodGet, "http://anything/x", "")
	req.Header.Set("X-Forwarded-For", "192.0.2.7")
	req.Header.Set("Sec-Fetch-Site", "cross-site") // passed on by another proxy of this machine
	req.Header.Set("Origin", "https://app.example")
	if resp, body := do(t, socket, req); resp.StatusCode != http.StatusOK || !strings.Contains(body, "Host: "+server.addr+"\n") {
		t.Errorf("over the socket %s: %s %s", overSocket.addr, resp.Status, body)
	}
}
