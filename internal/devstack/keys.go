package devstack

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/pemfile"
)

const (
	// signingKeyBits is the least that RS256 allows (RFC 7518 §3.3).
	signingKeyBits = 2048
	keysFile       = "signing-keys.json"
	keySuffix      = ".pem"
	// clockSlack is added to the time that a retired key stays published: the clocks of
	// verifiers differ, and they may accept a token a little after its end.
	clockSlack = time.Minute
)

// signingKey is a key pair. Its kid is its JWK thumbprint (RFC 7638).
type signingKey struct {
	kid string
	key *rsa.PrivateKey
}

// keyring is what the Admin Module signs with and publishes. Immutable.
//
//	next     published, does not sign yet: verifiers get to know it in advance
//	current  signs
//	retired  only the public half is left, until its last token has expired
type keyring struct {
	Current string `json:"current"`
	Next    string `json:"next"`
	// Since is when current began to sign.
	Since   time.Time    `json:"since"`
	Retired []retiredKey `json:"retired"`

	signer  jose.Signer
	next    signingKey
	current signingKey
	jwks    []byte // the published set, encoded
}

// retiredKey is the public half of a key that signs no more.
type retiredKey struct {
	Key   jose.JSONWebKey `json:"key"` // public
	Until time.Time       `json:"until"`
}

// keystore holds the keyring and its files: one private key per file, and signing-keys.json,
// which says which key is which. That file is written last. So a crash leaves at worst a
// key file that it does not name, which the next start removes.
type keystore struct {
	dir string
	// overlap is how long a retired key stays published.
	overlap time.Duration
	// turn is held by writers only; no request waits for it.
	turn sync.Mutex
	ring atomic.Pointer[keyring]
}

// openKeys reads the keys in dir, or makes two if there are none. Damage is an error: new
// keys would make all tokens in use invalid.
func openKeys(dir string, tokenLifetime time.Duration) (*keystore, error) {
	s := &keystore{dir: filepath.Join(dir, "keys"), overlap: tokenLifetime + clockSlack}
	if err := durable.MkdirAll(s.dir); err != nil {
		return nil, fmt.Errorf("making the key directory: %w", err)
	}
	ring, err := s.load()
	if errors.Is(err, fs.ErrNotExist) {
		return s, s.create()
	}
	if err != nil {
		return nil, err
	}
	if err := ring.complete(); err != nil {
		return nil, err
	}
	s.ring.Store(ring)
	return s, s.removeOthers(ring)
}

// load reads the ring that publish has written.
func (s *keystore) load() (*keyring, error) {
	path := filepath.Join(s.dir, keysFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading signing keys: %w", err)
	}
	ring := &keyring{}
	if err := json.Unmarshal(data, ring); err != nil {
		return nil, fmt.Errorf("reading signing keys: %s is damaged: %w", path, err)
	}
	if ring.current, err = s.readKey(ring.Current); err != nil {
		return nil, err
	}
	ring.next, err = s.readKey(ring.Next)
	return ring, err
}

// readKey reads a private key that the ring names. Its error never matches fs.ErrNotExist: a
// missing key would look like a new directory, for which new keys are made, and all tokens in
// use would become invalid.
func (s *keystore) readKey(kid string) (signingKey, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, filepath.Base(kid)+keySuffix))
	if err != nil {
		return signingKey{}, fmt.Errorf("reading a signing key: %v", err)
	}
	signer, err := pemfile.PrivateKey(data)
	if err != nil {
		return signingKey{}, fmt.Errorf("reading signing key %s: %w", kid, err)
	}
	key, ok := signer.(*rsa.PrivateKey)
	if !ok {
		return signingKey{}, fmt.Errorf("reading signing key %s: not an RSA key", kid)
	}
	return signingKey{kid: kid, key: key}, nil
}

// create makes the first two keys: one that signs now and one that is next.
func (s *keystore) create() error {
	current, err := s.newKey()
	if err != nil {
		return err
	}
	next, err := s.newKey()
	if err != nil {
		return err
	}
	return s.publish(&keyring{Since: time.Now().UTC(), current: current, next: next})
}

