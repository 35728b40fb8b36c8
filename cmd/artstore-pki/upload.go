package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/secret"
)

const envClientSecret = "SERVICE_ACCOUNT__CLIENT_SECRET"

func uploadCommand(u *ui) *cli.Command {
	const service, limits = "service account and endpoints", "transfer"
	flags := []cli.Flag{
		&cli.StringFlag{Name: "token-url", Category: service, EnvVars: []string{"ADMIN_MODULE__TOKEN_URL"}, Usage: "`URL` of the token endpoint (default: /api/v1/auth/token under --admin-url)"},
		&cli.StringFlag{Name: "admin-url", Category: service, EnvVars: []string{"ADMIN_MODULE__BASE_URL"}, Value: "https://artstore_admin_module:8000", Usage: "base `URL` of the Admin Module"},
		&cli.StringFlag{Name: "storage-url", Category: service, EnvVars: []string{"STORAGE_ELEMENT__BASE_URL"}, Usage: "base `URL` of the Storage Element"},
		&cli.StringFlag{Name: "dialect", Category: service, Value: "json", Usage: "encoding of token requests: json (ArtStore) or form (Keycloak)"},
		&cli.StringFlag{Name: "client-id", Category: service, EnvVars: []string{"SERVICE_ACCOUNT__CLIENT_ID"}, Usage: "`ID` of the service account"},
		&cli.StringFlag{Name: "client-secret-file", Category: service, EnvVars: []string{envClientSecret + "_FILE"}, Usage: "`FILE` with its secret; else $" + envClientSecret},
		&cli.StringFlag{Name: "description", Category: limits, Usage: "`TEXT` stored with each file"},
		&cli.DurationFlag{Name: "timeout", Category: limits, Value: 30 * time.Second, Usage: "wait for an answer after the last byte; never a limit on the whole upload"},
	}
	return &cli.Command{
		Name:      "upload",
		Usage:     "upload files to a Storage Element over mutual TLS",
		ArgsUsage: "FILE...",
		Description: `Streams each FILE with a cached access token and compares size and SHA-256 with what was
stored. Prints one line a file: id, checksum, size, name. Files after a failed one are still
tried. The certificate may rotate at any time.`,
		Flags:  append(flags, identityFlags()...),
		Action: u.runUpload,
	}
}

func (u *ui) runUpload(c *cli.Context) (err error) {
	if err := wantArgs(c, 1, -1); err != nil {
		return err
	}
	cfg, err := u.ingestConfig(c)
	if err != nil {
		return err
	}
	logger := u.logger(slog.LevelWarn)
	cfg.Logger = logger
	id, err := u.openIdentity(c, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, id.Close()) }()
	client, err := ingestclient.New(cfg, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()

	var failed []error
	for _, path := range c.Args().Slice() {
		if err := u.uploadOne(c.Context, client, path, c.String("description")); err != nil {
			failed = append(failed, err)
		}
		if c.Err() != nil {
			break
		}
	}
	return errors.Join(failed...)
}

func (u *ui) ingestConfig(c *cli.Context) (ingestclient.Config, error) {
	cfg := ingestclient.Config{
		TokenURL:        c.String("token-url"),
		Dialect:         ingestclient.Dialect(c.String("dialect")),
		ClientID:        c.String("client-id"),
		StorageURL:      c.String("storage-url"),
		ResponseTimeout: c.Duration("timeout"),
	}
	var missing []error
	if cfg.TokenURL == "" {
		if err := httpsURL("admin-url", c.String("admin-url")); err != nil {
			missing = append(missing, err)
		}
		cfg.TokenURL = c.String("admin-url") + "/api/v1/auth/token"
	}
	if cfg.StorageURL == "" {
		missing = append(missing, errors.New("missing --storage-url (STORAGE_ELEMENT__BASE_URL)"))
	}
	if cfg.ClientID == "" {
		missing = append(missing, errors.New("missing --client-id (SERVICE_ACCOUNT__CLIENT_ID)"))
	}
	file, fromEnv := c.String("client-secret-file"), secret.New(u.getenv(envClientSecret))
	if file == "" && fromEnv.IsZero() {
		missing = append(missing, errors.New("missing --client-secret-file (or "+envClientSecret+")"))
	}
	if err := errors.Join(missing...); err != nil {
		return cfg, &usage{err}
	}
	cfg.ClientSecret = func(context.Context) (ingestclient.Secret, error) {
		if file == "" {
			return fromEnv, nil
		}
		s, err := secret.ReadFile(file) // anew each time: a rotated secret is used at once
		if err != nil {
			return s, fmt.Errorf("reading the client secret: %w", err)
		}
		return s, nil
	}
	return cfg, nil
}

func (u *ui) uploadOne(ctx context.Context, client *ingestclient.Client, path, description string) error {
	progress, finish := u.progressBar(path)
	receipt, err := client.UploadFile(ctx, path, ingestclient.Meta{Description: description, Progress: progress})
	finish()
	if err != nil {
		return err
	}
	return u.print("%s  %s  %d  %s", receipt.FileID, receipt.SHA256, receipt.Size, path)
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
		mpb.PrependDecorators(decor.Name(clean(filepath.Base(path))+" ")),
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f"), decor.Percentage(decor.WCSyncSpace)),
	)
	progress = func(sent, _ int64) { bar.SetCurrent(sent) }
	return progress, func() {
		bar.Abort(true)
		bars.Wait()
	}
}
