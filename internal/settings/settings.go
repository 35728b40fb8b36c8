package settings

import (
	"time"

	"github.com/artstore/artstore-pki/secret"
)

// Settings are valid, because only [Collected.Parse] makes them. A duration or size of -1
// means "off", where the table allows that.
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
	// AdminURL is as it was given; URL is the one that is used.
	AdminURL string
	URL      string // of the endpoint
	Timeout  time.Duration
	Dialect  string
	Lifetime time.Duration
	Lag      time.Duration
	// CA is the path of a trust bundle for it; "" is that of TLS.
	CA    string
	Proxy Text // URL
}

// Account is the service account that asks for tokens.
type Account struct {
	ID     Text
	Secret Text // of post and basic
	Key    Text // of private_key_jwt: PEM
	KeyID  string
	Method string
	Scope  string
}

// Storage says where files go, and how.
type Storage struct {
	// URLs has at least one address, unless there is a Registry.
	URLs          []string
	Registry      string // URL
	Timeout       time.Duration
	PoolSize      int
	MaxRetries    int
	MaxRetryAfter time.Duration
	HTTP2         bool
	// CA is the path of a trust bundle for it; "" is that of TLS.
	CA    string
	Proxy Text // URL
}

// TLS applies to the token endpoint and to Storage Elements. If it is enabled, either the
// three files are set or [Authority.URL] is.
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
	// State is a directory, and RootFingerprint is in hex; "" means that of the token.
	URL, TokenFile, State, RootFingerprint, AuthorityName string

	TrustRefresh time.Duration // 0: a sixth of the certificate's life, 1 h at most
}

// Upload has the limits of uploads. Each can be -1 for "off".
type Upload struct {
	StallTimeout time.Duration // an upload that moves no byte for so long is ended
	MinRate      int64         // bytes per second, below which an upload is ended
	MaxRate      int64         // bytes per second, of all uploads together
	ExpectFrom   int64         // bytes, from which on the element is asked first
}

// Text is a value, or the file that holds it.
type Text struct {
	value secret.String
	File  string // "" if the value was given itself
}

// Read returns the value. A file is read anew each time, so that a replaced secret is used
// at once.
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

// isZero reports whether neither a value nor a file was given.
func (t Text) isZero() bool { return t.File == "" && t.value.IsZero() }
