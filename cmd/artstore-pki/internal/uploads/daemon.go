package uploads

import (
	"errors"
	"log/slog"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/ingestclient"
)

// Daemon has what a service with one client needs: a session, the client, and a server for metrics.
// The caller sets Served.Ready, starts the server, and closes the session at the end.
type Daemon struct {
	*Session
	Client *ingestclient.Client
	Served serving.Metrics
}

// OpenDaemon reads the settings of the command line and opens a daemon. The metrics of the identity
// have name as their label.
func OpenDaemon(u *ui.UI, c *cli.Context, name string) (*Daemon, error) {
	given, err := Read(u, c)
	if err != nil {
		return nil, err
	}
	s, err := Open(u, c, Setup{Settings: given, Logger: u.Logger(slog.LevelInfo)})
	if err != nil {
		return nil, err
	}
	d := &Daemon{Session: s, Served: serving.ClientMetrics(c, name, s.Identity)}
	s.Config.Observer = NewMetrics(d.Served.Registry).Observer()
	if d.Client, err = s.NewClient(s.Config); err != nil {
		return nil, errors.Join(err, s.Close(c.Context))
	}
	return d, nil
}
