package main

import (
	"errors"
	"log/slog"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/ingestclient"
)

// uploadDaemon is what a service with one client runs on: a session, the client
// and a server for its metrics. The caller says when it is ready, and starts the
// server.
type uploadDaemon struct {
	*uploadSession
	Client *ingestclient.Client
	Served metricsServer
}

// openDaemon opens what the settings of the command line describe. The figures of
// the identity go by name, which is the one that the service has in its talk.
func openDaemon(u *ui.UI, c *cli.Context, name string) (*uploadDaemon, error) {
	given, err := readSettings(u, c)
	if err != nil {
		return nil, err
	}
	s, err := openSession(u, c, sessionSetup{Settings: given, Logger: u.Logger(slog.LevelInfo)})
	if err != nil {
		return nil, err
	}
	d := &uploadDaemon{uploadSession: s, Served: clientMetrics(c, name, s.id)}
	s.cfg.Observer = newIngestMetrics(d.Served.registry).observer()
	if d.Client, err = s.newClient(s.cfg); err != nil {
		return nil, errors.Join(err, s.endSession(c.Context))
	}
	return d, nil
}
