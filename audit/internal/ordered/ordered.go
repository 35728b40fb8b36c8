// Package ordered runs work side by side and keeps its order.
package ordered

// Pool runs pieces of work side by side and hands their results on in the
// order in which they were given.
type Pool[T any] struct {
	pieces chan task[T]
	done   chan struct{}
}

type task[T any] struct {
	result chan T
	room   chan struct{}
}

// maxPieces bounds all pieces that wait for their turn, of whatever kind.
const maxPieces = 8 << 10

// New hands results to emit, which is called by one goroutine.
func New[T any](emit func(T)) *Pool[T] {
	o := &Pool[T]{pieces: make(chan task[T], maxPieces), done: make(chan struct{})}
	go func() {
		defer close(o.done)
		for p := range o.pieces {
			emit(<-p.result)
			<-p.room
		}
	}()
	return o
}

// Do starts a piece as soon as there is room, which it takes up until its result
// was handed on: that bounds what waits behind a slow one. One goroutine calls it.
func (o *Pool[T]) Do(room chan struct{}, work func() T) {
	room <- struct{}{}
	p := task[T]{make(chan T, 1), room}
	o.pieces <- p
	go func() { p.result <- work() }()
}

// Wait returns when all results were handed on.
func (o *Pool[T]) Wait() {
	close(o.pieces)
	<-o.done
}
