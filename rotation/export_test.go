package rotation

import (
	"crypto/tls"
	"time"
)

// ServerAt asks a server for its configuration as of a time.
func ServerAt(s *Server) func(time.Time) (*tls.Config, error) { return s.config }

// TicketKeys derives the keys of a fresh secret for each pair of day and scope.
func TicketKeys() func(day time.Time, scope ...string) [][32]byte {
	s := newTicketSecret()
	return func(day time.Time, scope ...string) [][32]byte {
		k, err := s.keys(day, scope)
		if err != nil {
			panic(err)
		}
		return k
	}
}

// Conns counts the connections that all generations of t own.
func Conns(t *Transport) int {
	sum := 0
	for _, n := range t.id.liveGenerations() {
		n.mu.Lock()
		p := n.pools[t]
		n.mu.Unlock()
		if p != nil {
			p.mu.Lock()
			sum += len(p.conns)
			p.mu.Unlock()
		}
	}
	return sum
}

// Examine is the gate at the start, when no generation is in effect.
func Examine(m Material) (*Generation, error) { return validate(m, nil, nil, 0) }

// OpenConns counts the connections that s looks after.
func OpenConns(s *Server) int { return len(s.conns.all()) }

// Rests reports that s will not look at its connections for hours.
func Rests(s *Server) bool {
	s.conns.mu.Lock()
	defer s.conns.mu.Unlock()
	return time.Until(s.conns.next) > time.Hour
}
