package unixsocket

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// Peer says who called connect, as the kernel has recorded it at that moment. Another process
// may use the connection since then, if it has got it from that one.
type Peer struct {
	UID uint32 // effective user; 65534 stands for users that do not exist in the user namespace of this process
	GID uint32 // effective group
	PID int32  // 0 if the process is not visible in the PID namespace of this process
}

// PeerOf returns the peer of a connection that a Unix socket has accepted. On systems other than
// Linux the error matches [errors.ErrUnsupported].
func PeerOf(conn net.Conn) (Peer, error) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return Peer{}, errors.New("asking who has connected: the connection has no file descriptor")
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return Peer{}, fmt.Errorf("asking who has connected: %w", err)
	}
	var p Peer
	if controlled := raw.Control(func(fd uintptr) { p, err = peerOf(int(fd)) }); controlled != nil {
		err = controlled
	}
	if err != nil {
		return Peer{}, fmt.Errorf("asking who has connected: %w", err)
	}
	return p, nil
}

// PeerUID returns the user of [PeerOf], and -1 with an error.
func PeerUID(conn net.Conn) (uid int, err error) {
	p, err := PeerOf(conn)
	if err != nil {
		return -1, err // 0 would be root
	}
	return int(p.UID), nil
}
