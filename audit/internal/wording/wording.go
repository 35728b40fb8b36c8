// Package wording has the words for numbers in sentences of checks and reports.
package wording

import (
	"fmt"

	"github.com/artstore/artstore-pki/internal/humantime"
)

// Units of a length of time.
const (
	Minute humantime.Seconds = 60
	Hour                     = 60 * Minute
	Day                      = 24 * Hour
)

// Plural returns a number with the word for one thing or for many.
func Plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
