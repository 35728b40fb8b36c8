// Package strictjson decodes small files of JSON that this program has written: one value, of a
// bounded length, with known members only. Its errors quote nothing of the file.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Decode decodes the one value in data, which has most bytes or fewer. A member that is not known
// is an error, because a newer version of the program may mean something by it.
func Decode(data []byte, most int, into any) error {
	if len(data) > most {
		return fmt.Errorf("longer than %d bytes", most)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return errors.New("not the JSON expected")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}