// rotate lets the next key sign and retires the current one. The new next key was never
// published before, so it waits a whole period for verifiers to fetch it.
func (s *keystore) rotate(now time.Time) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	old := s.ring.Load()
	fresh, err := s.newKey()
	if err != nil {
		return err
	}
	retired := append([]retiredKey{{Key: publicJWK(old.current), Until: now.Add(s.overlap).UTC()}}, unexpired(old.Retired, now)...)
	return s.publish(&keyring{Since: now.UTC(), current: old.next, next: fresh, Retired: retired})
}

// prune drops retired keys of which no valid token is left.
func (s *keystore) prune(now time.Time) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	old := s.ring.Load()
	return s.publish(&keyring{Since: old.Since, current: old.current, next: old.next, Retired: unexpired(old.Retired, now)})
}

// due returns when the ring changes next: by a rotation, or because a retired key is dropped.
func (s *keystore) due(rotation time.Duration) (at time.Time, isRotation bool) {
	ring := s.ring.Load()
	at, isRotation = ring.Since.Add(rotation), true
	for _, r := range ring.Retired {
		if r.Until.Before(at) {
			at, isRotation = r.Until, false
		}
	}
	return at, isRotation
}

// publish makes the ring durable, then visible: no token is ever signed with a
// key that a restart would not know.
func (s *keystore) publish(ring *keyring) error {
	if err := ring.complete(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(ring, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding signing keys: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(s.dir, keysFile), data, durable.Private); err != nil {
		return fmt.Errorf("writing signing keys: %w", err)
	}
	s.ring.Store(ring)
	return s.removeOthers(ring)
}

// complete derives the fields that are not stored: the signer and the encoded key set.
func (r *keyring) complete() (err error) {
	r.Current, r.Next = r.current.kid, r.next.kid
	options := (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", r.Current)
	r.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: r.current.key}, options)
	if err != nil {
		return fmt.Errorf("preparing to sign tokens: %w", err)
	}
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{publicJWK(r.current), publicJWK(r.next)}}
	for _, old := range r.Retired {
		set.Keys = append(set.Keys, old.Key)
	}
	if r.jwks, err = json.Marshal(set); err != nil {
		return fmt.Errorf("encoding the key set: %w", err)
	}
	return nil
}

// newKey makes a key pair and writes its private half to a file of its own.
func (s *keystore) newKey() (signingKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, signingKeyBits)
	if err != nil {
		return signingKey{}, fmt.Errorf("making a signing key: %w", err)
	}
	jwk := jose.JSONWebKey{Key: key.Public()}
	thumb, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return signingKey{}, fmt.Errorf("naming a signing key: %w", err)
	}
	k := signingKey{kid: base64.RawURLEncoding.EncodeToString(thumb), key: key}
	data, err := pemfile.EncodePrivateKey(key)
	if err != nil {
		return signingKey{}, fmt.Errorf("encoding a signing key: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(s.dir, k.kid+keySuffix), data, durable.Private); err != nil {
		return signingKey{}, fmt.Errorf("writing a signing key: %w", err)
	}
	return k, nil
}

// removeOthers deletes private keys that will not sign again. It runs after the ring is
// durable, so that a crash never leaves a ring that names a deleted key.
func (s *keystore) removeOthers(ring *keyring) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("removing old signing keys: %w", err)
	}
	for _, e := range entries {
		kid, isKey := strings.CutSuffix(e.Name(), keySuffix)
		if !isKey || kid == ring.Current || kid == ring.Next {
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, e.Name())); err != nil {
			return fmt.Errorf("removing old signing keys: %w", err)
		}
	}
	return nil
}

// publicJWK returns the public half of a key as it is published (RFC 7517 §4).
func publicJWK(k signingKey) jose.JSONWebKey {
	return jose.JSONWebKey{Key: k.key.Public(), KeyID: k.kid, Algorithm: string(jose.RS256), Use: "sig"}
}

// unexpired returns the retired keys of which valid tokens can be left at now.
func unexpired(keys []retiredKey, now time.Time) []retiredKey {
	var left []retiredKey
	for _, k := range keys {
		if k.Until.After(now) {
			left = append(left, k)
		}
	}
	return left
}
