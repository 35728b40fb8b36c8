package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/flags"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/help"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/loadgen"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/uploads"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/ingestclient/spool"
	spoolstatus "github.com/artstore/artstore-pki/ingestclient/spool/status"
	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/rotation"
)

const (
	// exitFailedFiles is the status if this run has quarantined files, in failed/ or in
	// ambiguous/. ingest resolve uses it for files that stay in quarantine.
	exitFailedFiles = 3
	// exitRemaining is the status if files are left that were not sent.
	exitRemaining = 4

	// ingestTalk is the time between two lines that say how far it is, if anything changed.
	ingestTalk = 15 * time.Second
)

// ingestStatuses ends the help of ingest.
const ingestStatuses = `   0    told to stop, or with --once: everything was stored
   1    it failed; the error says what and where
   2    the command line is wrong
   3    with --once: files were put aside; artstore-pki ingest status DIR says why
   4    with --once: files are left that could not be sent now
   130  interrupted before it had begun
`

// ingestCommand declares ingest, with ingest status and ingest resolve below it.
func ingestCommand(u *ui.UI) *cli.Command {
	return &cli.Command{
		Name:      "ingest",
		Usage:     "upload what appears in a directory, and lose nothing",
		ArgsUsage: "DIR",
		Description: `Watches DIR, uploads each complete file over mutual TLS and prints one line when it is stored:
id, checksum, size, name. Killed at any instant, it goes on where it was: no file is lost, and
none is stored twice unless you ask for it. Names that begin with a dot or end in .part or .tmp
are not touched; a file counts as complete when it stands still for --settle, or was renamed
into DIR. Refused files end in DIR/.artstore-ingest/failed, each with its reason; files that
may be stored, in ambiguous. While the Storage Element takes nothing, everything waits.
artstore-pki ingest status DIR looks at it from outside, ingest resolve settles what was put aside.
docs/ingest.md has the rest.`,
		Flags:              slices.Concat(uploads.Flags(), spoolFlags(), uploads.MetaFlags(), u.LogFlags(slog.LevelInfo)),
		CustomHelpTemplate: help.Head + ingestStatuses,
		Action:             u.Action(runIngest),
		Subcommands:        []*cli.Command{ingestStatusCommand(u), ingestResolveCommand(u)},
	}
}

// spoolFlags returns the flags of the queue, which spoolConfig reads. The fields of spool.Config
// say more about each.
func spoolFlags() []cli.Flag {
	const category = "directory"
	return append([]cli.Flag{
		&cli.StringFlag{Name: "on-success", Category: category, Value: string(spool.DeleteSource), Usage: "what becomes of a stored file: delete, move (to .artstore-ingest/done) or keep"},
		&cli.GenericFlag{Name: "settle", Category: category, Value: values.OrZero(2 * time.Second), Usage: "how long a file must stand still to be complete; 0: at once, for writers that rename whole files in"},
		&cli.BoolFlag{Name: "on-close", Category: category, Usage: "take a file as soon as its writer closes it (Linux); wrong for files that are opened more than once"},
		&cli.GenericFlag{Name: "rescan", Category: category, Value: &values.Duration{Duration: 5 * time.Second}, Usage: "pause between two looks at the whole directory"},
		&cli.BoolFlag{Name: flagRecursive, Category: category, Usage: "include sub-directories"},
		stateDirFlag(category),
		&cli.Int64Flag{Name: "min-free", Category: category, Value: 1 << 20, Usage: "claim nothing below this many free `BYTES`; 0 turns it off"},
		&cli.StringFlag{Name: "file-ids", Category: "transfer", Value: "auto", Usage: "who chooses ids: client (each element is known to take ours, as ArtStore's Python one does: interrupted uploads are repeated), element (they become ambiguous), or auto: find out from the first receipt"},
		&cli.BoolFlag{Name: "retry-ambiguous", Category: "transfer", Usage: "send what lies in ambiguous once more, at the risk of a second copy"},
		&cli.IntFlag{Name: "workers", Category: "transfer", Value: 8, Usage: "uploads at a time"},
		&cli.GenericFlag{Name: "drain-timeout", Category: "transfer", Value: values.OrZero(30 * time.Second), Usage: "how long uploads may go on after SIGTERM"},
		&cli.BoolFlag{Name: "once", Usage: "send what is there, then end"},
	}, serving.MetricsFlags("; meant for loopback")...)
}

// Flags that ingest shares with ingest status, ingest resolve and upload.
const (
	flagRecursive = "recursive"
	flagStateDir  = "state-dir"
)

// stateDirFlag returns --state-dir. ingest status and ingest resolve have it as well: with
// another value they would look at another state, and find nothing.
func stateDirFlag(category string) cli.Flag {
	return &cli.StringFlag{
		Name: flagStateDir, Category: category, EnvVars: []string{"ARTSTORE_PKI_INGEST_STATE_DIR"}, DefaultText: "DIR/" + spool.StateDir,
		Usage: "`PATH` of the state, outside of DIR and on its file system; one for each DIR",
	}
}

