package serving

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/artstore/artstore-pki/internal/printable"
)

// statusEvery is the time between two texts for "systemctl status" where the unit has no watchdog.
const statusEvery = time.Minute

// Notify tells the service manager that the service is ready, whether it can do its work, that it
// is alive, and at the end of ctx that it stops (sd_notify(3)). The caller starts it in the group
// of the service, once the service answers. Without a service manager it only waits for ctx.
//
// ready is what /readyz answers. That it answers is the sign of life: a service that has a
// reason not to be ready is alive, and a restart would not help it. One that is stuck does not
// answer, sends no WATCHDOG=1, and the service manager starts it anew.
func Notify(ctx context.Context, logger *slog.Logger, ready func(context.Context) error) error {
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		logger.WarnContext(ctx, "the watchdog of the service manager gets no sign of life", slog.Any("err", err))
	}
	every := statusEvery
	if watchdog > 0 {
		every = min(every, watchdog/3)
	}
	look := func() string { // bounded, so that a database which does not answer is a reason and no lack of life
		ctx, cancel := context.WithTimeout(ctx, every)
		defer cancel()
		return statusText(ready(ctx))
	}
	tell(ctx, logger, daemon.SdNotifyReady+"\n"+look())
	defer tell(context.WithoutCancel(ctx), logger, daemon.SdNotifyStopping)
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		tell(ctx, logger, daemon.SdNotifyWatchdog+"\n"+look())
	}
}

// statusText is one line for "systemctl status".
func statusText(err error) string {
	if err != nil {
		return "STATUS=not ready: " + printable.Line(err.Error(), 200)
	}
	return "STATUS=ready"
}

// tell sends one message. There may be no service manager, and one that cannot be reached is no
// reason to end.
func tell(ctx context.Context, logger *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		logger.DebugContext(ctx, "the service manager was not told", slog.Any("err", err))
	}
}
