package settings

import (
	"time"

	"github.com/artstore/artstore-pki/secret"
)

// Settings are valid: only [Collected.Parse] makes them. Durations and sizes of -1
// mean "off" where the table allows it.
type Settings struct {
	Token     Token
	Account   Account
	Storage   Storage
	TLS       TLS
	Authority Authority
	Upload    Upload
}

// Token is where tokens come from and how they are used.
type Token struct {
	AdminURL string // as given; URL is what counts
	URL      string // of the endpoint
	Timeout  time.Duration
	Dialect  string
	Lifetime time.Duration
	Lag      time.Duration
	CA       string // path of a trust bundle for it; "" is that of TLS
	Proxy    Text   // URL
}

// Account is who asks for them.
type Account struct {
	ID     Text
	Secret Text // of post and basic
	Key    Text // of private_key_jwt: PEM
	KeyID  string
	Method string
	Scope  string
}

// Storage is where files go.
type Storage struct {
	URLs          []string // one at least, unless there is a registry
	Registry      string   // URL
	Timeout       time.Duration
	PoolSize      int
	MaxRetries    int
	MaxRetryAfter time.Duration
	HTTP2         bool
	CA            string // path of a trust bundle for it; "" is that of TLS
	Proxy         Text   // URL
}

// TLS is how both are spoken to. If it is enabled, either the three files are
// set or [Authority.URL] is.
type TLS struct {
	Enabled        bool
	Cert, Key, CA  string // paths
	MinVersion     uint16
	CipherSuites   []uint16 // nil: crypto/tls chooses
	AllowCleartext bool

	ciphers, verifyMode string
}

// Authority issues the certificate where it is not in files.
type Authority struct {
	URL, TokenFile, State, RootFingerprint, AuthorityName string

	TrustRefresh time.Duration // 0: a sixth of the certificate's life, 1 h at most
}

// Upload is when one is given up.
type Upload struct {
	StallTimeout time.Duration
	MinRate      int64 // bytes per second
	MaxRate      int64 // bytes per second
	ExpectFrom   int64 // bytes
}

// Text is a value, or the file that holds it.
type Text struct {
	value secret.String
	File  string // "" if the value was given itself
}

// Read returns the value; that of a file as it is now.
func (t Text) Read() (secret.String, error) {
	if t.File == "" {
		return t.value, nil
	}
	return secret.ReadFile(t.File)
}

// SecretFiles are the files that the settings read secrets from.
func (s *Settings) SecretFiles() (paths []string) {
	for _, p := range []string{s.Account.Secret.File, s.Account.Key.File, s.Authority.TokenFile, s.Token.Proxy.File, s.Storage.Proxy.File} {
		if p != "" {
			paths = append(paths, p)
		}
	}
	return paths
}

func (t Text) isZero() bool { return t.File == "" && t.value.IsZero() }
