package monitoring

import (
	"strings"
	"testing"
)

// Each query of the board has data in a Prometheus that reads a whole house, and no alert fires there.
func TestBoardHasData(t *testing.T) {
	binary := house(t)
	s := newStack(t)
	s.startHouse()
	s.startPrometheus(binary)
	for _, p := range panels(t) {
		for _, target := range p.Targets {
			expr := strings.ReplaceAll(target.Expr, "$job", "artstore-.+")
			s.await("data of "+p.Title+": "+expr, func() bool { return len(s.query(expr)) > 0 })
		}
	}
	s.await("all targets", func() bool { return len(s.query(`up == 0`)) == 0 })
	if firing := s.query(`ALERTS{alertstate="firing"}`); len(firing) > 0 {
		t.Errorf("nothing is wrong, and these fire: %v", firing)
	}
}