// runIngest uploads what appears in a directory until it is told to stop, or with --once until
// nothing is left to do. It checks the flags, opens client and identity, and then the queue,
// which locks the directory and settles what an earlier run left in progress. It closes them
// the other way round, because no upload may outlive its client.
//
// ingestclient/spool decides about every file: when it is complete, whether it is sent, sent
// again, or quarantined. SIGTERM lets uploads in flight go on for --drain-timeout; what is
// left then is sent by the next run. Killed at any moment, the journal says where each file
// is. A second ingest of the same directory is refused (spool.ErrLocked).
func runIngest(u *ui.UI, c *cli.Context) (err error) {
	if err := flags.WantArgs(c, 1, 1); err != nil {
		return err
	}
	cfg, err := spoolConfig(c)
	if err != nil {
		return err
	}
	d, err := uploads.OpenDaemon(u, c, "ingest")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close(c.Context)) }()
	cfg.Uploader, cfg.Prober, cfg.Logger = d.Client, d.Client, d.Config.Logger
	// A Finder looks up uploads without an outcome by the ids that we chose. Without one they
	// are ambiguous (docs/design/0026-files-that-may-be-stored.md).
	switch ids := c.String("file-ids"); ids {
	case "auto":
		cfg.Finder = d.Client
	case "client":
		cfg.Finder, cfg.IDsKept = d.Client, true
	case "element":
	default:
		return ui.UsageErrorf("--file-ids %q: want auto, client or element", printable.Clean(ids))
	}
	in := &ingest{u: u, id: d.Identity, dir: c.Args().First()}
	cfg.Observer = in.observe
	if in.spool, err = spool.Open(cfg); err != nil {
		return ingestHint(err)
	}
	defer func() { err = errors.Join(err, in.spool.Close()) }()
	d.Served.Registry.MustRegister(spoolCollector{in.spool})
	d.Served.Ready = in.ready
	return in.run(c, d.Served)
}

// ingestHint returns err with advice if another process has the directory, or if the state is
// on another file system, where a claim by rename is impossible.
func ingestHint(err error) error {
	if errors.Is(err, spool.ErrLocked) {
		return ui.WithHint(err, "artstore-pki ingest status DIR shows what it does")
	}
	if errors.Is(err, syscall.EXDEV) {
		return ui.WithHint(err, "--state-dir takes a directory beside DIR, in the same mount")
	}
	return err
}

// spoolConfig returns the configuration that the flags of the queue give, without the client.
// A value that makes no sense is an error of the command line.
func spoolConfig(c *cli.Context) (spool.Config, error) {
	meta, err := uploads.MetaOf(c)
	if err != nil {
		return spool.Config{}, err
	}
	cfg := spool.Config{
		Dir: c.Args().First(), StateDir: c.String(flagStateDir), Meta: meta,
		OnSuccess: spool.SourceAction(c.String("on-success")), Settle: values.DurationOf(c, "settle"), OnClose: c.Bool("on-close"),
		Rescan: values.DurationOf(c, "rescan"), Recursive: c.Bool(flagRecursive), Workers: c.Int("workers"), MinFree: c.Int64("min-free"),
		DrainTimeout: values.DurationOf(c, "drain-timeout"), RetryAmbiguous: c.Bool("retry-ambiguous"), Once: c.Bool("once"),
	}
	switch cfg.OnSuccess {
	case spool.DeleteSource, spool.MoveSource, spool.KeepSource:
	default:
		return cfg, ui.UsageErrorf("--on-success %q: want delete, move or keep", printable.Clean(string(cfg.OnSuccess)))
	}
	if cfg.Workers < 1 || cfg.Rescan <= 0 || cfg.DrainTimeout <= 0 || cfg.Settle < 0 || cfg.MinFree < 0 {
		return cfg, ui.UsageErrorf("--workers, --rescan and --drain-timeout must be more than 0, --settle and --min-free not less")
	}
	// On the command line 0 turns these two off. In spool.Config 0 is the default, and a
	// negative value turns them off.
	if cfg.Settle == 0 {
		cfg.Settle = -1
	}
	if cfg.MinFree == 0 {
		cfg.MinFree = -1
	}
	return cfg, nil
}

// ingest is one run of the command.
type ingest struct {
	u     *ui.UI
	id    *rotation.Identity // nil without TLS
	spool *spool.Spool       // open; runIngest closes it
	dir   string             // as it was typed
}

