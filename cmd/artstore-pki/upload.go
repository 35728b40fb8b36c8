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

// uploadCommand declares upload. Settings, log and metadata of files have flags that ingest
// has as well.
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

// runUpload uploads the files that the arguments name, one after the other, and prints a line
// for each file that is stored. It goes on after a file that failed, and returns all errors
// together at the end: status 1 means that at least one file is not stored.
//
// ingestclient decides how often an upload is tried, and compares size and SHA-256 of what
// was stored. Arguments, metadata and settings are checked before anything is opened. An
// interruption ends the upload in flight, whose outcome the error tells, and starts no other
// one; upload keeps no state, so a file can be stored twice if the command is run again.
// ingest is the command that keeps a journal.
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
	client  *ingestclient.Client
	session *uploads.Session // for traces; runUpload closes it
	// meta goes with each file.
	meta ingestclient.Meta
	// recursive says that directories are uploaded. Without it, a directory is an error.
	recursive bool
	// stdinName is the file name of standard input, if that is an argument.
	stdinName string
	// failed has the errors so far, in the order of the files.
	failed []error
}

// fail keeps an error for the end of the run. nil is no error.
func (r *uploadRun) fail(err error) {
	if err != nil {
		r.failed = append(r.failed, err)
	}
}

// send uploads one file and prints its line, which shows path. size is in bytes and is for the
// progress bar alone: the content tells its own size. An error is kept, also that of printing
// the line, because a program that reads the lines would miss a stored file.
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

// progressBar shows a bar for an upload of total bytes if stderr is a terminal. It returns the
// function that the client calls with what was sent, which is nil without a bar, and the
// function that erases the bar. The bar is erased before the line of the file is printed.
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
	stdinArg = "-" // the argument that stands for standard input
)

// checkStdin returns an error of the command line if standard input is an argument twice, or
// has no --name, or if --name is given without it. Standard input can be read once, and a
// file needs a name at the Storage Element.
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

// take uploads what an argument names: standard input, the files of a directory, or a file. A
// path that cannot be looked at is uploaded like a file, so that its error is the same as that
// of a file which cannot be opened.
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
	default:
		r.send(ctx, arg, ingestclient.FileContent(arg), 0)
	}
}

// sendDirectory uploads the regular files below dir, in the order of their names. A directory
// that cannot be read is an error, and the rest is uploaded. Links, sockets and devices are
// named on stderr and left out: a link could lead out of dir, or round in a circle. Lines and
// errors show paths below dir as it was typed, also where dir is a link.
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
			return fs.SkipAll // the upload in flight has kept its error
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

// sendStdin copies standard input to a temporary file and uploads that file. A Storage Element
// is told the size before the content, and a repeated attempt has to read the content again;
// standard input permits neither. The file is removed before it is filled, where the system
// allows that, so that a killed process leaves nothing. Elsewhere it is removed at the end.
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

// copyUntil copies from one to the other until from or ctx ends, and returns how many bytes it
// copied. A read of standard input cannot be interrupted. When ctx ends, the goroutine that
// reads is left behind, and ends with the process or with the next byte.
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
