package audit

// inOrder runs pieces of work side by side and hands their results on in the
// order in which they were given.
type inOrder[T any] struct {
	pieces chan piece[T]
	done   chan struct{}
}

type piece[T any] struct {
	result chan T
	room   chan struct{}
}

// maxPieces bounds all pieces that wait for their turn, of whatever kind.
const maxPieces = 8 << 10

func newInOrder[T any](emit func(T)) *inOrder[T] {
	o := &inOrder[T]{pieces: make(chan piece[T], maxPieces), done: make(chan struct{})}
	go func() {
		defer close(o.done)
		for p := range o.pieces {
			emit(<-p.result)
			<-p.room
		}
	}()
	return o
}

// do starts a piece as soon as there is room, which it takes up until its result
// was handed on: that bounds what waits behind a slow one. One goroutine calls it.
func (o *inOrder[T]) do(room chan struct{}, work func() T) {
	room <- struct{}{}
	p := piece[T]{make(chan T, 1), room}
	o.pieces <- p
	go func() { p.result <- work() }()
}

// wait returns when all results were handed on.
func (o *inOrder[T]) wait() {
	close(o.pieces)
	<-o.done
}
