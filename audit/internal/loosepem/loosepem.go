// Package loosepem finds PEM blocks that encoding/pem skips, because their markers are not on
// lines of their own: in strings of JSON and in .env files, where line breaks are written
// as \n, in indented block scalars of YAML, and in files that were joined without a line
// break between them.
package loosepem

import (
	"bytes"
	"encoding/pem"
	"strings"
)

// Block is a block that was found.
type Block struct {
	*pem.Block
	// Flaw says why programs would not read the block even if it was taken out of the
	// surrounding text; "" if they would.
	Flaw string
	// Indented is set if white space stands before its first line.
	Indented bool
}

const (
	begin = "-----BEGIN "
	end   = "-----END "
	dash  = "-----"
	// maxLabel bounds the words of a marker, in bytes.
	maxLabel = 64
	// maxLine is the longest line of a block that OpenSSL reads, in bytes.
	maxLine = 254
)

// Find returns the blocks in text, and the number of blocks that it could not read. The time
// is linear in the size of text.
func Find(text []byte) (found []Block, damaged int) {
	at := bytes.Index(text, []byte(begin))
	for at >= 0 {
		before := text[:at]
		text = text[at+len(begin):]
		if at = bytes.Index(text, []byte(begin)); at < 0 {
			at = len(text)
		}
		if b := read(before, text[:at], text[at:]); b != nil {
			found = append(found, *b)
		} else {
			damaged++
		}
		if at == len(text) {
			break
		}
	}
	return found, damaged
}

// read reads one block. The text begins behind the first word of its marker and ends before
// the next block.
func read(before, text, after []byte) *Block {
	label, _, ok := bytes.Cut(text[:min(len(text), maxLabel)], []byte(dash))
	if !ok || bytes.ContainsAny(label, "\r\n\\\"") {
		return nil
	}
	marker := []byte(end + string(label) + dash)
	body, behind, ok := bytes.Cut(text[len(label)+len(dash):], marker)
	if !ok {
		return nil
	}
	lines, flat := clean(string(body))
	block, _ := pem.Decode([]byte(begin + string(label) + dash + "\n" + lines + string(marker) + "\n"))
	if block == nil {
		return nil
	}
	b := &Block{Block: block}
	line := before[bytes.LastIndexByte(before, '\n')+1:]
	b.Indented = len(line) > 0 && len(bytes.TrimSpace(line)) == 0
	switch {
	case bytes.HasSuffix(before, []byte(dash)) || len(behind) == 0 && len(after) > 0 || bytes.HasPrefix(behind, []byte("-")):
		b.Flaw = "it shares a line with another block"
	case flat:
		b.Flaw = "it has lost its line breaks"
	}
	return b
}

// escapes are the escape sequences of JSON and similar languages that can occur in a block. A
// string inside a string has two backslashes.
var escapes = strings.NewReplacer(`\\n`, "\n", `\\r`, "", `\n`, "\n", `\r`, "", `\t`, "", `\/`, "/",
	`\u002b`, "+", `\u002B`, "+", `\u002f`, "/", `\u002F`, "/", `\u003d`, "=", `\u003D`, "=")

// clean removes the syntax of the surrounding language from the lines of a block. flat
// reports whether the block is one line that is longer than programs read.
func clean(body string) (lines string, flat bool) {
	var b strings.Builder
	n, longest := 0, 0
	for line := range strings.Lines(escapes.Replace(body)) {
		line = strings.Trim(line, " \t\r\n\"'\\,;")
		if line != "" {
			n, longest = n+1, max(longest, len(line))
		}
		if line != "" || n > 0 { // an empty line ends the headers
			b.WriteString(line)
			b.WriteByte('\n')
		}
	}
	return b.String(), n == 1 && longest > maxLine
}
