package unixsocket

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// errNoPeer reports a connection of which the kernel knows no user.
var errNoPeer = errors.New("the connection is none of a Unix socket")

// PeerUID returns the number of the user who connected, as the kernel has recorded it when
// the connection was made (SO_PEERCRED in unix(7)). c must be a connection of a Unix socket.
// On systems other than Linux it fails.
func PeerUID(c net.Conn) (uid int, err error) {
	socket, ok := c.(*net.UnixConn)
	if !ok {
		return 0, errNoPeer
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("asking who connected: %w", err)
	}
	var peer *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		peer, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err = errors.Join(err, failed); err != nil {
		return 0, fmt.Errorf("asking who connected: %w", err)
	}
	return int(peer.Uid), nil
}
