package httpserver

import (
	"context"
	"errors"
	"net"
	"net/http"

	"github.com/artstore/artstore-pki/internal/connlimit"
)

// Held are the caps on connections that are held, see [Hold].
type Held struct {
	// Total of all owners. A request beyond it is not held. 0 means none.
	Total int
	// PerOwner is how many connections one owner may have held. With a further one, its
	// oldest one counts as an ordinary connection again, or is closed where the caps of
	// these have no room. 0 means no limit.
	PerOwner int
}

// ErrHeld reports that Held.Total connections are held already.
var ErrHeld = connlimit.ErrFull

// connKey is the key in a context for the connection of a request.
type connKey struct{}

// requestKey is the key in a context for what ends the count of an open request.
type requestKey struct{}

// Hold says that a request will be open for minutes, such as one that waits for a change.
// The request is not an open request of its address any more, and its connection leaves
// [Conns] until it is closed: what only waits must not use up the room of others. owner is
// who sent the request, as the handler has authenticated it; peers that were not
// authenticated must not be held. The handler sets the deadlines itself.
//
// The error is [ErrHeld], or that of closing a connection in favour of this one. A request
// that no [Serve] has accepted is held as it is.
func Hold(r *http.Request, owner string, most Held) error {
	c, ok := r.Context().Value(connKey{}).(net.Conn)
	if !ok {
		return nil
	}
	if err := connlimit.Park(c, owner, connlimit.Parking(most)); err != nil && !errors.Is(err, connlimit.ErrNotCounted) {
		return err
	}
	if release, ok := r.Context().Value(requestKey{}).(func()); ok {
		release()
	}
	return nil
}

// withConn returns the ConnContext of a server: it keeps what [Hold] and [Detach] need,
// after next, which may be nil.
func withConn(next func(context.Context, net.Conn) context.Context, detached *detachedConns) func(context.Context, net.Conn) context.Context {
	return func(ctx context.Context, c net.Conn) context.Context {
		if next != nil {
			ctx = next(ctx, c)
		}
		return context.WithValue(context.WithValue(ctx, connKey{}, c), detachedKey{}, detached)
	}
}
