package translog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// MaxHead is the longest head that is read, in bytes. Ours have some 300; witnesses add more.
const MaxHead = 8 << 10

// Head fixes the first Size entries of a log.
type Head struct {
	Origin string // which log; a key has one
	Size   int64
	Root   tlog.Hash
	Time   time.Time // of the signature, to the second; zero if the head does not say
}

// String names the head in messages and in the details of events.
func (h Head) String() string { return fmt.Sprintf("%d entries, root %s", h.Size, h.Root) }

const timeField = "time "

// text is the signed part, as in c2sp.org/tlog-checkpoint, with the time as an extension.
func (h Head) text() string {
	out := fmt.Sprintf("%s\n%d\n%s\n", h.Origin, h.Size, base64.StdEncoding.EncodeToString(h.Root[:]))
	if !h.Time.IsZero() {
		out += timeField + h.Time.UTC().Format(time.RFC3339) + "\n"
	}
	return out
}

// ParseHead reads the text of a head. It checks no signature; [Verifier.Open] does.
func ParseHead(text string) (h Head, err error) {
	lines := strings.Split(text, "\n")
	if len(text) > MaxHead || len(lines) < 4 || lines[len(lines)-1] != "" || lines[0] == "" {
		return Head{}, errors.New("parsing a log head: want an origin, a size and a root, each in a line")
	}
	h.Origin = lines[0]
	h.Size, err = strconv.ParseInt(lines[1], 10, 64)
	if err != nil || h.Size < 0 || strconv.FormatInt(h.Size, 10) != lines[1] {
		return Head{}, errors.New("parsing a log head: the size is no plain number")
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return Head{}, errors.New("parsing a log head: the root is no hash")
	}
	h.Root = tlog.Hash(root)
	for _, line := range lines[3 : len(lines)-1] {
		if line == "" {
			return Head{}, errors.New("parsing a log head: an empty line")
		}
		if at, ok := strings.CutPrefix(line, timeField); ok && h.Time.IsZero() {
			if h.Time, err = time.Parse(time.RFC3339, at); err != nil {
				return Head{}, errors.New("parsing a log head: its time is none (RFC 3339)")
			}
			h.Time = h.Time.UTC()
		} // a reader ignores extensions that it does not know
	}
	return h, nil
}

// Key signs heads.
type Key struct {
	verifier Verifier
	private  ed25519.PrivateKey
}

// NewKey makes the signer of a log. The origin is derived from the key, so two logs differ.
func NewKey(private ed25519.PrivateKey) (*Key, error) {
	if len(private) != ed25519.PrivateKeySize { // the methods of a shorter one panic
		return nil, errors.New("making the log's signer: not an Ed25519 key")
	}
	public := ed25519.PublicKey(private[ed25519.SeedSize:])
	sum := sha256.Sum256(public)
	text, err := note.NewEd25519VerifierKey("artstore-pki/"+hex.EncodeToString(sum[:8]), public)
	if err != nil {
		return nil, fmt.Errorf("making the log's signer: %w", err)
	}
	v, err := ParseVerifier(text)
	return &Key{v, private}, err
}

// Verifier is the public half.
func (k *Key) Verifier() Verifier { return k.verifier }

// Sign returns the signed note of a head; its origin is the key's.
func (k *Key) Sign(h Head) ([]byte, error) {
	h.Origin = k.verifier.Origin()
	out, err := note.Sign(&note.Note{Text: h.text()}, noteSigner{k})
	if err != nil {
		return nil, fmt.Errorf("signing a log head: %w", err)
	}
	return out, nil
}

// SignDocument signs a text that is no head, as a note. kind is its first line and names what
// it is; it must not be the origin of a log. The text is UTF-8 in one line.
func (k *Key) SignDocument(kind string, text []byte) ([]byte, error) {
	out, err := note.Sign(&note.Note{Text: kind + "\n" + string(text) + "\n"}, noteSigner{k})
	if err != nil {
		return nil, fmt.Errorf("signing a document: %w", err)
	}
	return out, nil
}

