package unixsocket

import "syscall"

const noFollow = syscall.O_NOFOLLOW | syscall.O_NONBLOCK // a FIFO in the place of a file does not hold us up

// restrict gives a socket its mode before it has a name: Linux makes the file
// with the mode of the socket, less the umask.
func restrict(_, _ string, c syscall.RawConn) error {
	var err error
	if controlled := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), uint32(ownerOnly)) }); controlled != nil {
		return controlled
	}
	return err
}

func peerOf(fd int) (Peer, error) {
	c, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	if err != nil {
		return Peer{}, err
	}
	if c.Pid == 0 && c.Uid == ^uint32(0) { // what the kernel says of a socket that was never connected
		return Peer{}, syscall.ENOTCONN
	}
	return Peer{UID: c.Uid, GID: c.Gid, PID: c.Pid}, nil
}
