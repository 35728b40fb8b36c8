// Package ordered runs pieces of work in parallel, and keeps the order of their results.
//
//	pool := ordered.New(func(r result) { … }) // called by one goroutine
//	for _, name := range names {
//		pool.Do(room, func() result { return read(name) })
//	}
//	pool.Wait()
package ordered

// Pool runs pieces of work in parallel, and hands on the results in the order in which the
// pieces were given.
type Pool[T any] struct {
	pieces chan task[T]
	done   chan struct{}
}

type task[T any] struct {
	result chan T
	room   chan struct{}
}

// maxPieces bounds the pieces of all kinds that wait for their turn.
const maxPieces = 8 << 10

// New returns a pool that hands results to emit, which is called by one goroutine.
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

// Do starts a piece as soon as there is a place in room. The piece keeps its place until its
// result was handed on, which bounds the results that wait for a slow piece. One goroutine
// calls Do.
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