// Derive returns a secret of 32 bytes that only the holder of the key can compute, by HKDF
// (RFC 5869). info says what it is for: another info gives another secret.
func (k *Key) Derive(info string) ([]byte, error) {
	secret, err := hkdf.Key(sha256.New, k.private.Seed(), nil, info, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("deriving a secret: %w", err)
	}
	return secret, nil
}

// noteSigner is the key for the library, which otherwise takes it as text.
type noteSigner struct{ key *Key }

func (s noteSigner) Name() string    { return s.key.verifier.note.Name() }
func (s noteSigner) KeyHash() uint32 { return s.key.verifier.note.KeyHash() }
func (s noteSigner) Sign(msg []byte) ([]byte, error) {
	return ed25519.Sign(s.key.private, msg), nil
}

// Verifier checks heads. [ParseVerifier] makes it.
type Verifier struct {
	text string
	note note.Verifier
}

// ParseVerifier reads a key in the form of signed notes: name+hash+key.
func ParseVerifier(text string) (Verifier, error) {
	text = strings.TrimSpace(text)
	v, err := note.NewVerifier(text)
	if err != nil {
		return Verifier{}, errors.New("parsing the log's public key: want name+hash+key")
	}
	return Verifier{text, v}, nil
}

// String is the key in the form of signed notes.
func (v Verifier) String() string { return v.text }

// Origin names the log.
func (v Verifier) Origin() string { return v.note.Name() }

// ErrForeign reports a head that this log's key did not sign.
var ErrForeign = errors.New("not signed by the key of this log")

// Open checks a signed head and reads it. Without a signature of this key it is [ErrForeign].
func (v Verifier) Open(text []byte) (Head, error) {
	if len(text) > MaxHead {
		return Head{}, fmt.Errorf("reading a log head: longer than %d bytes", MaxHead)
	}
	n, err := note.Open(text, note.VerifierList(v.note))
	_, unverified := errors.AsType[*note.UnverifiedNoteError](err)
	_, invalid := errors.AsType[*note.InvalidSignatureError](err)
	switch {
	case unverified, invalid:
		return Head{}, fmt.Errorf("reading a log head: %w", ErrForeign)
	case err != nil:
		return Head{}, errors.New("reading a log head: not a signed note")
	}
	h, err := ParseHead(n.Text)
	if err != nil {
		return Head{}, err
	}
	if h.Origin != v.Origin() {
		return Head{}, fmt.Errorf("reading a log head: it is of %.80q: %w", h.Origin, ErrForeign)
	}
	return h, nil
}

// OpenDocument checks what [Key.SignDocument] has signed, and returns its text. A document of
// another kind, or without a signature of this key, is [ErrForeign].
func (v Verifier) OpenDocument(kind string, signed []byte) ([]byte, error) {
	n, err := note.Open(signed, note.VerifierList(v.note))
	_, unverified := errors.AsType[*note.UnverifiedNoteError](err)
	_, invalid := errors.AsType[*note.InvalidSignatureError](err)
	switch {
	case unverified, invalid:
		return nil, fmt.Errorf("reading a signed document: %w", ErrForeign)
	case err != nil:
		return nil, errors.New("reading a signed document: not a signed note")
	}
	first, text, _ := strings.Cut(n.Text, "\n")
	if first != kind {
		return nil, fmt.Errorf("reading a signed document: it is a %.80q: %w", first, ErrForeign)
	}
	return []byte(strings.TrimSuffix(text, "\n")), nil
}

// SizeOf reads the size of a head without checking its signature. ok is false if it is none.
func SizeOf(text []byte) (size int64, ok bool) {
	signed, _, found := bytes.Cut(text, []byte("\n\n"))
	if !found || len(text) > MaxHead {
		return 0, false
	}
	h, err := ParseHead(string(signed) + "\n")
	return h.Size, err == nil
}
