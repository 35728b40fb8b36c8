package settings

import (
	"maps"
	"slices"
)

// The number of edits by which a name may differ from the one that is suggested.
const (
	// nearMiss is a typing mistake, for names that may belong to another program.
	nearMiss = 2
	farMiss  = 6
)

// suggestion returns the end of a sentence about an unknown name, or "" if no known name is
// within the limit.
func suggestion[V any](name string, known map[string]V, limit int) string {
	best, least := "", limit+1
	for _, k := range slices.Sorted(maps.Keys(known)) { // sorted: of two as near the same each time
		if d := distance(name, k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return ": did you mean " + best + "?"
}

// maxName is how many bytes of a name are compared, which bounds the time for a long one.
const maxName = 100

// distance is the Levenshtein distance, over bytes. It keeps one row of the matrix.
func distance(a, b string) int {
	a, b = a[:min(len(a), maxName)], b[:min(len(b), maxName)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j]+1, row[j+1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
