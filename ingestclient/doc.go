// Package ingestclient uploads files to ArtStore's Storage Elements over mutual
// TLS, with access tokens of a service account, while certificates, trust and
// tokens change under it.
//
//	id, err := rotation.Open(ctx, rotation.Config{Source: files.Source(set)})
//	c, err := ingestclient.New(ingestclient.Config{
//		TokenURL: "https://admin:8000/api/v1/auth/token",
//		ClientID: "sa_prod_ingester_1a2b3c4d", ClientSecret: readSecret,
//		Elements: []ingestclient.Element{{URL: "https://storage:8010"}},
//	}, id)
//	file, err := c.UploadFile(ctx, "/in/report.pdf", ingestclient.Meta{})
//
// Invariants:
//
//   - Each request has the token of its own certificate, and ends with both, however long
//     it takes (TestRequestInFlightKeepsItsPair). A bound token for a new certificate is
//     fetched before requests use that certificate (TestBoundTokenIsFetchedBeforeTheSwitch).
//     So rotations refuse no request (TestRotationsUnderLoad).
//   - Any number of callers share one token request, and none waits longer than its own
//     deadline (TestColdHerdIsOneFetch).
//   - The token endpoint gets at most five requests a second (TestDeadEndpointIsSpared).
//   - A file that changes while it is read is never stored (TestFileChangesWhileItIsRead).
//   - An upload is repeated only if that cannot store the file twice
//     (TestResetMidBodyIsRepeated); otherwise its error is [ErrAmbiguous]
//     (TestLostAnswerIsAmbiguous).
//   - An element that hangs costs no file if there is another one (TestHangingElements).
//   - No error, log line or metric has a secret, a token or a body (TestCanary).
//
// # One credential
//
// A token may be bound to the certificate that it was fetched with (RFC 8705 §3): with
// another certificate it is answered 401. So the client publishes the two as one
// immutable value, a lease of a generation of the identity and its token, and each
// attempt takes that value once. After a rotation the client leases the new
// generation, fetches a token over it, and only then uses both. Requests in flight
// end on the old pair, whose lease is returned after the last of them. If there is no
// new token, the old pair stays in use, and is refreshed as long as its certificate
// is valid. A JWT without a binding is used with the new certificate too; an opaque
// token is assumed to be bound.
//
// # Tokens
//
// A valid token is used without a lock. It is refreshed in the background 60 s before
// its end (a fifth of its life if that is shorter, and a little earlier by chance)
// and used until 5 s before its end. A failed refresh delays no caller while the token
// is valid. Callers share one token request. It does not end with the deadline of a
// caller, and each caller waits until its own deadline at most. The endpoint gets at
// most five requests a second, with any number of callers. After a failure there is a
// pause that grows, in which callers get the last error at once. A changed secret or
// a new certificate ends the pause; that the endpoint is back is noticed within a
// second. The client authenticates by a secret, a signature or its certificate.
//
// # Uploads
//
// Content is streamed between a multipart header and trailer built beforehand,
// so that Content-Length is exact and memory constant. There is no total timeout:
// a connection that moves nothing, or less than a minimum rate, is ended, and
// after the last byte the wait for the answer is bounded. HTTP/1.1 is the default
// because HTTP/2 costs up to twice the CPU and, with latency, most of the
// throughput. The answer's size and SHA-256 must be those of what was sent.
//
// # Storage Elements
//
// One client serves several elements with one token: a configured list with
// priorities, or the list of the Admin Module's registry. If the first element is
// down, full or in a mode without uploads, the next one is tried at once. The first
// one is then avoided for a while, so that it costs an attempt for each pause and not
// for each file. With several elements, an element must send 100 Continue before it
// gets any byte of a file: one that hangs has got nothing, and the next one can be
// tried. After an attempt without an outcome only its element is tried again. Metadata
// and Download ask each element until one has the file; Files lists the files of one.
//
// # What is repeated
//
// An incomplete body proves that nothing was stored; so do a failed handshake
// and the statuses 408, 425, 429 and 503. These are repeated, within limits. A
// 401 costs the token that was sent (and no newer one) and is repeated at once
// with another; after that the Storage Element gets up to 15 s to learn the key
// that signed it. A body that went out completely and got no answer, or a 500,
// is [ErrAmbiguous]: only with an id that the server recognises is it repeated.
// The rules and their reasons are in retry.go and classify.go.
//
// # Rules for callers
//
// Errors are [*RequestError], with an [*AuthError] inside if no token could be fetched.
// Test them with errors.Is against the Err values of this package. The client does not own
// the identity: close the client first, then the identity. Call Shutdown before Close if
// uploads may finish.
package ingestclient
