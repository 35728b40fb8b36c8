package translog

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// Tree is the right edge of a Merkle tree: the roots of its complete subtrees, largest first,
// one for each bit of its size. That is enough to append and to compute the root.
type Tree struct {
	size int64
	edge []tlog.Hash
}

// Size is the number of entries.
func (t *Tree) Size() int64 { return t.size }

// Append adds the next leaf. complete, if not nil, is called for each subtree of level 1 and
// above that this completes. It holds the entries [n<<level, (n+1)<<level).
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

// Root is the root of the tree: of an empty one the hash of no bytes (RFC 6962 §2.1).
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

// Edge is the edge in bytes, for [ParseTree].
func (t *Tree) Edge() []byte {
	out := make([]byte, 0, len(t.edge)*tlog.HashSize)
	for _, h := range t.edge {
		out = append(out, h[:]...)
	}
	return out
}

// ParseTree makes a tree from its size and edge. The caller compares its root with a head.
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
