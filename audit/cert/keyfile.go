package cert

import (
	"fmt"
	"io/fs"

	"github.com/artstore/artstore-pki/internal/fileperm"
)

// KeyFile has the facts about a private key. The key itself is not kept.
type KeyFile struct {
	Path string
	Mode fs.FileMode
	Fits bool // it is the key of the certificate
	// Opaque is set if the key could not be compared, because it is encrypted or of a
	// kind that is not supported. Then Fits is false.
	Opaque bool
	// Locked is set if a password protects the key, so that reading the file is not enough.
	Locked bool

	OfRoot bool    // the file belongs to root
	Oddity *Oddity // why other programs do not read it; nil if they do

	// These are for a key without a certificate in its file. Its certificate may be found
	// anywhere, so the key is judged at the end.
	Public []byte // SubjectPublicKeyInfo; nil if it is unknown
	Named  bool   // on the command line, so it has a row in any case
}

// Exposed returns a clause if other accounts may use the key, and "" if not. The rule is that
// of the services, and of libpq (docs/design/0020). An encrypted key is never exposed.
func (k *KeyFile) Exposed() string {
	if k.Locked || !fileperm.ExposedMode(k.Mode, k.OfRoot) {
		return ""
	}
	return fmt.Sprintf("%s has mode %04o", k.Path, k.Mode.Perm())
}

// WhyOpaque returns why a key could not be compared.
func (k *KeyFile) WhyOpaque() string {
	if k.Locked {
		return "it is encrypted"
	}
	return "it is of a kind that is not supported"
}
