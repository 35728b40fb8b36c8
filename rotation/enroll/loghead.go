package enroll

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/internal/stepapi"
)

// The authority keeps a log of what it has issued, and signs the head of the log. Each new
// certificate comes with the newest head, and the identity directory keeps one, where a
// person who could rewrite the record cannot change it. A newer head replaces it only with
// a proof that the log of the newer one begins with the log of the kept one. Without the
// proof, a rewritten log would replace the evidence against it.
//
// The signature of a head is not verified here, because the key of the log is not known: the
// connection tells that the head is of the authority, and "artstore-pki log verify --head"
// verifies the signature.

// logHead is a head: its text and the parsed lines of it.
type logHead struct {
	text   []byte
	origin string // names the log
	size   int64  // number of entries
	root   [sha256.Size]byte
}

// parseLogHead reads the first three lines of a signed checkpoint (c2sp.org/tlog-checkpoint):
// the name of the log, the number of entries, and the root hash in base64.
func parseLogHead(text []byte) (h logHead, err error) {
	lines := strings.SplitN(string(text[:min(len(text), stepapi.MaxLogHead)]), "\n", 4)
	if len(lines) < 4 || len(text) > stepapi.MaxLogHead || !strings.Contains(lines[3], "\n") {
		return h, errors.New("not a signed head of a log")
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != sha256.Size {
		return h, errors.New("the root in a head of a log is no hash")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 1 {
		return h, errors.New("the size in a head of a log is no number of entries")
	}
	return logHead{text, lines[0], size, [sha256.Size]byte(root)}, nil
}

// noteHead remembers a head that came with a certificate. storeHead stores it later.
func (s *Source) noteHead(h http.Header) {
	text, err := base64.StdEncoding.DecodeString(h.Get(stepapi.HeaderLogHead))
	if err != nil || len(text) == 0 || s.store == nil {
		return // the authority has no log, or there is no directory
	}
	if head, err := parseLogHead(text); err == nil {
		s.receivedHead.Store(&head)
	}
}

// storeHead replaces the kept head by the one that was received last. A failure is only
// logged, and the kept head stays.
func (s *Source) storeHead(ctx context.Context, cur *identity) {
	heard := s.receivedHead.Swap(nil)
	if heard == nil {
		return
	}
	err := s.replaceHead(ctx, cur, *heard)
	path := slog.String("path", filepath.Join(s.store.dir, headName))
	switch {
	case err == nil, ctx.Err() != nil:
	case errors.Is(err, errOtherLog): // an operator must act: to find this is the purpose of a kept head
		s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "the authority's log does not go on from the head that is kept", path, slog.Any("err", err))
	default:
		s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "head of the authority's log not kept", path, slog.Any("err", err))
	}
}

var errOtherLog = errors.New("the log was rolled back, rewritten or replaced")

// replaceHead stores heard if it is newer than the kept head and follows from it. An error
// that matches errOtherLog says that it does not.
func (s *Source) replaceHead(ctx context.Context, cur *identity, heard logHead) error {
	path := filepath.Join(s.store.dir, headName)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return durable.WriteFile(path, heard.text, durable.Public)
	}
	if err != nil {
		return err
	}
	kept, err := parseLogHead(text)
	switch {
	case err != nil:
		return fmt.Errorf("reading %s: %w", path, err)
	case kept.origin != heard.origin:
		return fmt.Errorf("%w: it is %q and was %q", errOtherLog, oneLine(heard.origin), oneLine(kept.origin))
	case heard.size < kept.size: // another replica of the authority may be a second behind
		return nil
	case heard.size == kept.size && heard.root != kept.root:
		return fmt.Errorf("%w: its %d entries are not those of the kept head", errOtherLog, kept.size)
	case heard.size == kept.size:
		return nil
	}
	proof, err := s.proveHead(ctx, cur, kept.size, heard.size)
	if err != nil {
		return err
	}
	if !consistent(kept, heard, proof) {
		return fmt.Errorf("%w: no proof that its %d entries begin with the %d of the kept head", errOtherLog, heard.size, kept.size)
	}
	return durable.WriteFile(path, heard.text, durable.Public)
}

// proveHead asks the authority for the proof that the log of size to begins with the log of
// size from.
func (s *Source) proveHead(ctx context.Context, cur *identity, from, to int64) ([][]byte, error) {
	shown := cur.certificate()
	c, err := s.newDialer().newClient(s.cfg.URL, cur.roots, &shown)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var out stepapi.LogProof
	err = c.callJSON(ctx, apiRequest{operation: "asking for a proof of the log", path: fmt.Sprintf("%s?from=%d&to=%d", stepapi.PathLogProof, from, to)}, &out)
	return out.Hashes, err
}

// consistent verifies a proof (RFC 9162 §2.1.4.2) that the log of to begins with the log of
// from. It returns false if from is not smaller.
func consistent(from, to logHead, proof [][]byte) bool {
	if from.size >= to.size {
		return false
	}
	if from.size&(from.size-1) == 0 { // a power of two: the old root is a node of the new tree, and the proof leaves it out
		proof = append([][]byte{from.root[:]}, proof...)
	}
	if len(proof) == 0 {
		return false
	}
	fn, sn := from.size-1, to.size-1
	for fn&1 == 1 {
		fn, sn = fn>>1, sn>>1
	}
	older, newer := proof[0], proof[0]
	for _, hash := range proof[1:] {
		if sn == 0 || len(hash) != sha256.Size {
			return false
		}
		if fn&1 == 1 || fn == sn {
			older, newer = node(hash, older), node(hash, newer)
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			newer = node(newer, hash)
		}
		fn, sn = fn>>1, sn>>1
	}
	return sn == 0 && bytes.Equal(older, from.root[:]) && bytes.Equal(newer, to.root[:])
}

// node returns the hash of an inner node (RFC 9162 §2.1.1).
func node(left, right []byte) []byte {
	sum := sha256.Sum256(append(append([]byte{1}, left...), right...))
	return sum[:]
}
