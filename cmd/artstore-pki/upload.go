package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/printable"
)

func uploadCommand(u *ui.UI) *cli.Command {
	flags := slices.Concat(settingsFlags(), u.LogFlags(slog.LevelWarn), metaFlags(), []cli.Flag{
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
		CustomHelpTemplate: commandHelpHead + statusesSettings + "\n",
		Action:             u.Action(runUpload),
	}
}

func runUpload(u *ui.UI, c *cli.Context) (err error) {
	if err := wantArgs(c, 1, -1); err != nil {
		return err
	}
	if err := checkStdin(c); err != nil {
		return err
	}
	meta, err := metaOf(c)
	if err != nil {
		return err
	}
	given, err := readSettings(u, c)
	if err != nil {
		return err
	}
	logger := u.Logger(slog.LevelWarn)
	a, err := openAccess(u, c, given, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close(c.Context)) }()
	client, err := a.client(a.cfg)
	if err != nil {
		return err
	}
	run := &uploadRun{UI: u, client: client, tracer: a.tracer, meta: meta, recursive: c.Bool(flagRecursive), stdinName: c.String(flagName)}
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
	tracer    *tracer
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
	ctx, end := r.tracer.upload(ctx, filepath.Base(path))
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
