// Package loosepem finds PEM blocks that encoding/pem passes over, because their
// markers do not stand on lines of their own: in strings of JSON and in .env files,
// whose line breaks are written as \n, in the block scalars of YAML, which are
// indented, and in files that were put together without a line break between them.
// Standard library only.
package loosepem

import (
	"bytes"
	"encoding/pem"
	"strings"
)

// Block is one that was found.
type Block struct {
	*pem.Block
	// Flaw says why programs that read PEM do not find the block, and would not find
	// it if it was taken out of the text that it stands in; "" if nothing hinders them then.
	Flaw string
	// Indented says that there is white space before its first line.
	Indented bool
}

const (
	begin = "-----BEGIN "
	end   = "-----END "
	dash  = "-----"
	// maxLabel bounds the words of a marker, in bytes.
	maxLabel = 64
	// maxLine is the longest line of a block in bytes that OpenSSL takes.
	maxLine = 254
)

// Find returns the blocks in text and how many it could not read. Its time is
// linear in the size of text.
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

// read reads a block from behind the first word of its marker up to the next block.
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

// escapes are those of JSON and of its relatives that can stand in a block. A string
// in a string has two backslashes.
var escapes = strings.NewReplacer(`\\n`, "\n", `\\r`, "", `\n`, "\n", `\r`, "", `\t`, "", `\/`, "/",
	`\u002b`, "+", `\u002B`, "+", `\u002f`, "/", `\u002F`, "/", `\u003d`, "=", `\u003D`, "=")

// clean takes from the lines of a block what belongs to the language that it stands
// in. flat reports that there is one line only, and a longer one than programs take.
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
