package eventlog

import (
	"testing"

	"github.com/artstore/artstore-pki/ca/record"
)

// TestNameSet: the same names give the same sum in whatever order, and any other ones
// give another.
func TestNameSet(t *testing.T) {
	sum := func(certificates ...record.Certificate) (s nameSet) {
		for i := range certificates {
			s.addAll(&certificates[i], int64(len(certificates[i].Serial)))
		}
		return s
	}
	a, b := record.Certificate{Serial: "1", Names: []string{"a", "b", "a"}}, record.Certificate{Serial: "22", Names: []string{"b"}}
	all := sum(a, b)
	if all.n != 3 || sum(b, a) != all {
		t.Errorf("%+v, in another order %+v", all, sum(b, a))
	}
	var index nameSet
	for _, row := range []struct {
		name string
		id   int64
	}{{"b", 2}, {"b", 1}, {"a", 1}} {
		index.add(row.name, a.NotAfter.UnixMilli(), row.id)
	}
	if index != all {
		t.Errorf("the table has %+v, the certificates %+v", index, all)
	}
	for what, other := range map[string]nameSet{
		"one less":       sum(a),
		"another name":   sum(a, record.Certificate{Serial: "22", Names: []string{"c"}}),
		"another number": sum(a, record.Certificate{Serial: "333", Names: []string{"b"}}),
	} {
		if other == all {
			t.Errorf("%s: the same sum", what)
		}
	}
}
