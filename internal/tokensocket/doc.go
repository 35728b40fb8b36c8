// Package tokensocket hands the access token of a service account to programs
// that are not written in Go.
package tokensocket
