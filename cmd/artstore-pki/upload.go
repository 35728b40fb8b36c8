package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/printable"
)

func uploadCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "upload",
		Usage:     "upload files to a Storage Element over mutual TLS",
		ArgsUsage: "FILE...",
		Description: `Streams each FILE with a cached access token and compares size and SHA-256 with what was
stored. Prints one line a file: id, checksum, size, name. Files after a failed one are still
tried. The certificate may rotate at any time. Settings come from flags, else the environment,
else --config, else their defaults; config show prints them, config check tries them.`,
		Flags:              append(append(settingsFlags(), u.logFlags(slog.LevelWarn)...), &cli.StringFlag{Name: "description", Usage: "`TEXT` stored with each file"}),
		CustomHelpTemplate: commandHelpHead + statusesSettings + "\n",
		Action:             u.runUpload,
	}
}

func (u *ui) runUpload(c *cli.Context) (err error) {
	if err := wantArgs(c, 1, -1); err != nil {
		return err
	}
	given, err := u.settings(c)
	if err != nil {
		return err
	}
	logger := u.logger(slog.LevelWarn)
	a, err := u.openAccess(c, given, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close(c.Context)) }()
	client, err := a.client(a.cfg)
	if err != nil {
		return err
	}

	var failed []error
	for _, path := range c.Args().Slice() {
		ctx, end := a.tracer.upload(c.Context, filepath.Base(path))
		err := u.uploadOne(ctx, client, path, c.String("description"))
		if end(err); err != nil {
			failed = append(failed, err)
		}
		if c.Err() != nil {
			break
		}
	}
	return errors.Join(failed...)
}

func (u *ui) uploadOne(ctx context.Context, client *ingestclient.Client, path, description string) error {
	progress, finish := u.progressBar(path)
	file, err := client.UploadFile(ctx, path, ingestclient.Meta{Description: description, Progress: progress})
	finish()
	if err != nil {
		return err
	}
	return u.print("%s  %s  %d  %s", file.FileID, file.SHA256, file.Size, path)
}

// progressBar shows a bar on a terminal and nothing elsewhere; the line that
// reports the stored file is printed either way.
func (u *ui) progressBar(path string) (progress func(sent, total int64), finish func()) {
	width, ok := u.terminal(u.err)
	if !ok {
		return nil, func() {}
	}
	var total int64
	if info, err := os.Stat(path); err == nil {
		total = info.Size()
	}
	bars := mpb.New(mpb.WithOutput(u.err), mpb.WithWidth(min(width, 80)))
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
