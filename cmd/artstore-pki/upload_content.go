package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/ingestclient"
)

const (
	flagName = "name"
	stdinArg = "-"
)

// checkStdin refuses what cannot be meant: standard input has no name, and can be read once.
func checkStdin(c *cli.Context) error {
	count := 0
	for _, arg := range c.Args().Slice() {
		if arg == stdinArg {
			count++
		}
	}
	switch name := c.String(flagName); {
	case count > 1:
		return ui.UsageErrorf("- is given %d times, and standard input can be read once", count)
	case count == 1 && name == "":
		return ui.UsageErrorf("- needs --%s: standard input has no name", flagName)
	case count == 0 && name != "":
		return ui.UsageErrorf("--%s is for standard input: want - as FILE", flagName)
	}
	return nil
}

// take uploads what an argument names: standard input, a directory or a file.
func (r *uploadRun) take(ctx context.Context, arg string) {
	if arg == stdinArg {
		r.fail(r.sendStdin(ctx))
		return
	}
	info, err := os.Stat(arg)
	switch {
	case err == nil && info.IsDir() && r.recursive:
		r.fail(r.sendDirectory(ctx, arg))
	case err == nil && info.IsDir():
		r.fail(fmt.Errorf("uploading %s: it is a directory; --%s uploads the files in it", arg, flagRecursive))
	case err == nil:
		r.send(ctx, arg, ingestclient.FileContent(arg), info.Size())
	default: // the upload says what is wrong with it
		r.send(ctx, arg, ingestclient.FileContent(arg), 0)
	}
}

// sendDirectory uploads the regular files below dir. What cannot be read is an
// error of its own, and the rest is uploaded.
func (r *uploadRun) sendDirectory(ctx context.Context, dir string) error {
	root, err := filepath.EvalSymlinks(dir) // WalkDir does not enter a root that is a link
	if err != nil {
		return fmt.Errorf("uploading %s: %w", dir, err)
	}
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		shown := dir
		if rel, inside := filepath.Rel(root, path); inside == nil {
			shown = filepath.Join(dir, rel)
		}
		switch {
		case ctx.Err() != nil:
			return fs.SkipAll // the upload that was cut has said so
		case err != nil:
			r.fail(fmt.Errorf("uploading %s: %w", shown, err))
		case entry.IsDir():
		case !entry.Type().IsRegular():
			r.Infof("upload: %s is not a regular file: skipped", shown)
		default:
			var size int64
			if info, err := entry.Info(); err == nil {
				size = info.Size()
			}
			r.send(ctx, shown, ingestclient.FileContent(path), size)
		}
		return nil
	})
}

// sendStdin copies standard input to a temporary file, which has no name where
// the system allows that and so goes with the process, and uploads it.
func (r *uploadRun) sendStdin(ctx context.Context) (err error) {
	f, err := os.CreateTemp("", "artstore-upload-*") // mode 0600
	if err != nil {
		return fmt.Errorf("uploading standard input: %w", err)
	}
	removed := os.Remove(f.Name()) == nil
	defer func() {
		err = errors.Join(err, f.Close())
		if !removed {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	size, err := copyUntil(ctx, f, r.In)
	if err != nil {
		return fmt.Errorf("uploading %s: reading standard input: %w", r.stdinName, err)
	}
	r.send(ctx, r.stdinName, ingestclient.ReaderContent(r.stdinName, f, size), size)
	return nil
}

// copyUntil copies until the end of from, or of ctx: a read of standard input
// cannot be ended, so it is left behind then.
func copyUntil(ctx context.Context, to io.Writer, from io.Reader) (int64, error) {
	type outcome struct {
		n   int64
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		n, err := io.Copy(to, from)
		done <- outcome{n, err}
	}()
	select {
	case o := <-done:
		return o.n, o.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}
