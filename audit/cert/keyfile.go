package cert

import (
	"fmt"
	"io/fs"

	"github.com/artstore/artstore-pki/internal/fileperm"
)

// KeyFile is what is known of a private key. The key itself is not kept.
type KeyFile struct {
	Path string
	Mode fs.FileMode
	Fits bool
	// Opaque says that it could not be compared: it is encrypted, or of a kind that is
	// not supported. Then Fits is false.
	Opaque bool
	// Locked says that it is behind a password, so that whoever may read the file
	// does not have it.
	Locked bool

	OfRoot bool    // the file belongs to root
	Oddity *Oddity // why others do not read it

	// Of a key without a certificate in its file: it may lie beside one or elsewhere, so
	// it is judged when all certificates are known.
	Public []byte // SubjectPublicKeyInfo; nil if it is unknown
	Named  bool   // on the command line: there is a row in any case
}

// Exposed says who else may read a key, "" if nobody may: the rule is that of the
// services (docs/design/0020), which is libpq's. Whoever reads an encrypted one does not have it.
func (k *KeyFile) Exposed() string {
	if k.Locked || !fileperm.ExposedMode(k.Mode, k.OfRoot) {
		return ""
	}
	return fmt.Sprintf("%s has mode %04o", k.Path, k.Mode.Perm())
}

// WhyOpaque says why a key could not be compared.
func (k *KeyFile) WhyOpaque() string {
	if k.Locked {
		return "it is encrypted"
	}
	return "it is of a kind that is not supported"
}
