// Package porttest finds TCP ports for programs that a test starts and that must
// be told their port. A test that listens itself takes port 0 instead.
package porttest

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// The ports that are tried. Systems give ports from 32768 up, or from 49152 up, to
// connections and to listeners on port 0. One of those could be taken before the
// program has it, or while it is killed and started again.
const (
	lowest = 10_000
	count  = 20_000
	tries  = 100
)

// FreeAddress returns an address of loopback, HOST:PORT, on which nothing listened
// a moment ago. The error is that of the last try.
func FreeAddress() (string, error) {
	var last error
	for range tries {
		addr := fmt.Sprintf("127.0.0.1:%d", lowest+rand.IntN(count))
		ln, err := net.Listen("tcp", addr)
		if err == nil {
			return addr, ln.Close() // a listener takes no socket from others: there was no connection
		}
		last = err
	}
	return "", fmt.Errorf("finding a free port: %w", last)
}
