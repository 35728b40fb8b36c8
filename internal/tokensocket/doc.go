// Package tokensocket hands the access token of a service account to programs
// that are not written in Go: HTTP over a Unix socket.
//
//	ln, err := tokensocket.Listen(tokensocket.Socket{Path: "/run/ingester/token.sock"})
//	err = tokensocket.Serve(ctx, ln, tokensocket.Config{Client: client})
//
// GET /token answers the client's cached token in the form of RFC 6749
// §5.1. POST /token/reject says that a server answered 401 to a token: the next
// GET has another one.
//
// # What it promises
//
//   - Who may have the token is decided by the file system: the socket is made
//     with mode 0600, or 0660 for one group, and never has more in between
//     (TestModeHoldsFromTheBegin).
//   - A socket that somebody listens on is not taken, and neither is anything
//     that is not a socket of this user (TestWhatIsInTheWay). What a killed
//     process left is replaced.
//   - A client that is slow, or many of them, cannot keep the token from others
//     for longer than a timeout (TestSlowClients). One that rejects every token
//     costs the token endpoint one request in five seconds (TestRejections).
//   - The token is in answers and nowhere else (TestTokenIsInAnswersOnly).
package tokensocket
