package ca

import "container/list"

// recent remembers values by key, and forgets the least recently used one when it
// is full. It bounds the memory for whatever strangers can make more of. Its users
// lock it.
type recent[K comparable, V any] struct {
	by    map[K]*list.Element
	order list.List // of remembered[K, V], used last first
}

type remembered[K comparable, V any] struct {
	key   K
	value V
}

func (r *recent[K, V]) get(key K) (value V, ok bool) {
	e, ok := r.by[key]
	if !ok {
		return value, false
	}
	r.order.MoveToFront(e)
	return e.Value.(remembered[K, V]).value, true
}

// add remembers a value under a key that get has not found; beyond most, the oldest goes.
func (r *recent[K, V]) add(key K, value V, most int) {
	if r.by == nil {
		r.by = make(map[K]*list.Element)
	}
	if len(r.by) >= most {
		last := r.order.Back()
		delete(r.by, last.Value.(remembered[K, V]).key)
		r.order.Remove(last)
	}
	r.by[key] = r.order.PushFront(remembered[K, V]{key, value})
}
