package dev

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/loadgen"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/uploads"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/rotation"
)

const (
	// ingestMin and ingestMax bound the size of one file, in bytes. Files are windows of one
	// block of ingestPool random bytes, which is made once.
	ingestMin  = 512
	ingestMax  = 16 << 10
	ingestPool = 1 << 20
	// ingestSays is the time between two lines that say how far it is.
	ingestSays = 15 * time.Second
)

// errUploadsFailed makes the exit status 1; each failure was printed when it happened.
var errUploadsFailed = errors.New("uploads failed")

// devIngesterCommand declares dev ingester.
func devIngesterCommand(u *ui.UI) *cli.Command {
	flags := slices.Concat(uploads.Flags(), u.LogFlags(slog.LevelInfo), serving.MetricsFlags(""), []cli.Flag{
		values.DurationFlag("every", time.Second, "pause between two files for one Storage Element"),
		&cli.Int64Flag{Name: "count", Usage: "stop after this many files in all; 0 goes on until told to stop"},
	})
	return &cli.Command{
		Name:  "ingester",
		Usage: "upload small random files without a break",
		Description: `Uploads to every --storage-url over mutual TLS, whatever rotates meanwhile, and prints one line
a stored file: id, checksum, size, Storage Element. Uploads under way when it is told to
stop are finished; then it prints the totals. The exit status is 1 if any upload failed.
It is ready while its certificate is valid and the last upload to each succeeded.`,
		Flags:              flags,
		CustomHelpTemplate: help.Head + uploads.Statuses + "\n",
		Action:             u.Action(runDevIngester),
	}
}

// runDevIngester uploads small random files to every Storage Element until it is told to stop,
// or has sent --count files. It has a client for each element, because one client for all
// would choose one of them for each file. Settings without TLS and a registry in place of
// addresses are errors of the command line: the command is there to show that uploads to
// each element go on while certificates rotate.
func runDevIngester(u *ui.UI, c *cli.Context) (err error) {
	if err := flags.WantArgs(c, 0, 0); err != nil {
		return err
	}
	given, err := uploads.Read(u, c)
	if err != nil {
		return err
	}
	switch {
	case !given.TLS.Enabled:
		return ui.UsageErrorf("TLS__ENABLED=false: this command shows rotation, which needs TLS")
	case given.Storage.Registry != "":
		return ui.UsageErrorf("ADMIN_MODULE__REGISTRY_URL: this command uploads to every Storage Element by name")
	}
	logger := u.Logger(slog.LevelInfo)
	a, err := uploads.Open(u, c, uploads.Setup{Settings: given, Logger: logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close(c.Context)) }()
	in := &ingester{u: u, id: a.Identity, every: values.DurationOf(c, "every"), count: c.Int64("count"), content: make([]byte, ingestPool)}
	_, _ = rand.Read(in.content) // never fails (Go 1.24)
	served := serving.IdentityMetrics(c, a.Identity, in.ready)
	a.Config.Observer = uploads.NewMetrics(served.Registry).Observer()
	for _, url := range given.Storage.URLs {
		client, err := a.NewClient(uploads.ForElement(a.Config, url))
		if err != nil {
			return err
		}
		in.sinks = append(in.sinks, &sink{Uploader: loadgen.Uploader{Client: client}, url: url})
	}
	return in.run(c, served)
}

// ingester uploads to several Storage Elements with one identity.
type ingester struct {
	u  *ui.UI
	id *rotation.Identity // runDevIngester closes it
	// every is the pause between two files for one element.
	every time.Duration
	// count is the number of files for all elements together; 0 is no limit.
	count   int64
	content []byte
	sinks   []*sink
	begun   atomic.Int64 // files that were begun, for all elements
}

// sink is one Storage Element with its client and its figures.
type sink struct {
	loadgen.Uploader
	url string
}

// run uploads until the context of c ends, or until count files were begun, and waits for the
// uploads in flight. It returns an error if one upload failed, so that a test can rely on
// status 0.
func (in *ingester) run(c *cli.Context, served serving.Metrics) error {
	ctx, stop := context.WithCancel(c.Context)
	defer stop()
	aside, ctxAside := errgroup.WithContext(ctx)
	if err := served.Start(ctxAside, c, aside); err != nil {
		return err
	}
	aside.Go(func() error {
		loadgen.Every(ctxAside, ingestSays, func(int) { in.u.Infof("ingester: %s", in.summary()) })
		return nil
	})
	var work errgroup.Group
	for _, s := range in.sinks {
		work.Go(func() error { return in.feed(ctxAside, s) })
	}
	err := work.Wait()
	stop()
	err = errors.Join(err, aside.Wait())
	in.u.Infof("ingester: stopped: %s", in.summary())
	if err == nil && in.failures() > 0 {
		err = errUploadsFailed
	}
	return err
}

// feed uploads to one Storage Element until ctx ends or the count is reached. A failed upload is
// printed and counted, and the next one follows. A line that cannot be printed ends it with an
// error, because nobody would know of the stored file.
func (in *ingester) feed(ctx context.Context, s *sink) (err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	loadgen.Every(ctx, in.every, func(n int) {
		if in.count > 0 && in.begun.Add(1) > in.count {
			stop()
			return
		}
		size, at := ingestMin+n*7919%(ingestMax-ingestMin), n*4099%(len(in.content)-ingestMax) // primes: sizes and contents differ from file to file
		file, uploadErr := s.Upload(ctx, fmt.Sprintf("ingested-%06d.bin", n), in.content[at:at+size])
		if uploadErr != nil {
			in.u.Infof("ingester: %v", uploadErr)
			return
		}
		if err = in.u.Outf("%s  %s  %d  %s", file.FileID, file.SHA256, file.Size, s.url); err != nil {
			stop()
		}
	})
	return err
}

// ready returns why the next upload to one of the elements may fail, or nil: the certificate is
// good and the last upload to each element succeeded.
func (in *ingester) ready(context.Context) error {
	err := in.id.Check()
	for _, s := range in.sinks {
		if bad := s.Health(); bad != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", s.url, bad))
		}
	}
	return err
}

// failures returns how many uploads failed, at all elements together.
func (in *ingester) failures() (n int64) {
	for _, s := range in.sinks {
		n += s.Failures.Load()
	}
	return n
}

// summary returns the figures of all elements together as one line for people.
func (in *ingester) summary() string {
	var uploads, bytes, tokens int64
	for _, s := range in.sinks {
		uploads += s.Uploads.Load()
		bytes += s.Bytes.Load()
		tokens += s.Client.Stats().TokenFetches
	}
	leaf := in.id.Current().Leaf()
	return fmt.Sprintf("uploads %d (%s)  failures %d  tokens %d  certificate until %s",
		uploads, ui.Size(bytes), in.failures(), tokens, leaf.NotAfter.Local().Format(time.TimeOnly))
}
