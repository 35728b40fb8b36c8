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
