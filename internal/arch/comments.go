package arch

import (
	"bytes"
	"go/scanner"
	"go/token"
)

// CommentShare returns which part of the package's lines are comments, from 0 to 1,
// with test files and generated files left out. Blank lines are not counted. A line
// of comment only counts whole, and a comment behind code counts half a line.
func (s Shape) CommentShare() float64 {
	if s.Lines == 0 {
		return 0
	}
	return float64(s.halfComments) / 2 / float64(s.Lines)
}

// countComments counts the lines of one file that are not blank, and its comments in
// half lines. What looks like a comment inside a string literal is part of the
// string: the tokens decide, not the text of the line.
func countComments(src []byte) (lines, halfComments int) {
	code, comment := linesOfTokens(src)
	for i, text := range bytes.Split(src, []byte("\n")) {
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		lines++
		switch n := i + 1; {
		case !comment[n]:
		case code[n]:
			halfComments++
		default:
			halfComments += 2
		}
	}
	return lines, halfComments
}

// linesOfTokens returns the numbers of the lines, counted from 1, that hold code and
// of those that hold comments. A line can be in both.
func linesOfTokens(src []byte) (code, comment map[int]bool) {
	code, comment = map[int]bool{}, map[int]bool{}
	file := token.NewFileSet().AddFile("", -1, len(src))
	var s scanner.Scanner
	s.Init(file, src, nil, scanner.ScanComments) // a file that does not parse was refused before
	for {
		pos, tok, text := s.Scan()
		if tok == token.EOF {
			return code, comment
		}
		if tok == token.SEMICOLON && text == "\n" {
			continue // the scanner inserts it at the end of a line
		}
		kind := code
		if tok == token.COMMENT {
			kind = comment
		}
		first := file.PositionFor(pos, false).Line // without //line directives
		for n := range 1 + bytes.Count([]byte(text), []byte("\n")) {
			kind[first+n] = true
		}
	}
}
