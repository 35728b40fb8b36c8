//go:build !linux

package unixsocket

import (
	"errors"
	"syscall"
)

const noFollow = 0

// restrict does nothing: these systems have no mode of a socket without a name.
// Until open has set it, the mode is that of the umask, and the usual one lets
// nobody else connect.
func restrict(_, _ string, _ syscall.RawConn) error { return nil }

func peerOf(int) (Peer, error) { return Peer{}, errors.ErrUnsupported }
