package keystore

import (
	"crypto"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"go.step.sm/crypto/kms/apiv1"
	"go.step.sm/crypto/kms/uri"

	"github.com/artstore/artstore-pki/ca/internal/keytype"
)

// algorithm is how a store is asked for a kind of key. bits are those of RSA.
type algorithm struct {
	sign apiv1.SignatureAlgorithm
	bits int
}

var algorithms = map[string]algorithm{
	"":              {apiv1.ECDSAWithSHA256, 0},
	keytype.P256:    {apiv1.ECDSAWithSHA256, 0},
	keytype.P384:    {apiv1.ECDSAWithSHA384, 0},
	keytype.Ed25519: {apiv1.PureEd25519, 0}, // few stores have it; the others say so
	keytype.RSA3072: {apiv1.SHA256WithRSA, 3072},
	keytype.RSA4096: {apiv1.SHA256WithRSA, 4096},
}

// New makes a key of a kind of package keytype and returns it with its URI. A URI that names
// a store gets a random name for the key. A URI that names a key gets that key, if the store
// has it already; it may then be of another kind. In a token, such a URI has id and object,
// because a key that is made has both.
//
// A process that is killed after New leaves a key that nothing refers to.
func New(text, kind string) (crypto.Signer, string, error) {
	how, known := algorithms[kind]
	if !known {
		return nil, "", fmt.Errorf("key type %q cannot be made in a key store", kind)
	}
	u, err := parse(text)
	if err != nil {
		return nil, "", err
	}
	if u.Scheme == softKMS {
		return nil, "", errors.New("software keys are made in the state directory, or in the file of --offline-root")
	}
	store, err := connect(u)
	if err != nil {
		return nil, "", err
	}
	if namesKey(u) {
		if key, err := store.CreateSigner(&apiv1.CreateSignerRequest{SigningKey: text}); err == nil {
			return key, text, nil
		}
	} else if u, err = withName(u); err != nil {
		return nil, "", err
	}
	made, err := store.CreateKey(&apiv1.CreateKeyRequest{Name: u.String(), SignatureAlgorithm: how.sign, Bits: how.bits})
	if err != nil {
		return nil, "", fmt.Errorf("making a key in %s: %w", storeOf(u), err)
	}
	name := withStore(made.CreateSignerRequest.SigningKey, u)
	made.CreateSignerRequest.SigningKey = name
	key, err := store.CreateSigner(&made.CreateSignerRequest)
	if err != nil {
		return nil, "", fmt.Errorf("finding the new key: %w", err)
	}
	return key, name, nil
}

// NamesKey reports whether a URI names one key, and not only the store.
func NamesKey(text string) bool {
	u, err := uri.Parse(text)
	return err == nil && namesKey(u)
}

func namesKey(u *uri.URI) bool {
	for _, key := range nameKeys {
		if u.Has(key) {
			return true
		}
	}
	return u.Scheme == cloudKMS && strings.Contains(u.Opaque, "/cryptoKeys/")
}

// withName adds a random name for a key. It begins with a letter, so that no store takes it for
// a number.
func withName(u *uri.URI) (*uri.URI, error) {
	b := make([]byte, 8)
	if _, err := rand.Read(b); err != nil {
		return nil, fmt.Errorf("naming a key: %w", err)
	}
	id := hex.EncodeToString(b)
	named, err := uri.Parse(u.String())
	if err != nil {
		return nil, fmt.Errorf("naming a key: %w", err)
	}
	switch named.Scheme {
	case pkcs11:
		named.Set("id", "0x"+id)
		named.Set("object", "artstore-pki-"+id)
	case cloudKMS: // its names are paths
		return uri.Parse(named.URL.String() + "/cryptoKeys/artstore-pki-" + id)
	default:
		named.Set("name", "artstore-pki-"+id)
	}
	return named, nil
}

// withStore puts what says where the store is into the URI of a key, if the store has left it
// out: the region of a cloud, for instance.
func withStore(key string, store *uri.URI) string {
	u, err := uri.Parse(key)
	if err != nil || len(u.Values) == 0 || !strings.Contains(u.Opaque, "=") {
		return key
	}
	for name, v := range store.Values {
		if !u.Has(name) && name != "name" {
			u.Values[name] = v
		}
	}
	if u.RawQuery == "" {
		u.RawQuery = store.RawQuery
	}
	return u.String()
}
