package devstack

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/uuid"
	"github.com/artstore/artstore-pki/secret"
)

const (
	// defaultBcryptCost is the cost that ArtStore uses.
	defaultBcryptCost = 12
	secretLength      = 32
	// maxSecretLength is the number of bytes of a password that bcrypt looks at. A longer
	// one is refused: otherwise every text with the same beginning would be the secret.
	maxSecretLength = 72
	maxNameInID     = 20
	accountsFile    = "accounts.json"
	statusActive    = "active"
	statusSuspended = "suspended"

	// specials are in every secret on purpose: a client that forgets to escape them in a
	// form, a URL or a file of settings fails in development.
	specials = ":%=#>,+&?/~@!"
	letters  = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
)

var errBadName = errors.New("want 1 to 64 characters of a-z, A-Z, 0-9, dot, dash and underscore")

var accountName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// account is a service account as it is stored: with the hash of its secret only.
type account struct {
	ClientID  string    `json:"client_id"`
	Subject   string    `json:"sub"` // UUID, the token's sub
	Name      string    `json:"name"`
	Role      string    `json:"role"`
	Status    string    `json:"status"`
	Hash      string    `json:"secret_bcrypt"`
	CreatedAt time.Time `json:"created_at"`
}

// accounts is the file of service accounts. Readers see one immutable map; writers take
// turns, so that no change overwrites another.
type accounts struct {
	path string
	cost int
	// dummy is the hash of a secret that no account has. The secret of an unknown id is
	// compared with it, so that the time of an answer does not tell whether an account exists.
	dummy []byte
	// slots allows one comparison per core at a time, because bcrypt is slow by design.
	slots chan struct{}

	// turn is held by writers only; no request waits for it.
	turn    sync.Mutex
	current atomic.Pointer[map[string]account]
}

// openAccounts reads the accounts in dir; a missing file means that there are none. A
// cost of 0 is the default.
func openAccounts(dir string, cost int) (*accounts, error) {
	if cost == 0 {
		cost = defaultBcryptCost
	}
	dummy, err := bcrypt.GenerateFromPassword([]byte(rand.Text()), cost)
	if err != nil {
		return nil, fmt.Errorf("preparing the secret hash: %w", err)
	}
	a := &accounts{path: filepath.Join(dir, accountsFile), cost: cost, dummy: dummy, slots: make(chan struct{}, runtime.GOMAXPROCS(0))}
	byID := map[string]account{}
	data, err := os.ReadFile(a.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("reading accounts: %w", err)
	default:
		var list []account
		if err := json.Unmarshal(data, &list); err != nil {
			return nil, fmt.Errorf("reading accounts: %s is damaged: %w", a.path, err)
		}
		for _, acc := range list {
			byID[acc.ClientID] = acc
		}
	}
	a.current.Store(&byID)
	return a, nil
}

// authenticate returns the account if the secret is its own. Unknown ids cost as
// much time as known ones, and the refusal does not say which it was.
func (a *accounts) authenticate(ctx context.Context, id string, given secret.String) (account, bool) {
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
		return account{}, false
	}
	acc, known := (*a.current.Load())[id]
	hash := a.dummy
	if known {
		hash = []byte(acc.Hash)
	}
	plain := []byte(given.Expose())
	tooLong := len(plain) > maxSecretLength
	if tooLong {
		plain = plain[:maxSecretLength]
	}
	match := bcrypt.CompareHashAndPassword(hash, plain) == nil
	return acc, match && known && !tooLong && acc.Status == statusActive
}

// find looks for an active account by name and secret.
func (a *accounts) find(ctx context.Context, name string, given secret.String) (string, error) {
	for id, acc := range *a.current.Load() {
		if acc.Name != name {
			continue
		}
		if _, ok := a.authenticate(ctx, id, given); ok {
			return id, nil
		}
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	return "", fmt.Errorf("looking for account %q: no active one has this secret: %w", name, fs.ErrNotExist)
}

// add makes an account. Its secret exists only in the returned value.
func (a *accounts) add(name string) (string, secret.String, error) {
	if !accountName.MatchString(name) {
		return "", secret.String{}, fmt.Errorf("adding account %q: %w", name, errBadName)
	}
	plain := newSecret()
	hash, err := bcrypt.GenerateFromPassword([]byte(plain), a.cost)
	if err != nil {
		return "", secret.String{}, fmt.Errorf("hashing a secret: %w", err)
	}
	short := name[:min(len(name), maxNameInID)]
	acc := account{
		ClientID: "sa_dev_" + short + "_" + randomHex(4), Subject: uuid.New(), Name: name, Role: "user",
		Status: statusActive, Hash: string(hash), CreatedAt: time.Now().UTC(),
	}
	err = a.change(func(m map[string]account) error { m[acc.ClientID] = acc; return nil })
	return acc.ClientID, secret.New(plain), err
}

// setStatus suspends or reactivates an account.
func (a *accounts) setStatus(id, status string) error {
	return a.change(func(m map[string]account) error {
		acc, ok := m[id]
		if !ok {
			return fmt.Errorf("changing account %q: %w", id, fs.ErrNotExist)
		}
		acc.Status = status
		m[id] = acc
		return nil
	})
}

// resetSecret replaces an account's secret; the old one is invalid at once.
func (a *accounts) resetSecret(id string) (secret.String, error) {
	plain := newSecret()
	hash, err := bcrypt.GenerateFromPassword([]byte(plain), a.cost)
	if err != nil {
		return secret.String{}, fmt.Errorf("hashing a secret: %w", err)
	}
	err = a.change(func(m map[string]account) error {
		acc, ok := m[id]
		if !ok {
			return fmt.Errorf("changing account %q: %w", id, fs.ErrNotExist)
		}
		acc.Hash = string(hash)
		m[id] = acc
		return nil
	})
	if err != nil {
		return secret.String{}, err
	}
	return secret.New(plain), nil
}

// change edits a copy, writes it, and publishes it afterwards. So a secret that a client
// has used is still valid after a crash.
func (a *accounts) change(edit func(map[string]account) error) error {
	a.turn.Lock()
	defer a.turn.Unlock()
	next := maps.Clone(*a.current.Load())
	if err := edit(next); err != nil {
		return err
	}
	list := make([]account, 0, len(next))
	for _, acc := range next {
		list = append(list, acc)
	}
	data, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding accounts: %w", err)
	}
	if err := durable.WriteFile(a.path, data, durable.Private); err != nil {
		return fmt.Errorf("writing accounts: %w", err)
	}
	a.current.Store(&next)
	return nil
}

// newSecret returns 32 characters from crypto/rand, about 178 bits, of which every
// eighth is a special character.
func newSecret() string {
	var b strings.Builder
	for i := range secretLength {
		set := letters
		if i%8 == 0 {
			set = specials
		}
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(set))))
		if err != nil { // crypto/rand does not fail on the systems Go supports
			panic(err)
		}
		b.WriteByte(set[n.Int64()])
	}
	return b.String()
}

// randomHex returns n random bytes as 2n hex digits.
func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: the runtime crashes instead
	return hex.EncodeToString(b)
}
