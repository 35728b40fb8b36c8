package agentcmd

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/artstore/artstore-pki/rotation/agent"
)

// statusEvery is the time between two lines of text for systemctl status.
const statusEvery = time.Minute

// notify tells systemd (sd_notify(3)) that the agent is ready, how it is, and, where the unit wants
// that, that it lives. Without systemd it does nothing. It runs until ctx ends.
func notify(ctx context.Context, log *slog.Logger, a *agent.Agent) error {
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the watchdog of the service manager is not told", "err", err)
	}
	beat := statusEvery
	if watchdog > 0 {
		beat = min(beat, watchdog/3)
	}
	if err := a.Ready(ctx); err != nil {
		return nil // ctx has ended, which is no failure
	}
	tell(log, daemon.SdNotifyReady+"\n"+statusLine(a))
	defer tell(log, daemon.SdNotifyStopping)
	t := time.NewTicker(beat)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		// The status needs the locks of all identities: one that is stuck stops the watchdog.
		tell(log, daemon.SdNotifyWatchdog+"\n"+statusLine(a))
	}
}

// statusLine returns the text that systemctl status shows.
func statusLine(a *agent.Agent) string {
	st := a.Status()
	return fmt.Sprintf("STATUS=%d identities, %d with a problem", len(st.Identities), st.Problems())
}

// tell sends one message. It is lost without a service manager, and one that cannot be reached is
// no reason to end.
func tell(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Debug("the service manager was not told", "err", err)
	}
}
