package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	pb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/artstore/artstore-pki/internal/errtext"
	"github.com/artstore/artstore-pki/internal/lograte"
	"github.com/artstore/artstore-pki/internal/unixsocket"
)

// Limits on what one connection can cost. A request of the two methods that are served is empty.
const (
	maxRequest      = 4 << 10 // bytes of a message
	maxHeader       = 8 << 10 // bytes of the header of a call
	maxAnswer       = 4 << 20 // bytes, what clients of gRPC accept by default
	callsPerConn    = 16      // open at the same time; further ones wait at the client
	handshakeTime   = 10 * time.Second
	idleTime        = 5 * time.Minute  // without a call
	pingAfter       = 1 * time.Minute  // of silence, to find processes that are stopped
	pingTime        = 20 * time.Second // for the answer
	pingsNoFaster   = 10 * time.Second // of clients
	window          = 64 << 10         // bytes that a client may send ahead, the least that gRPC accepts
	bufferSize      = 4 << 10          // bytes, for reading and for writing
	stopTime        = time.Second      // for clients to take note of the end
	streamsPerUser  = 128
	callTime        = 250 * time.Millisecond // the least that a call counts, so that a loop of calls costs little
	maxRefusalWords = 500                    // runes of the text of a refusal
)

// Outcomes, for Config.Observer.
const (
	Sent        = "sent"        // a message with SVIDs or bundles
	Denied      = "denied"      // a call of a caller that no rule matches
	Invalid     = "invalid"     // a call without the security header, or of a method that is not served
	Unavailable = "unavailable" // a call or stream of which no identity can be handed out now
	Limited     = "limited"     // a connection or call over the limits
)

// ErrBusy reports a socket that a running process serves.
var ErrBusy = unixsocket.ErrBusy

// Config says what to serve. Identities and Rules are required.
type Config struct {
	Identities *Identities
	// Rules may name identities that are put in later.
	Rules *Rules
	// Observer is called with the outcome of each call and message. It must not block. nil
	// means none.
	Observer func(outcome string)
	// Logger gets identities that are served or not any more, and refusals, at most one line a
	// minute of each kind. nil means slog.Default.
	Logger *slog.Logger
}

// Socket says where to listen and who may connect.
type Socket struct {
	// Path of the socket, 103 bytes at most. The directory must exist, and no other user than
	// root and this one may be able to write to it or replace it: clients trust what the socket
	// says. A directory with the sticky bit, such as /tmp, is refused too.
	Path string
	// Group is the id of a group: its members and this user may connect (mode 0660). 0 means
	// that everyone may connect (mode 0666). In both cases the rules decide who gets something.
	Group int
}

// Listen makes the socket. A socket that a killed process left is replaced; [ErrBusy] reports one
// that is served. Serve removes it at its end.
func Listen(ctx context.Context, s Socket) (net.Listener, error) {
	return unixsocket.Listen(ctx, unixsocket.Socket{Path: s.Path, Group: s.Group, Everyone: s.Group == 0, Guarded: true})
}

// Regroup gives a socket of [Listen] to another Group, while it is served. If it fails, nothing has
// changed. Connections that are open stay: rules decide what they get.
func (s Socket) Regroup(ln net.Listener) error {
	return unixsocket.Regroup(ln, unixsocket.Socket{Group: s.Group, Everyone: s.Group == 0})
}

// Serve serves until ctx ends, and then returns nil, within seconds. It closes ln. Its
// callers must be on a Unix socket. On systems other than Linux it fails with
// [errors.ErrUnsupported], because they do not say who has connected.
func Serve(ctx context.Context, ln net.Listener, cfg Config) error {
	if err := serve(ctx, ln, cfg); err != nil {
		return fmt.Errorf("serving the Workload API: %w", err)
	}
	return nil
}

func serve(ctx context.Context, ln net.Listener, cfg Config) error {
	s, err := newServer(ln, cfg)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	srv := grpc.NewServer(s.options()...)
	srv.RegisterService(servedMethods(), s)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // before the Wait above
	defer cfg.Rules.tell(s.listener)()
	wg.Go(func() { s.tellStates(ctx) })
	wg.Go(func() {
		<-ctx.Done()
		stop(srv, s)
	})
	if err := srv.Serve(s.listener); ctx.Err() == nil {
		return err
	}
	return nil
}

