package enroll

import "time"

// alarm is a wall-clock time at which a job is due.
type alarm struct {
	set, at  time.Time
	failures int   // in a row
	err      error // of the last of them
	running  bool
}

func (t *alarm) schedule(now, at time.Time) { t.set, t.at = now, at }

// due also when the clock was set back behind the moment of scheduling: the plan was made by a clock that was wrong.
func (t *alarm) due(now time.Time) bool {
	return !t.running && (!now.Before(t.at) || now.Before(t.set.Add(-time.Minute)))
}

func (t *alarm) succeeded() { t.failures, t.err = 0, nil }

func (t *alarm) failed(err error) { t.failures, t.err = t.failures+1, err }

// job is work that runs beside the agent, once at a time.
type job[T any] struct {
	alarm
	done chan result[T]
}

type result[T any] struct {
	value T
	err   error
}

func newJob[T any]() job[T] { return job[T]{done: make(chan result[T], 1)} }

func (j *job[T]) start(work func() (T, error)) {
	j.running = true
	go func() {
		v, err := work()
		j.done <- result[T]{v, err}
	}()
}

// join waits for what is running.
func (j *job[T]) join() {
	if j.running {
		<-j.done
	}
}
