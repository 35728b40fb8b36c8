//go:build linux || darwin

package httpserver

import "syscall"

// readable reports whether a read would return at once: there are bytes, the end of the
// connection, or an error. It takes nothing out of the socket.
func readable(c syscall.RawConn) (ready bool) {
	var one [1]byte
	err := c.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		ready = err != syscall.EAGAIN && err != syscall.EINTR
		return true
	})
	return ready && err == nil
}
