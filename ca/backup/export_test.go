package backup

import "io"

// Keep writes one file of a backup of which so many bytes came in.
func Keep(dir, name string, came int64, in io.Reader) error {
	b := &reader{dir: dir, seen: make(map[string]fileFact), input: counter{n: came}}
	return b.keep(name, in)
}
