package translog

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// Tree is the right edge of a Merkle tree: the roots of its complete subtrees,
// largest first, one for each bit that is set in its size. That is all it takes
// to grow the tree and to name its root, and it is at most 63 hashes. The zero
// value is the empty tree.
type Tree struct {
	size int64
	edge []tlog.Hash
}

// Size is the number of entries.
func (t *Tree) Size() int64 { return t.size }

// Append adds the next leaf. complete, if not nil, hears of every subtree that
// this makes complete: it holds the entries [n<<level, (n+1)<<level). Level 0 is
// the leaf itself and is not told.
func (t *Tree) Append(leaf tlog.Hash, complete func(level int, n int64, root tlog.Hash)) {
	root := leaf
	for level := 0; t.size>>level&1 == 1; level++ {
		last := len(t.edge) - 1
		root = tlog.NodeHash(t.edge[last], root)
		t.edge = t.edge[:last]
		if complete != nil {
			complete(level+1, t.size>>(level+1), root)
		}
	}
	t.edge = append(t.edge, root)
	t.size++
}

// Root is the root of the tree; that of the empty one is the hash of nothing (RFC 6962 §2.1).
func (t *Tree) Root() tlog.Hash {
	if t.size == 0 {
		return sha256.Sum256(nil)
	}
	root := t.edge[len(t.edge)-1]
	for i := len(t.edge) - 2; i >= 0; i-- {
		root = tlog.NodeHash(t.edge[i], root)
	}
	return root
}

// Edge is the tree in bytes, for [ParseTree] with its size.
func (t *Tree) Edge() []byte {
	out := make([]byte, 0, len(t.edge)*tlog.HashSize)
	for _, h := range t.edge {
		out = append(out, h[:]...)
	}
	return out
}

// ParseTree makes a tree of the given size from its edge. That it is the edge of
// a certain tree is for the caller to see: its root is in a signed head.
func ParseTree(size int64, edge []byte) (Tree, error) {
	if size < 0 {
		return Tree{}, errors.New("parsing the edge of a tree: its size is negative")
	}
	if want := bits.OnesCount64(uint64(size)) * tlog.HashSize; len(edge) != want {
		return Tree{}, fmt.Errorf("parsing the edge of a tree of %d entries: %d bytes, want %d", size, len(edge), want)
	}
	t := Tree{size: size}
	for len(edge) > 0 {
		t.edge = append(t.edge, tlog.Hash(edge[:tlog.HashSize]))
		edge = edge[tlog.HashSize:]
	}
	return t, nil
}
