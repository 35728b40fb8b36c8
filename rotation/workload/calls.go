package workload

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	pb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/artstore/artstore-pki/internal/panics"
	"github.com/artstore/artstore-pki/internal/printable"
)

// securityHeader keeps programs that forward requests of others from being used as callers
// (SPIFFE Workload Endpoint, section 4).
const securityHeader = "workload.spiffe.io"

const methodPrefix = "/SpiffeWorkloadAPI/"

// servedNames are the methods that are served.
var servedNames = []string{pb.SpiffeWorkloadAPI_FetchX509SVID_FullMethodName, pb.SpiffeWorkloadAPI_FetchX509Bundles_FullMethodName}

// admit runs before each call, and calls next for those that get something. Nothing of the
// message has been read yet.
//
// Each call has its place in the limits for callTime at least, whatever the client does: else a
// loop that opens and cancels calls could keep the server busy.
func (s *server) admit(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	timer := time.NewTimer(callTime)
	defer timer.Stop()
	refusal := s.begin(stream.Context(), info.FullMethod)
	if refusal == nil {
		defer s.end(callerOf(stream.Context()).UID)
	}
	defer func() { // before end
		select {
		case <-timer.C:
		case <-s.stopping:
		}
	}()
	if refusal != nil {
		return refusal
	}
	defer panics.Catch(func(p *panics.Error) {
		if n := s.panics.Pass(time.Now()); n > 0 {
			s.log.Error("a call has failed by a fault of this program", "times", n, "err", p, "stack", p.Stack)
		}
		err = status.Error(codes.Internal, "a fault of the server")
	})
	return next(srv, stream)
}

// begin returns why a call is refused, or counts it as a stream of its user.
func (s *server) begin(ctx context.Context, method string) (refusal error) {
	who := callerOf(ctx)
	if who == nil {
		return status.Error(codes.PermissionDenied, "the caller is not known")
	}
	outcome, refusal := judge(ctx, who, method)
	if refusal == nil && !s.enter(who.UID) {
		outcome, refusal = Limited, status.Errorf(codes.ResourceExhausted, "user %d has %d streams open already", who.UID, streamsPerUser)
	}
	if refusal == nil {
		return nil
	}
	s.observe(outcome)
	if n := s.refusals.Pass(time.Now()); n > 0 {
		s.log.Warn("call refused", "uid", who.UID, "gid", who.GID, "pid", who.PID, "times", n, "err", refusal)
	}
	return refusal
}

// judge returns why a call is refused, or nil.
func judge(ctx context.Context, who *conn, method string) (outcome string, refusal error) {
	md, _ := metadata.FromIncomingContext(ctx)
	switch h := md.Get(securityHeader); {
	case len(h) != 1 || h[0] != "true":
		return Invalid, status.Errorf(codes.InvalidArgument, "the call lacks the security header %q: true", securityHeader)
	case !slices.Contains(servedNames, method):
		return Invalid, status.Errorf(codes.Unimplemented,
			"%s is not served: there are X.509-SVIDs and X.509 bundles here, no JWT-SVIDs and no WIT-SVIDs", printable.Line(strings.TrimPrefix(method, methodPrefix), 80))
	case len(who.names()) == 0:
		return Denied, who.denied()
	}
	return "", nil
}

// denied is the refusal of a caller that no rule matches.
func (c *conn) denied() error {
	return status.Errorf(codes.PermissionDenied, "no rule gives an identity to user %d, group %d, process %d", c.UID, c.GID, c.PID)
}

// enter counts a stream of a user, or reports that it has too many.
func (s *server) enter(uid uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[uid] >= streamsPerUser {
		return false
	}
	s.streams[uid]++
	return true
}

func (s *server) end(uid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[uid]--; s.streams[uid] == 0 {
		delete(s.streams, uid)
	}
}

// FetchX509SVID sends the SVIDs of the caller, now and after each change.
func (s *server) FetchX509SVID(_ *pb.X509SVIDRequest, stream grpc.ServerStreamingServer[pb.X509SVIDResponse]) error {
	var last []named
	return s.follow(stream.Context(), func(now []named) error {
		sent := make([]named, 0, len(now))
		msg := &pb.X509SVIDResponse{Crl: lists(now)}
		for _, n := range now {
			sent = append(sent, n)
			msg.Svids = append(msg.Svids, n.svid.message(n.name))
		}
		if slices.Equal(sent, last) {
			return nil
		}
		last = sent
		return s.send(func() error { return stream.Send(msg) })
	})
}

// FetchX509Bundles sends the bundles and revocation lists of the trust domains of the caller's
// identities, now and when one of them changes.
func (s *server) FetchX509Bundles(_ *pb.X509BundlesRequest, stream grpc.ServerStreamingServer[pb.X509BundlesResponse]) error {
	var last *pb.X509BundlesResponse
	return s.follow(stream.Context(), func(now []named) error {
		msg := &pb.X509BundlesResponse{Bundles: bundles(now), Crl: lists(now)}
		if last != nil && proto.Equal(msg, last) {
			return nil
		}
		last = msg
		return s.send(func() error { return stream.Send(msg) })
	})
}

// named is an SVID under the name of its identity.
type named struct {
	name string
	svid *svid
}

func (s *server) send(do func() error) error {
	if err := do(); err != nil {
		return err
	}
	s.observe(Sent)
	return nil
}

// follow calls send with what the caller gets, now and after each change, until the call ends.
// While send waits for a slow reader, changes are not queued: the next call of send has the
// newest state.
func (s *server) follow(ctx context.Context, send func([]named) error) error {
	who := callerOf(ctx)
	for {
		changed := s.ids.next()
		names := who.names()
		if len(names) == 0 { // a rule was taken away
			s.observe(Denied)
			return who.denied()
		}
		now, err := s.handOut(names)
		if err != nil {
			s.observe(Unavailable)
			return err
		}
		if err := send(now); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-s.stopping:
			// Not Canceled, after which go-spiffe does not try again.
			return status.Error(codes.Unavailable, "the server ends")
		}
	}
}

// handOut returns those of the identities that can be handed out, or why none can.
func (s *server) handOut(names []string) (now []named, err error) {
	var why []error
	for _, name := range names {
		v, err := s.ids.current(name)
		if err != nil {
			why = append(why, err)
			continue
		}
		now = append(now, named{name, v})
	}
	if len(now) > 0 {
		return now, nil
	}
	all := errors.Join(why...)
	code := codes.FailedPrecondition // somebody has to change something
	if errors.Is(all, errNotYet) {
		code = codes.Unavailable
	}
	return nil, status.Error(code, printable.Line(all.Error(), maxRefusalWords))
}
