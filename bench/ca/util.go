package main

import (
	"errors"
	"io"
	"net/http"
	"strconv"
)

// drain reads an answer to its end, so that the connection is used again.
func drain(resp *http.Response) error {
	_, err := io.Copy(io.Discard, resp.Body)
	return errors.Join(err, resp.Body.Close())
}

// joined is err and whatever comes of undoing.
func joined(err error, undo func() error) error { return errors.Join(err, undo()) }

func quoted(s string) string { return strconv.Quote(s) } // PEM has line feeds only
