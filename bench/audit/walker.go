package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// walker is the limit that others are measured against: the least that a plain
// program in Go does to know every certificate below a path. With a root it
// verifies each signature once. It prints a number.
func walker(out io.Writer, path, rootFile string) error {
	var root *x509.Certificate
	if rootFile != "" {
		data, err := os.ReadFile(rootFile)
		if err != nil {
			return err
		}
		block, _ := pem.Decode(data)
		if root, err = x509.ParseCertificate(block.Bytes); err != nil {
			return err
		}
	}
	seen := 0
	sum := sha256.New()
	err := filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path) //nolint:gosec // G122: nobody else writes below it
		if err != nil {
			return err
		}
		for {
			block, rest := pem.Decode(data)
			if block == nil {
				return nil
			}
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return err
			}
			if root != nil {
				if err := c.CheckSignatureFrom(root); err != nil {
					return err
				}
			}
			one := sha256.Sum256(c.Raw)
			sum.Write(one[:])
			seen++
			data = bytes.TrimLeft(rest, "\n")
		}
	})
	_, wrote := fmt.Fprintf(out, "%d %x\n", seen, sum.Sum(nil)[:4])
	err = errors.Join(err, wrote)
	if seen == 0 {
		err = errors.Join(err, errors.New("nothing was found"))
	}
	return err
}
