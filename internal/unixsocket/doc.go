// Package unixsocket makes Unix sockets that the file system guards: the mode of a socket
// says who may connect, and a name has one server at a time.
//
//	ln, err := unixsocket.Listen(ctx, unixsocket.Socket{Path: "/run/ingester/token.sock"})
//	defer ln.Close() // removes the socket
//	uid, err := unixsocket.PeerUID(conn) // of an accepted connection
//
// Invariants:
//
//   - The socket has mode 0600, 0660 for one group or 0666 for everyone, and its mode is never
//     wider in between (TestModeHoldsFromTheBegin, TestRegroup).
//   - A guarded path is one that no other user can replace (TestGuarded).
//   - A socket on which a process listens is not replaced, and neither is a file that is no
//     socket of this user. The socket of a killed process is replaced
//     (TestWhatIsInTheWay).
//   - Of several processes that want one name, one gets it (TestOneServerForAName).
//   - The kernel says which user and process connects, and the peer cannot choose it
//     (TestPeerUID, TestPeerOf).
package unixsocket
