package rotgrpc

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// heldStream releases its connection once the stream is over, in one of the ways that
// [grpc.ClientConn.NewStream] lists.
type heldStream struct {
	grpc.ClientStream
	release func() // may be called again
	single  bool   // the server sends one message only
}

// cancelled releases the stream after the end of ctx. OnFinish alone is not enough: it is
// called for each attempt, and an interceptor that retries makes several in one stream.
// The end of ctx alone would be too early: if the connection were closed before gRPC has
// noticed the end of ctx, the call would get another status.
func (h *heldStream) cancelled(ctx context.Context) grpc.CallOption {
	return grpc.OnFinish(func(error) {
		if ctx.Err() != nil {
			h.release()
		}
	})
}

func (h *heldStream) Header() (metadata.MD, error) {
	md, err := h.ClientStream.Header()
	h.over(err)
	return md, err
}

// SendMsg does not release the stream at io.EOF: RecvMsg then returns the reason.
func (h *heldStream) SendMsg(m any) error {
	err := h.ClientStream.SendMsg(m)
	h.over(err)
	return err
}

func (h *heldStream) over(err error) {
	if err != nil && !errors.Is(err, io.EOF) {
		h.release()
	}
}

func (h *heldStream) RecvMsg(m any) error {
	err := h.ClientStream.RecvMsg(m)
	if err != nil || h.single {
		h.release()
	}
	return err
}
