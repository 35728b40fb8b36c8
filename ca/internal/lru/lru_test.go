package lru_test

import (
	"testing"

	"github.com/artstore/artstore-pki/ca/internal/lru"
)

// TestCache: a full cache forgets what was used least recently.
func TestCache(t *testing.T) {
	var c lru.Cache[string, int]
	if _, ok := c.Get("a"); ok || c.Size() != 0 {
		t.Error("the zero value is not empty")
	}
	c.Add("a", 1, 2)
	c.Add("b", 2, 2)
	if v, ok := c.Get("a"); !ok || v != 1 {
		t.Errorf("a: %d %t", v, ok)
	}
	c.Add("c", 3, 2) // b was used before a
	for key, want := range map[string]bool{"a": true, "b": false, "c": true} {
		if _, ok := c.Get(key); ok != want {
			t.Errorf("%s: %t", key, ok)
		}
	}
	if c.Size() != 2 {
		t.Errorf("%d keys", c.Size())
	}
}
