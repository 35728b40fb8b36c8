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

// The authority keeps a log of what it issued and signs its head. With each
// certificate comes the newest head; the identity directory keeps one, out of
// the reach of whoever could rewrite the record. A newer one takes its place only
// with a proof that its log begins with the one that is kept: otherwise the
// evidence would go with the first answer after the deed.
//
// The signature is not checked here, where nobody pinned a key: the connection
// says who gave the head, and "artstore-pki log verify --head" checks it.

// logHead is the text of a head and what it says.
type logHead struct {
	text   []byte
	origin string
	size   int64
	root   [sha256.Size]byte
}

// parseLogHead reads the first three lines of a signed note with a checkpoint in
// it: which log, how many entries, the root in base64.
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

// noteHead notes a head that came with a certificate.
func (s *Source) noteHead(h http.Header) {
	text, err := base64.StdEncoding.DecodeString(h.Get(stepapi.HeaderLogHead))
	if err != nil || len(text) == 0 || s.store == nil {
		return // an authority without a log, or nowhere to keep it
	}
	if head, err := parseLogHead(text); err == nil {
		s.receivedHead.Store(&head)
	}
}

// storeHead puts the head that was heard last in place of the kept one. That this
// failed is told and holds up nothing; the kept one stays.
func (s *Source) storeHead(ctx context.Context, cur *identity) {
	heard := s.receivedHead.Swap(nil)
	if heard == nil {
		return
	}
	err := s.replaceHead(ctx, cur, *heard)
	path := slog.String("path", filepath.Join(s.store.dir, headName))
	switch {
	case err == nil, ctx.Err() != nil:
	case errors.Is(err, errOtherLog): // somebody must act: this is what heads are kept for
		s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "the authority's log does not go on from the head that is kept", path, slog.Any("err", err))
	default:
		s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "head of the authority's log not kept", path, slog.Any("err", err))
	}
}

var errOtherLog = errors.New("the log was rolled back, rewritten or replaced")

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
	case heard.size < kept.size: // one of several replicas may be a second behind
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

// proveHead asks for the proof that the log of size to begins with that of size from.
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

// consistent checks a proof (RFC 9162 §2.1.4.2) that the tree of to begins with
// that of from, which is smaller.
func consistent(from, to logHead, proof [][]byte) bool {
	if from.size >= to.size {
		return false
	}
	if from.size&(from.size-1) == 0 { // a power of two: the old tree is a subtree of the new one, and known
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

// node is the hash of an inner node (RFC 9162 §2.1.1).
func node(left, right []byte) []byte {
	sum := sha256.Sum256(append(append([]byte{1}, left...), right...))
	return sum[:]
}
