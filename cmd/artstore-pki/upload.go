package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/uploads"
	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/printable"
)

func uploadCommand(u *ui.UI) *cli.Command {
	flags := slices.Concat(uploads.Flags(), u.LogFlags(slog.LevelWarn), uploads.MetaFlags(), []cli.Flag{
		&cli.BoolFlag{Name: flagRecursive, Aliases: []string{"r"}, Usage: "upload the files of each directory that is named, and of those below it"},
		&cli.StringFlag{Name: flagName, Usage: "file `NAME` of what comes from standard input"},
	})
	return &cli.Command{
		Name:      "upload",
		Usage:     "upload files to a Storage Element over mutual TLS",
		ArgsUsage: "FILE...",
		Description: `Streams each FILE with a cached access token and compares size and SHA-256 with what was
stored. Prints one line a file: id, checksum, size, name. Files after a failed one are still
tried. The certificate may rotate at any time. Settings come from flags, else the environment,
else --config, else their defaults; config show prints them, config check tries them.

   artstore-pki upload --tags project=atlas --content-type image/tiff scan.tif
   artstore-pki upload --recursive scans
   pg_dump db | artstore-pki upload --name db.sql -

- is standard input, which is copied to a private temporary file first: a Storage Element is told
the size before the content, and a failed attempt is repeated from the begin. Of a directory
regular files are taken, in order of their names; links are not followed.`,
		Flags:              flags,
		CustomHelpTemplate: help.Head + uploads.Statuses + "\n",
		Action:             u.Action(runUpload),
	}
}

// runUpload tries each argument, also after one that failed, and returns all errors.
func runUpload(u *ui.UI, c *cli.Context) (err error) {
	if err := flags.WantArgs(c, 1, -1); err != nil {
		return err
	}
	if err := checkStdin(c); err != nil {
		return err
	}
	meta, err := uploads.MetaOf(c)
	if err != nil {
		return err
	}
	given, err := uploads.Read(u, c)
	if err != nil {
		return err
	}
	logger := u.Logger(slog.LevelWarn)
	a, err := uploads.Open(u, c, uploads.Setup{Settings: given, Logger: logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close(c.Context)) }()
	client, err := a.NewClient(a.Config)
	if err != nil {
		return err
	}
	run := &uploadRun{UI: u, session: a, client: client, meta: meta, recursive: c.Bool(flagRecursive), stdinName: c.String(flagName)}
	for _, arg := range c.Args().Slice() {
		run.take(c.Context, arg)
		if c.Err() != nil {
			break
		}
	}
	return errors.Join(run.failed...)
}

// uploadRun is one run of the command.
type uploadRun struct {
	*ui.UI
	client    *ingestclient.Client
	session   *uploads.Session
	meta      ingestclient.Meta
	recursive bool
	stdinName string
	failed    []error
}

// fail keeps an error for the end: the files after a failed one are still tried.
func (r *uploadRun) fail(err error) {
	if err != nil {
		r.failed = append(r.failed, err)
	}
}

// send uploads one file; path is what its line shows.
func (r *uploadRun) send(ctx context.Context, path string, content ingestclient.Content, size int64) {
	ctx, end := r.session.Trace(ctx, filepath.Base(path))
	meta := r.meta
	progress, finish := progressBar(r.UI, path, size)
	meta.Progress = progress
	file, err := r.client.Upload(ctx, content, meta)
	finish()
	if end(err); err != nil {
		r.fail(err)
		return
	}
	if len(file.Dropped) > 0 {
		r.WarnOnce([]string{strings.Join(file.Dropped, ", ")}, "not kept by "+file.Element)
	}
	r.fail(r.Outf("%s  %s  %d  %s", file.FileID, file.SHA256, file.Size, path))
}

// progressBar shows a bar on a terminal and nothing elsewhere; the line that
// reports the stored file is printed either way.
func progressBar(u *ui.UI, path string, total int64) (progress func(sent, total int64), finish func()) {
	width, ok := u.Terminal(u.Err)
	if !ok {
		return nil, func() {}
	}
	bars := mpb.New(mpb.WithOutput(u.Err), mpb.WithWidth(min(width, 80)))
	bar := bars.AddBar(total,
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(printable.Clean(filepath.Base(path))+" ")),
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f"), decor.Percentage(decor.WCSyncSpace)),
	)
	progress = func(sent, _ int64) { bar.SetCurrent(sent) }
	return progress, func() {
		bar.Abort(true)
		bars.Wait()
	}
}

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
