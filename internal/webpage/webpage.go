// Package webpage has what pages and tables for people share, whatever they are about: the base
// of their style, the policy that allows a style and nothing else, and cells of CSV that no
// spreadsheet runs.
//
// Invariants:
//
//   - The policy of a page forbids all that is not allowed by hash: a text that got past the
//     escaping would neither run nor load anything (TestPolicyOfThePage in e2e/browser).
//   - A cell is on one line, has no control characters, and is no formula (TestCSVCell).
package webpage

import (
	"crypto/sha256"
	_ "embed" // for base.css
	"encoding/base64"
	"strings"

	"github.com/artstore/artstore-pki/internal/printable"
)

// BaseStyle is the style that all pages begin with: colours for light and dark, letters, the
// focus, and the marks of states.
//
//go:embed base.css
var BaseStyle string

// HashSource returns the source expression by which a Content Security Policy allows an inline
// style or script (CSP level 3 §2.3.1).
func HashSource(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// CSVCell makes a text of a stranger safe for a spreadsheet. Spreadsheets run a cell that begins
// with one of these characters as a formula; with an apostrophe before it they show it as text.
func CSVCell(s string) string {
	cell := printable.Clean(s)
	if cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r") {
		return "'" + cell
	}
	return cell
}
