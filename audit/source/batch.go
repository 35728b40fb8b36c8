package source

import "github.com/artstore/artstore-pki/audit"

// batch is the result of one piece of work.
type batch struct {
	found []found
	seen  *bool // is set when a subject is yielded; may be nil
}

// found is a subject. If later is set, it is a function that finds subjects when it is
// their turn: large files are read then, so that the memory has one of them at a time.
type found struct {
	audit.Subject

	later func(yield func(audit.Subject))
}

func batchOf(subjects ...audit.Subject) (b batch) {
	for _, s := range subjects {
		b.found = append(b.found, found{Subject: s})
	}
	return b
}

// yield yields the subjects in their order, and calls the later functions in turn.
func (b batch) yield(yield func(audit.Subject)) {
	one := func(s audit.Subject) {
		if b.seen != nil {
			*b.seen = true
		}
		yield(s)
	}
	for _, f := range b.found {
		if f.later != nil {
			f.later(one)
			continue
		}
		one(f.Subject)
	}
}
