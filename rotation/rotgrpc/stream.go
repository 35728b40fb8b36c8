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
	release func() // idempotent
	single  bool   // one answer and no more
}

// cancelled covers the end of ctx. OnFinish alone would speak of an attempt,
// and an interceptor that retries has several in one stream. The context alone
// would come too early: closed before gRPC has seen it, the connection would
// get to answer in its place, with another status.
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

// SendMsg: io.EOF says that the reason is to be received.
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
