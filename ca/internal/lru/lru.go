// Package lru remembers values by key within a bound. It is for what clients can make
// more of at will: addresses, credentials, keys.
package lru

import "container/list"

// Cache remembers values by key, and forgets the least recently used one when it is
// full. The zero value is empty. Its users lock it.
type Cache[K comparable, V any] struct {
	by    map[K]*list.Element
	order list.List // of entry[K, V], used last first
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

// Get returns the value of a key, which is then the one used last.
func (c *Cache[K, V]) Get(key K) (value V, ok bool) {
	e, ok := c.by[key]
	if !ok {
		return value, false
	}
	c.order.MoveToFront(e)
	return e.Value.(entry[K, V]).value, true
}

// Add remembers a value under a key that Get has not found. With most keys in the
// cache already, the least recently used one is forgotten.
func (c *Cache[K, V]) Add(key K, value V, most int) {
	if c.by == nil {
		c.by = make(map[K]*list.Element)
	}
	if len(c.by) >= most {
		last := c.order.Back()
		delete(c.by, last.Value.(entry[K, V]).key)
		c.order.Remove(last)
	}
	c.by[key] = c.order.PushFront(entry[K, V]{key, value})
}

// Size is how many keys are remembered.
func (c *Cache[K, V]) Size() int { return c.order.Len() }
