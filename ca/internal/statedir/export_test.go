package statedir

import "errors"

// ErrKilled is what Publish returns where a test has it stop.
var ErrKilled = errors.New("killed")

// KillAfter stops Publish after so many moves; the caller does nothing more, as a process that was killed.
func (s *Staging) KillAfter(moves int) {
	rename := s.rename
	s.rename = func(from, to string) error {
		if moves--; moves < 0 {
			return ErrKilled
		}
		return rename(from, to)
	}
}
