package uploads

import (
	"errors"
	"log/slog"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/serving"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/ingestclient"
)

// Daemon is what a service with one client runs on: a session, the client
// and a server for its metrics. The caller says when it is ready, and starts the
// server.
type Daemon struct {
	*Session
	Client *ingestclient.Client
	Served serving.Metrics
}

// OpenDaemon opens what the settings of the command line describe. The figures of
// the identity go by name, which is the one that the service has in its talk.
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
