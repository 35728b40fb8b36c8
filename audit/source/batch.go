package source

import "github.com/artstore/artstore-pki/audit"

// batch is what one piece of work has found.
type batch struct {
	found []found
	seen  *bool // set when something of it is yielded; nil: nobody asks
}

// found is a subject, or with later what finds subjects when it is their turn.
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

// yield yields subjects, and in turn those that were put off.
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
