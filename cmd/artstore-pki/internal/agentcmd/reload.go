package agentcmd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/artstore/artstore-pki/internal/unixsocket"
	"github.com/artstore/artstore-pki/rotation/agent"
	"github.com/artstore/artstore-pki/rotation/workload"
)

// running is an agent with its listeners.
type running struct {
	a     *agent.Agent
	group *errgroup.Group
	read  func() (agent.Config, error)
	parts map[string]*part // by the kind of the listener
}

// part is a listener that is being served.
type part struct {
	endpoint
	ln   net.Listener
	stop func() // returns when the listener is closed and nothing is served any more
}

// endpoint is a listener of a configuration.
type endpoint struct {
	place   string // the path or address, "" for none
	options string // what adjust changes
	listen  func(ctx context.Context) (net.Listener, error)
	adjust  func(ln net.Listener) error // for a listener of other options
	serve   func(ctx context.Context, ln net.Listener) error
}

// endpoints returns the listeners of a configuration, by kind.
func (r *running) endpoints(cfg agent.Config) map[string]endpoint {
	w := agent.WorkloadAPI{}
	if cfg.Workload != nil {
		w = *cfg.Workload
	}
	return map[string]endpoint{
		"control": {
			place: cfg.Socket,
			listen: func(ctx context.Context) (net.Listener, error) {
				return unixsocket.Listen(ctx, unixsocket.Socket{Path: cfg.Socket})
			},
			serve: r.a.ServeControl,
		},
		"metrics": {
			place: cfg.Metrics,
			listen: func(ctx context.Context) (net.Listener, error) {
				ln, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Metrics)
				if err != nil {
					return nil, fmt.Errorf("listening for metrics: %w", err)
				}
				return ln, nil
			},
			serve: metricsOf(r.a).Serve,
		},
		"workload": {
			place: w.Socket.Path, options: strconv.Itoa(w.Socket.Group),
			listen: func(ctx context.Context) (net.Listener, error) { return workload.Listen(ctx, w.Socket) },
			adjust: w.Socket.Regroup,
			serve:  r.a.ServeWorkload,
		},
	}
}

// listen makes the listeners of the first configuration and serves them.
func (r *running) listen(ctx context.Context, cfg agent.Config) error {
	return r.replace(ctx, cfg, func() error { return nil })
}

// replace makes the listeners that are new in a configuration, puts it into effect by take, serves the
// new listeners and ends those that are not in it. If one cannot be made, or take fails, everything
// stays as it was. Listeners that are the same go on, with their connections.
func (r *running) replace(ctx context.Context, cfg agent.Config, take func() error) error {
	opened, next := map[string]net.Listener{}, r.endpoints(cfg)
	for _, kind := range slices.Sorted(maps.Keys(next)) { // control first: a second agent is told that it is one
		e := next[kind]
		if e.place == "" || r.parts[kind] != nil && r.parts[kind].place == e.place {
			continue
		}
		ln, err := e.listen(ctx)
		if err != nil {
			return errors.Join(socketHint(err), closeAll(opened))
		}
		opened[kind] = ln
	}
	if err := take(); err != nil {
		return errors.Join(err, closeAll(opened))
	}
	var err error
	for kind, e := range next {
		old := r.parts[kind]
		if old != nil && old.place != e.place {
			old.stop()
			delete(r.parts, kind)
		}
		if ln := opened[kind]; ln != nil {
			r.begin(ctx, kind, e, ln)
		}
		if old != nil && old.place == e.place && old.options != e.options {
			if failed := e.adjust(old.ln); failed != nil { // the next reload tries it again
				err = errors.Join(err, failed)
				continue
			}
			old.options = e.options
		}
	}
	return err
}

// closeAll closes listeners that nothing serves.
func closeAll(all map[string]net.Listener) (err error) {
	for _, ln := range all {
		err = errors.Join(err, ln.Close())
	}
	return err
}

// begin serves a listener as a part of the group, until ctx ends or the part is stopped.
func (r *running) begin(ctx context.Context, kind string, e endpoint, ln net.Listener) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	r.group.Go(func() error {
		defer close(done)
		return e.serve(ctx, ln)
	})
	r.parts[kind] = &part{e, ln, func() { cancel(); <-done }}
}

// reloadOn reads the configuration again after each SIGHUP, until ctx ends. What is wrong with it is in
// log and status.
func (r *running) reloadOn(ctx context.Context, hangup <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-hangup:
		}
		cfg, err := r.read()
		if err == nil {
			err = r.replace(ctx, cfg, func() error { return r.a.Reload(ctx, cfg) })
		}
		if err != nil && ctx.Err() == nil {
			r.a.Refused(err)
		}
	}
}
