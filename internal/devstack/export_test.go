package devstack

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"time"

	"github.com/artstore/artstore-pki/secret"
)

// ParseTokenJSON returns the credentials of a request that was accepted.
func ParseTokenJSON(body []byte) (id string, plain secret.String, refused []byte) {
	req, bad := parseTokenJSON(body)
	for _, f := range bad {
		refused = append(refused, f.Type+f.Msg...)
	}
	return req.id, req.secret, refused
}

// ParseTokenForm returns the credentials and scopes, or the status of the refusal.
func ParseTokenForm(body []byte, basicID, basicSecret string, hasBasic bool) (id string, plain secret.String, scopes []string, status int) {
	req, bad := parseTokenForm(body, basicID, basicSecret, hasBasic)
	if bad != nil {
		return "", secret.String{}, nil, bad.status
	}
	return req.id, req.secret, req.scopes, 0
}

// FormStore receives forms as an upload does.
type FormStore struct{ s *filestore }

func OpenFormStore(dir string, maxFile int64) (*FormStore, error) {
	s, err := openFiles(dir, maxFile, maxFile)
	return &FormStore{s}, err
}

// Read returns the size and the hash of the form's file, and the room in use
// before and after it was discarded.
func (f *FormStore) Read(body []byte, boundary string) (size int64, sum string, used, after int64, err error) {
	got, err := readForm(multipart.NewReader(bytes.NewReader(body), boundary), f.s.receive)
	_, used = f.s.list()
	if err != nil {
		return 0, "", used, used, err
	}
	size, sum = got.in.size, got.in.sum
	got.in.discard()
	_, after = f.s.list()
	return size, sum, used, after, nil
}

func ParseFaults(body []byte) ([]Fault, error) { return parseFaults(body) }

func (f Fault) Check() error { return f.check() }

func ParseRegistration(body []byte) error { _, err := parseRegistration(body); return err }

// JudgeWith verifies a token against a key set at a moment.
func JudgeWith(jwks []byte, token string, now time.Time) (subject string, err error) {
	ks, err := parseKeySet(jwks)
	if err != nil {
		return "", err
	}
	v, err := ks.verify(token, now)
	if err != nil {
		return "", err
	}
	return v.subject, nil
}

// SetRoll replaces the random numbers of faults.
func (f *Faults) SetRoll(roll func() float64) { f.roll = roll }

// CachedTokens returns how many tokens are in the cache.
func (s *Storage) CachedTokens() int {
	s.tokens.mu.Lock()
	defer s.tokens.mu.Unlock()
	return len(s.tokens.cache)
}

// FillCache puts n tokens into the cache that expire at the given moment.
func (s *Storage) FillCache(n int, expires time.Time) {
	for i := range n {
		var h [32]byte
		h[0], h[1], h[2] = byte(i), byte(i>>8), byte(i>>16)
		s.tokens.remember(h, &tokenInfo{expires: expires}, time.Now())
	}
}

const MaxCachedTokens = maxCachedTokens

// Receive stores a file without HTTP.
func (s *Storage) Receive(id string, r io.Reader) error {
	in, err := s.files.receive(r)
	if err != nil {
		return err
	}
	defer in.discard()
	return in.commit(&metadata{ID: id, Name: "direct"})
}

var ErrDuplicate = errDuplicate

// RoundTripFunc is an http.RoundTripper.
type RoundTripFunc func(*http.Request) (*http.Response, error)

func (f RoundTripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

var ErrUnreachable = errors.New("unreachable")

// VerifyToken verifies the token of r as an upload does.
func (s *Storage) VerifyToken(r *http.Request) error {
	_, err := s.tokens.verify(r, false)
	return err
}

// ForgetTokens empties the cache of tokens.
func (s *Storage) ForgetTokens() {
	s.tokens.mu.Lock()
	defer s.tokens.mu.Unlock()
	clear(s.tokens.cache)
}

// Comparing returns how many secrets are compared now, or wait for a core.
func (a *Admin) Comparing() int { return len(a.accounts.slots) }

// Guesses counts wrong secrets.
type Guesses struct{ g *guesses }

func NewGuesses() Guesses { return Guesses{newGuesses()} }

func (g Guesses) Try(ctx context.Context, peer, id string, compare func() bool) (ok bool, wait time.Duration) {
	return g.g.try(ctx, peer, id, compare)
}

const AccountGuesses, PeerGuesses, AccountRefill = accountGuesses, peerGuesses, accountRefill

func HeaderThumbprint(value string) (string, error) { return headerThumbprint(value) }