// run sends files until the context of c ends, or with --once until nothing is left to do now.
// The server for metrics and the lines about the progress run beside the spool. They end after
// it, or at once with the context of c, while uploads in flight are finished. If that server
// fails, the spool ends as well.
// The error is that of the spool or of the server, or the exit status of --once. A run that
// was told to stop is status 0, also if files are left: the next one goes on.
func (in *ingest) run(c *cli.Context, served serving.Metrics) error {
	ctx, stop := context.WithCancel(c.Context)
	defer stop()
	aside, ctxAside := errgroup.WithContext(ctx)
	if err := served.Start(ctxAside, c, aside); err != nil {
		return err
	}
	aside.Go(func() error { return serving.Notify(ctxAside, in.u.Logger(slog.LevelInfo), in.ready) })
	if !c.Bool("once") {
		aside.Go(func() error { return in.reportProgress(ctxAside) })
		in.u.Infof("ingest: watching %s", in.dir)
	}
	err := in.spool.Run(ctxAside)
	stop()
	err = errors.Join(err, aside.Wait())
	if err != nil {
		return err
	}
	last := in.spool.Snapshot()
	in.u.Infof("ingest: stopped: %s", totals(last))
	if !c.Bool("once") || c.Err() != nil {
		return nil
	}
	if last.Reason != "" {
		in.u.Infof("ingest: files are left (%s): %s", last.Reason, printable.Clean(last.Error))
	}
	return onceStatus(last)
}

// onceStatus returns the exit status of --once as an error, or nil if everything was stored.
// Files that wait count more than files in quarantine, because another run can send them. A
// directory that could not be read counts as files that wait: nobody knows what is in it.
func onceStatus(s spoolstatus.Snapshot) error {
	switch {
	case s.Waiting+s.Claimed > 0:
		return ui.ExitStatus(exitRemaining)
	case s.Failed+s.Ambiguous > 0:
		return ui.ExitStatus(exitFailedFiles)
	case s.Reason != "":
		return ui.ExitStatus(exitRemaining)
	}
	return nil
}

// ready returns the reason why nothing would be sent now, or nil. It is what /readyz answers.
func (in *ingest) ready(context.Context) error {
	err := in.spool.Ready()
	if in.id != nil {
		err = errors.Join(err, in.id.Check())
	}
	return err
}

// observe prints one line on stdout for a stored file. The spool logs all other events. A line
// that cannot be printed is no error: the file is stored all the same. After a crash a line
// can be printed again for a file that was stored before it.
func (in *ingest) observe(e spool.Event) {
	if e.Kind == "stored" {
		_ = in.u.Outf("%s  %s  %d  %s", e.FileID, e.SHA256, e.Size, e.Name)
	}
}

// reportProgress prints the totals on stderr from time to time, if they have changed, until ctx
// ends. It always returns nil.
func (in *ingest) reportProgress(ctx context.Context) error {
	said := ""
	loadgen.Every(ctx, ingestTalk, func(int) {
		if now := totals(in.spool.Snapshot()); now != said {
			in.u.Infof("ingest: %s", now)
			said = now
		}
	})
	return nil
}

// totals returns a snapshot as one line for people.
func totals(s spoolstatus.Snapshot) string {
	return fmt.Sprintf("stored %d (%s)  failed %d  ambiguous %d  waiting %d  claimed %d",
		s.Stored, ui.Size(s.Bytes), s.Failed, s.Ambiguous, s.Waiting, s.Claimed)
}

// spoolCollector is a collector of metrics that takes a snapshot of the spool at each scrape, so
// that all its numbers are of one moment.
type spoolCollector struct{ spool *spool.Spool }

var (
	// The counters begin at 0 with each process, as those of Prometheus do.
	spoolEnded  = prometheus.NewDesc("ingester_spool_files_total", "Files that came to an end, by how.", []string{"result"}, nil)
	spoolFiles  = prometheus.NewDesc("ingester_spool_files", "Files that are not stored yet, by where they are.", []string{"state"}, nil)
	spoolOldest = prometheus.NewDesc("ingester_spool_oldest_seconds", "Age of the file that waits longest.", nil, nil)
	spoolPaused = prometheus.NewDesc("ingester_spool_paused", "1 while nothing is sent, by why.", []string{"reason"}, nil)
)

// Describe implements [prometheus.Collector].
func (spoolCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{spoolEnded, spoolFiles, spoolOldest, spoolPaused} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c spoolCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.spool.Snapshot()
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count(spoolEnded, float64(s.Stored), "stored")
	count(spoolEnded, float64(s.Failed), "failed")
	count(spoolEnded, float64(s.Ambiguous), "ambiguous")
	gauge(spoolFiles, float64(s.Waiting), "waiting")
	gauge(spoolFiles, float64(s.Claimed-s.Uploading), "claimed")
	gauge(spoolFiles, float64(s.Uploading), "uploading")
	gauge(spoolOldest, s.Oldest)
	if s.Reason != "" {
		gauge(spoolPaused, 1, s.Reason)
	}
}
