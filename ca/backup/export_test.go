package backup

import "io"

// Keep writes one file of a backup after came bytes of the backup were read.
func Keep(dir, name string, came int64, in io.Reader) error {
	b := &reader{dir: dir, seen: make(map[string]fileFact), input: counter{n: came}}
	return b.keep(name, in)
}