// stop lets clients take note of the end, and then cuts their connections.
func stop(srv *grpc.Server, s *server) {
	close(s.stopping)
	done := make(chan struct{})
	go func() { defer close(done); srv.GracefulStop() }()
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		s.listener.cutAll() // those too that gRPC does not know yet, because they have said nothing
		srv.Stop()          // GracefulStop returns, too
	}
	<-done
}

type server struct {
	pb.UnimplementedSpiffeWorkloadAPIServer
	ids      *Identities
	log      *slog.Logger
	observe  func(outcome string)
	listener *listener
	stopping chan struct{} // closed when the server ends
	refusals lograte.Gate
	panics   lograte.Gate

	mu      sync.Mutex     // guards streams
	streams map[uint32]int // open streams by user
}

func newServer(ln net.Listener, cfg Config) (*server, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Observer == nil {
		cfg.Observer = func(string) {}
	}
	switch {
	case cfg.Identities == nil:
		return nil, errors.New("Identities is missing")
	case cfg.Rules == nil:
		return nil, errors.New("Rules is missing")
	case ln.Addr().Network() != "unix":
		return nil, fmt.Errorf("the listener is for %q, and must be a Unix socket", ln.Addr().Network())
	case !knowsPeers:
		return nil, fmt.Errorf("asking who has connected: %w", errors.ErrUnsupported)
	}
	return &server{
		ids: cfg.Identities, log: cfg.Logger, observe: cfg.Observer, stopping: make(chan struct{}), streams: map[uint32]int{},
		listener: &listener{
			Listener: ln, rules: cfg.Rules, log: cfg.Logger, limited: func() { cfg.Observer(Limited) }, decided: cfg.Identities.changed,
			byRule: map[int]int{}, byUser: map[uint32]int{}, open: map[*conn]bool{},
		},
	}, nil
}

func (s *server) options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(peerCredentials{new(lograte.Gate)}),
		grpc.ChainStreamInterceptor(s.admit),
		grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return nil }), // admit refuses before
		grpc.ConnectionTimeout(handshakeTime),
		grpc.MaxConcurrentStreams(callsPerConn),
		grpc.MaxHeaderListSize(maxHeader),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxSendMsgSize(maxAnswer),
		grpc.StaticConnWindowSize(window),
		grpc.StaticStreamWindowSize(window),
		grpc.ReadBufferSize(bufferSize),
		grpc.WriteBufferSize(bufferSize),
		grpc.WaitForHandlers(true),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTime, Time: pingAfter, Timeout: pingTime}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingsNoFaster, PermitWithoutStream: true}),
	}
}

// tellStates logs which identities are served and why others are not, when that changes.
func (s *server) tellStates(ctx context.Context) {
	told := map[string]string{}
	for {
		changed := s.ids.next()
		for _, st := range s.ids.Status() {
			text := st.SPIFFEID + errtext.Of(st.Err) + errtext.Of(st.ListsErr)
			switch before, known := told[st.Name]; {
			case known && before == text:
			case st.Err != nil:
				s.log.Warn("identity not served", "identity", st.Name, "err", st.Err)
			case st.ListsErr != nil:
				s.log.Warn("identity served without its revocation lists", "identity", st.Name, "spiffe_id", st.SPIFFEID, "err", st.ListsErr)
			default:
				s.log.Info("identity served", "identity", st.Name, "spiffe_id", st.SPIFFEID)
			}
			told[st.Name] = text
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// servedMethods is the service without the methods that are not served. The handler of unknown
// methods then gets calls of them, before gRPC has read a message.
func servedMethods() *grpc.ServiceDesc {
	desc := pb.SpiffeWorkloadAPI_ServiceDesc
	desc.Methods = nil
	desc.Streams = slices.DeleteFunc(slices.Clone(desc.Streams), func(d grpc.StreamDesc) bool {
		return !slices.Contains(servedNames, methodPrefix+d.StreamName)
	})
	return &desc
}
